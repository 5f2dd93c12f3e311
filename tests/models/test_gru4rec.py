"""GRU4Rec against a loop over steps."""

import torch

from ctrlab.models.recurrent import GRU
from tests.support.small_models import logits, make_model, random_fields

FIELDS = random_fields(30)


def test_the_gru_is_that_of_torch():
    torch.manual_seed(0)
    ours, theirs, vectors = GRU(6, 5), torch.nn.GRU(6, 5, batch_first=True), torch.randn(9, 4, 6)
    theirs.load_state_dict(
        {
            f"{kind}_{short}_l0": getattr(getattr(ours, name), kind)
            for name, short in (("input", "ih"), ("hidden", "hh"))
            for kind in ("weight", "bias")
        }
    )
    torch.testing.assert_close(ours(vectors), theirs(vectors)[0])


def last_state(gru, elements):
    """The recurrence written out."""
    h = torch.zeros(gru.hidden_dim)
    for x in elements:
        r_x, z_x, n_x = (gru.input.weight @ x + gru.input.bias).chunk(3)
        r_h, z_h, n_h = (gru.hidden.weight @ h + gru.hidden.bias).chunk(3)
        r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
        h = (1 - z) * torch.tanh(n_x + r * n_h) + z * h
    return h


def test_states_are_those_after_the_last_element_of_each_list():
    model = make_model("gru4rec")
    table, e = model.embedding.categorical.table.weight, model.embedding(FIELDS).flatten(1)
    with torch.no_grad():
        for row, lists in enumerate(FIELDS.lists.tolist()):
            seen = [table[90 + element] for element in lists[:4] if element != 1]
            tags = [table[390 + element] for element in lists[4:] if element != 1]
            states = [last_state(gru, elements) for gru, elements in zip(model.gru, (seen, tags), strict=True)]
            expected = model.mlp(torch.cat([e[row], *states]).unsqueeze(0)).squeeze()
            torch.testing.assert_close(logits(model, FIELDS)[row], expected, atol=1e-5, rtol=1e-5)

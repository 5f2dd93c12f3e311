"""DIN against loops over rows and elements."""

import pytest
import torch

from ctrlab.models.din import Dice
from tests.support.small_models import SCHEMA, logits, make_model, random_fields

FIELDS = random_fields(30)


def looped(model, fields):
    """Row by row and element by element, as the paper writes it."""
    table = model.embedding.categorical.table.weight
    site, device, ad, tags = 0, 50, 90, 390  # where each vocabulary begins
    unit, found = model.attention[0], []
    for ids, values, lists in zip(fields.ids.tolist(), fields.values, fields.lists.tolist(), strict=True):
        e = [table[start + row] for start, row in zip((site, device, ad), ids, strict=True)]
        e += [value * vector for value, vector in zip(values, model.embedding.numeric, strict=True)]
        v, interest = e[2], torch.zeros(8)
        for element in lists[:4]:
            if element != 1:
                x = table[ad + element]
                weight = torch.cat([x, v, x - v, x * v]).unsqueeze(0)
                for layer in unit:
                    weight = layer(weight)
                interest = interest + weight.squeeze() * x
        other = [table[tags + element] for element in lists[4:] if element != 1]
        mean = torch.stack(other).mean(0) if other else torch.zeros(8)
        found.append(model.mlp(torch.cat([*e, interest, mean]).unsqueeze(0)).squeeze())
    return torch.stack(found)


@pytest.mark.parametrize("activation", ["dice", "prelu", "relu"])
def test_interests_are_sums_of_elements_weighed_by_the_target(activation):
    model = make_model("din", activation=activation)
    with torch.no_grad():
        torch.testing.assert_close(logits(model, FIELDS), looped(model, FIELDS), atol=1e-5, rtol=1e-5)


def test_dice_is_its_formula_on_the_statistics_of_the_batch():
    dice, s = Dice(5).train(), torch.randn(40, 5)
    dice.alpha.data.uniform_(-1, 1)
    p = torch.sigmoid((s - s.mean(0)) / s.std(0, correction=0))
    torch.testing.assert_close(dice(s), p * s + (1 - p) * dice.alpha * s)
    assert torch.isfinite(dice(s[:1])).all()  # one element has no spread
    assert dice(s[:0]).shape == (0, 5)


def test_batches_whose_lists_are_empty_can_be_trained_on():
    model = make_model("din", schema=SCHEMA).train()
    fields = random_fields(3)
    model(fields._replace(lists=torch.ones_like(fields.lists))).sum().backward()
    assert all(torch.isfinite(p.grad.to_dense()).all() for p in model.parameters() if p.grad is not None)

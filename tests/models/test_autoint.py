"""Self-attention over fields against the paper's sums, written as loops."""

import numpy as np
import pytest
import torch

from ctrlab.errors import ConfigError
from ctrlab.models.configs import AutoIntConfig
from tests.support.small_models import SCHEMA, logits, make_model, random_fields

FIELDS = random_fields(5)


def attention_by_loops(layer, e):
    """Equations 5 to 8 of the paper for one row: e (M, width) -> (M, A)."""
    query, key, value = (e @ part.weight.detach().double().numpy().T for part in (layer.query, layer.key, layer.value))
    size = layer.head_width
    out = np.zeros_like(query)
    for head in range(layer.heads):
        own = slice(head * size, (head + 1) * size)
        for m in range(len(e)):
            scores = np.array([query[m, own] @ key[k, own] * layer.scale for k in range(len(e))])
            alpha = np.exp(scores) / np.exp(scores).sum()
            out[m, own] = sum(alpha[k] * value[k, own] for k in range(len(e)))
    if layer.residual is not None:
        out += layer.residual(torch.from_numpy(e).float()).detach().double().numpy()
    out = layer.norm(torch.from_numpy(out).float()).detach().double().numpy()
    return np.maximum(out, 0)


@pytest.mark.parametrize("embed_dim", [6, 8])
@pytest.mark.parametrize(
    "settings",
    [{}, {"attention_scale": True, "attention_layer_norm": True}, {"attention_residual": False, "attention_heads": 1}],
    ids=["as in the paper", "scaled and normalised", "one head without residual"],
)
def test_the_logit_is_the_papers_sum(embed_dim, settings):
    model = make_model("autoint", embed_dim=embed_dim, **settings)
    for row, e in enumerate(model.embedding(FIELDS).detach().double().numpy()):
        for layer in model.attention:
            e = attention_by_loops(layer, e)
        head = model.head
        expected = e.ravel() @ head.weight.detach().double().numpy()[0] + head.bias.item()
        assert logits(model, FIELDS)[row].item() == pytest.approx(expected, abs=1e-5)


def test_autoint_plus_adds_the_mlp_and_the_linear_term():
    model = make_model("autoint_plus", linear_term=True)
    e = model.embedding(FIELDS)
    attention = model.head(model.attention(e).flatten(1)).squeeze(1)
    expected = attention + model.linear(FIELDS) + model.mlp(e.flatten(1)).squeeze(1)
    torch.testing.assert_close(logits(model, FIELDS), expected.detach())


def test_attention_dropout_acts_in_training_only():
    model = make_model("autoint", attention_dropout=0.5)
    assert torch.equal(logits(model, FIELDS), logits(model, FIELDS))
    model.train()
    assert not torch.equal(logits(model, FIELDS), logits(model, FIELDS))


def test_raw_values_reach_the_head():
    model = make_model("autoint", numeric_fields="raw")
    assert model.head.in_features == len(SCHEMA.field_names) * 8 + len(SCHEMA.value_names)
    moved = FIELDS._replace(values=FIELDS.values + 1)
    shift = model.head.weight[0, -len(SCHEMA.value_names) :].sum().item()
    torch.testing.assert_close(logits(model, moved) - logits(model, FIELDS), torch.full((5,), shift), atol=1e-5, rtol=1e-4)


def test_heads_must_share_the_width_evenly():
    with pytest.raises(ConfigError, match="attention_dim 10 must be a multiple of attention_heads 3"):
        AutoIntConfig(attention_dim=10, attention_heads=3)


def test_the_published_frappe_settings_can_be_said():
    AutoIntConfig(
        embed_dim=10, attention_dim=128, attention_layers=5, attention_heads=4, attention_scale=True, attention_layer_norm=True
    )

"""BST against a loop over rows, heads, queries and keys."""

import pytest
import torch
from torch.nn import functional

from ctrlab.errors import ConfigError
from tests.support.small_models import logits, make_model, random_fields, small_config

FIELDS = random_fields(20)


def attended(attention, s):
    """Multi-head attention over the rows of s (p, d), a head, a query and a key at a time."""
    width = s.shape[1] // attention.num_heads
    q, k, v = attention.q(s), attention.k(s), attention.v(s)
    out = torch.zeros_like(s)
    for head in range(attention.num_heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(len(s)):
            scores = torch.stack([q[i, part] @ k[j, part] / width**0.5 for j in range(len(s))])
            for weight, j in zip(scores.exp() / scores.exp().sum(), range(len(s)), strict=True):
                out[i, part] += weight * v[j, part]
    return attention.out(out)


def block_of(block, s):
    s = block.attention_norm(s + attended(block.attention, s))
    return block.feed_forward_norm(s + block.narrow(functional.leaky_relu(block.widen(s), 0.01)))


def test_blocks_attend_over_elements_and_target_at_their_distance():
    model = make_model("bst")
    table, e = model.embedding.categorical.table.weight, model.embedding(FIELDS)
    transformer, found = model.transformers[0], logits(model, FIELDS)
    with torch.no_grad():
        for row, lists in enumerate(FIELDS.lists.tolist()):
            seen = [table[90 + element] for element in lists[:4] if element != 1]
            steps = [vector + transformer.position[len(seen) - i] for i, vector in enumerate(seen)]
            s = torch.stack([*steps, e[row, 2] + transformer.position[0]])
            for block in transformer.blocks:
                s = block_of(block, s)
            outputs = torch.cat([s[:-1], torch.zeros(4 - len(seen), 8), s[-1:]]).flatten()
            tags = [table[390 + element] for element in lists[4:] if element != 1]
            mean = torch.stack(tags).mean(0) if tags else torch.zeros(8)
            expected = model.mlp(torch.cat([e[row].flatten(), outputs, mean]).unsqueeze(0)).squeeze()
            torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="embed_dim must be a multiple of num_heads=3, got 8"):
        small_config("bst", embed_dim=8, num_heads=3)

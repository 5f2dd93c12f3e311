"""Mask blocks against the paper's formula."""

import torch

from ctrlab.models.masknet import FieldNorm, MaskBlock
from tests.support.small_models import logits, make_model, random_fields

FIELDS = random_fields(4)


def test_a_block_normalises_a_map_of_what_the_mask_lets_through():
    torch.manual_seed(0)
    block, x, v = MaskBlock(6, 4, 3, reduction=2.0, dropout=0.0), torch.randn(2, 6), torch.randn(2, 4)
    found = block(x, v)
    for row in range(2):
        aggregated = (block.mask[0].weight @ x[row] + block.mask[0].bias).relu()
        mask = block.mask[2].weight @ aggregated + block.mask[2].bias
        mapped = torch.stack([sum(block.hidden.weight[i, j] * mask[j] * v[row, j] for j in range(4)) for i in range(3)])
        normal = (mapped - mapped.mean()) / (mapped.var(unbiased=False) + block.norm.eps).sqrt()
        torch.testing.assert_close(found[row], normal.relu(), atol=1e-5, rtol=1e-5)


def test_every_fields_vector_is_normalised_by_itself_with_a_scale_and_a_shift_of_its_own():
    torch.manual_seed(0)
    layer, e = FieldNorm(3, 4), torch.randn(2, 3, 4)
    with torch.no_grad():
        layer.scale.normal_()
        layer.shift.normal_()
    found = layer(e).reshape(2, 3, 4)
    for field in range(3):
        norm = torch.nn.LayerNorm(4)
        norm.weight.data, norm.bias.data = (part[4 * field : 4 * field + 4].clone() for part in (layer.scale, layer.shift))
        torch.testing.assert_close(found[:, field], norm(e[:, field]), atol=1e-6, rtol=1e-5)


def test_serial_blocks_mask_what_the_one_before_gave():
    model = make_model("masknet", structure="serial")
    e = model.embedding(FIELDS)
    v = model.embedding_norm(e)
    for block in model.blocks:
        v = block(e.flatten(1), v)
    torch.testing.assert_close(logits(model, FIELDS), model.mlp(v).squeeze(1))

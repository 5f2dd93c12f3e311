"""models/layers.py: look-ups and their gradients, and the interactions against loops."""

import pytest
import torch

from ctrlab.data.schema import Fields
from ctrlab.models.layers import CrossNetwork, FieldEmbedding, FusedTable, InnerProductFM, LookupTable
from tests.support.small_models import SCHEMA, make_model, random_fields


def test_a_model_is_trained_by_torchs_own_optimizer():
    model, fields = make_model("deepfm").train(), random_fields(64)
    labels = (torch.arange(64) % 3 == 0).float()
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.01), []
    for _ in range(30):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(fields), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_table_read_twice_adds_both_gradients():
    table = LookupTable(5, 2).train()
    ids = torch.tensor([1, 3])
    (table(ids).sum() + 2 * table(ids[:1]).sum()).backward()
    assert table.weight.grad[:, 0].tolist() == [0, 3, 0, 1, 0]


def test_lookup_is_the_same_in_both_modes_and_takes_either_integer_type():
    table = LookupTable(7, 3)
    ids = torch.tensor([[0, 6], [2, 2]])
    for typed in (ids, ids.int()):
        assert torch.equal(table.train()(typed), table.eval()(typed))
        assert torch.equal(table(typed), table.weight[ids])


def test_each_field_owns_its_own_rows():
    table = FusedTable((3, 4), 2)
    found = table(torch.tensor([[2, 0], [0, 3]], dtype=torch.int32))
    assert torch.equal(found[0], table.table.weight[[2, 3]])
    assert torch.equal(found[1], table.table.weight[[0, 6]])
    assert (table.rows_of(0), table.rows_of(1)) == (slice(0, 3), slice(3, 7))


def test_numeric_fields_scale_their_vectors_and_follow_the_categorical_ones():
    embedding = FieldEmbedding(SCHEMA, 4, init_std=1.0).eval()
    found = embedding(Fields(torch.zeros(1, 3, dtype=torch.int32), torch.tensor([[2.0, -1.0]])))
    assert found.shape == (1, 5, 4)
    torch.testing.assert_close(found[0, 3:], torch.tensor([[2.0], [-1.0]]) * embedding.numeric)


@pytest.mark.parametrize("num_fields", [1, 2, 7])
def test_fm_equals_the_loop_over_pairs(num_fields):
    e = torch.randn(6, num_fields, 5, dtype=torch.float64)
    expected = torch.zeros(6, dtype=torch.float64)
    for i in range(num_fields):
        for j in range(i + 1, num_fields):
            expected += (e[:, i] * e[:, j]).sum(dim=1)
    torch.testing.assert_close(InnerProductFM()(e), expected)


def test_cross_network_equals_the_papers_outer_product_form():
    cross = CrossNetwork(6, 3).double()
    torch.nn.init.normal_(cross.biases)
    rows = torch.randn(4, 6, dtype=torch.float64)
    for x0, found in zip(rows, cross(rows), strict=True):
        x = x0
        for weight, bias in zip(cross.weights, cross.biases, strict=True):
            x = torch.outer(x0, x) @ weight + bias + x
        torch.testing.assert_close(found, x)

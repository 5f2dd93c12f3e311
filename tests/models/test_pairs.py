"""Products of pairs and of learned powers (NFM, AFN, PNN, DLRM) against loops over the papers' formulas."""

import itertools

import pytest
import torch

from ctrlab.models.afn import EPSILON, LogarithmicInteraction
from ctrlab.models.nfm import BiInteraction
from ctrlab.models.pnn import OuterProduct
from ctrlab.models.products import InnerProducts
from tests.support.small_models import SCHEMA, logits, make_model, random_fields

FIELDS = random_fields(6)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_pooling_sums_the_products_of_all_pairs():
    e = torch.randn(3, 5, 4)
    expected = sum(e[:, i] * e[:, j] for i, j in itertools.combinations(range(5), 2))
    torch.testing.assert_close(BiInteraction(5, 4)(e), expected, atol=1e-5, rtol=1e-5)


def test_inner_products_are_in_the_order_of_the_pairs():
    e = torch.randn(3, 5, 4)
    expected = torch.stack([(e[:, i] * e[:, j]).sum(1) for i, j in itertools.combinations(range(5), 2)], dim=1)
    torch.testing.assert_close(InnerProducts(5)(e), expected)


def test_the_outer_product_is_of_the_summed_vectors():
    e = torch.randn(3, 5, 4)
    found = OuterProduct(4)(e)
    for row in range(3):
        total = e[row].sum(0)
        torch.testing.assert_close(found[row].reshape(4, 4), torch.outer(total, total))


def test_logarithmic_neurons_are_products_of_fields_to_learned_powers():
    layer, e = LogarithmicInteraction(4, 6).eval(), torch.randn(3, 4, 5)
    e[0, 0, 0] = 0.0  # its logarithm is that of the smallest magnitude
    with torch.no_grad():
        layer.powers.weight.mul_(0.3)
        found = layer(e).reshape(3, 5, 6)
    normal = (1 + layer.log_norm.eps) ** -0.5  # fresh statistics: mean 0, variance 1
    for row, neuron, coordinate in itertools.product(range(3), range(6), range(5)):
        product = torch.ones(())
        for field in range(4):
            magnitude = max(abs(float(e[row, field, coordinate])), EPSILON)
            product = product * magnitude ** (float(layer.powers.weight[neuron, field]) * normal)
        assert float(found[row, coordinate, neuron]) == pytest.approx(float(product) * normal, rel=1e-4)


def test_afn_plus_adds_a_network_on_embeddings_of_its_own():
    model = make_model("afn_plus")
    deep_input = model.deep_embedding(FIELDS).flatten(1)
    crossed = model.mlp(model.logarithm(model.embedding(FIELDS)))
    expected = model.head(torch.cat([crossed, model.deep(deep_input)], dim=1)).squeeze(1)
    torch.testing.assert_close(logits(model, FIELDS), expected)


@pytest.mark.parametrize("product", ["inner", "outer"])
def test_pnn_reads_vectors_and_products_in_its_first_layer(product):
    model = make_model("pnn", product=product)
    e = model.embedding(FIELDS)
    pairs = itertools.combinations(range(SCHEMA.num_fields), 2)
    if product == "inner":
        products = torch.stack([(e[:, i] * e[:, j]).sum(1) for i, j in pairs], dim=1)
    else:
        products = torch.einsum("bi,bj->bij", e.sum(1), e.sum(1)).flatten(1)
    first = e.flatten(1) @ model.signal.weight.T + model.signal.bias + products @ model.product_weight.weight.T
    torch.testing.assert_close(logits(model, FIELDS), model.mlp(first.relu()).squeeze(1), atol=1e-5, rtol=1e-5)


def test_dlrm_crosses_the_bottom_mlps_vector_with_all_others():
    model = make_model("dlrm")
    x = model.bottom(FIELDS.values)
    vectors = [x, *model.embedding(FIELDS).unbind(1)]
    products = [(left * right).sum(1) for left, right in itertools.combinations(vectors, 2)]
    expected = model.mlp(torch.cat([x, torch.stack(products, dim=1)], dim=1)).squeeze(1)
    torch.testing.assert_close(logits(model, FIELDS), expected, atol=1e-5, rtol=1e-5)


def test_the_structures_of_a_cross_network_differ_in_what_the_mlp_reads():
    for name in ("dcnv2", "gdcn"):
        stacked = make_model(name, structure="stacked")
        x = stacked.embedding(FIELDS).flatten(1)
        torch.testing.assert_close(logits(stacked, FIELDS), stacked.mlp(stacked.cross(x)).squeeze(1))
        parallel = make_model(name)
        x = parallel.embedding(FIELDS).flatten(1)
        expected = (parallel.cross_head(parallel.cross(x)) + parallel.mlp(x)).squeeze(1)
        torch.testing.assert_close(logits(parallel, FIELDS), expected)

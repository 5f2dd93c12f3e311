"""Gated streams and their fusion against the paper's formulas."""

import pytest
import torch

from ctrlab.compression.fold import fold
from ctrlab.compression.surgery import compress_model
from ctrlab.errors import ConfigError
from ctrlab.models.configs import FinalMLPConfig
from ctrlab.models.cost import measure_cost
from ctrlab.models.finalmlp import BilinearFusion
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.cost_prediction import predict
from tests.support.small_models import SCHEMA, logits, make_model, random_fields, spectra_of

FIELDS = random_fields(5)
CONTEXTS = {"context1": ("ad", "price"), "context2": ("site",)}


def test_fusion_is_the_papers_double_sum():
    fusion = make_model("finalmlp").fusion
    o1, o2 = torch.randn(3, 8), torch.randn(3, 6)
    for row, found in enumerate(fusion(o1, o2)):
        expected = fusion.first.weight[0] @ o1[row] + fusion.second.weight[0] @ o2[row] + fusion.first.bias[0]
        for head, product in enumerate(fusion.products):
            for i in range(4):
                for j in range(3):
                    expected = expected + o1[row, 4 * head + i] * product.weight[j, i] * o2[row, 3 * head + j]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("numeric", ["embedding", "raw"])
def test_each_stream_reads_the_vectors_gated_by_its_own_context(numeric):
    model = make_model("finalmlp", numeric_fields=numeric, **CONTEXTS)
    x = model.embedding.dense_input(model.embedding(FIELDS), FIELDS)
    tables, price = model.gate1.context.embedding, FIELDS.values[:, 1:]
    ad = tables.categorical.table.weight[FIELDS.ids[:, 2].long()]
    context1 = torch.cat([ad, price if numeric == "raw" else price * tables.numeric], dim=1)
    context2 = model.gate2.context.embedding.categorical.table.weight[FIELDS.ids[:, 0].long()]
    streams = []
    for mlp, gate, context in ((model.mlp1, model.gate1, context1), (model.mlp2, model.gate2, context2)):
        streams.append(mlp(x * 2 * torch.sigmoid(gate.out(gate.hidden(context)))))
    torch.testing.assert_close(logits(model, FIELDS), model.fusion(*streams).detach())


def test_without_contexts_all_rows_have_the_same_gates():
    gates = make_model("finalmlp").gate1(FIELDS)
    torch.testing.assert_close(gates, gates[:1].expand_as(gates))


def test_without_feature_selection_both_streams_read_the_vectors():
    model = make_model("finalmlp", feature_selection=False)
    x = model.embedding(FIELDS).flatten(1)
    torch.testing.assert_close(logits(model, FIELDS), model.fusion(model.mlp1(x), model.mlp2(x)).detach())
    assert model.embedding_readers == {"embedding": ("mlp1", "mlp2")}


@pytest.mark.parametrize("settings", [CONTEXTS, {"feature_selection": False}], ids=["contexts", "no selection"])
@pytest.mark.parametrize("basis", ["per_field", "shared"])
def test_tables_of_contexts_are_compressed_and_folded_too(settings, basis):
    model = make_model("finalmlp", **settings)
    ranks = {layer.layer_name: min(3, layer.out_features) for layer in profile_model(model).compressible}
    assert ("gate1.context.embedding.ad" in ranks) == ("context1" in settings)
    result = compress_model(model, CompressionSpec.of(ranks, basis=basis), spectra_of(model))
    folded = fold(result.model)
    torch.testing.assert_close(logits(folded, FIELDS), logits(result.model, FIELDS), atol=1e-5, rtol=1e-5)
    assert predict(profile_model(model), None, CompressionSpec(plan=result.plan, basis=basis)).cost_folded == measure_cost(folded)


def test_a_context_field_that_is_not_there_is_refused_by_name():
    with pytest.raises(ConfigError, match="no field is called user; context fields are of: site, device, ad, age, price"):
        make_model("finalmlp", context1=("user",))
    assert "user" not in SCHEMA.names


def test_the_matrices_of_the_fusion_start_as_small_as_one_column_of_them_all():
    fusion = BilinearFusion(200, 100, heads=5)
    weights = torch.cat([linear.weight.flatten() for linear in fusion.products])
    assert float(weights.detach().std()) == pytest.approx((2 / (200 * 100 / 5 + 1)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mlp1_dims": ()}, "mlp1_dims must name at least one width"),
        ({"fusion_heads": 3}, "must be a multiple of fusion_heads 3"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        FinalMLPConfig(**settings)

"""Tables in other forms than latents: tensor trains, kept ids, quotients and remainders; one contract for all methods."""

import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlab.compression.fold import fold, serving_form
from ctrlab.compression.pipeline import compress_and_finetune
from ctrlab.compression.quantize import quantize
from ctrlab.compression.surgery import compress_model
from ctrlab.compression.tensor_train import TensorTrainTable, decompose
from ctrlab.data.schema import OUT_OF_VOCABULARY_ID
from ctrlab.decomposition.collect import look_up_counts
from ctrlab.errors import CompressionError, ConfigError
from ctrlab.measuring.probe import Probe
from ctrlab.measuring.sensitivity_probe import measure_sensitivity
from ctrlab.models.checkpoint import load_model, save_model
from ctrlab.models.configs import MODELS
from ctrlab.models.cost import measure_cost
from ctrlab.models.profile import table_break_even
from ctrlab.models.profiling import profile_model
from ctrlab.plans.budgets import Budget
from ctrlab.plans.configs import CompressConfig, CompressionSpec, RankPlan
from ctrlab.plans.cost_prediction import predict
from ctrlab.plans.methods import METHODS
from ctrlab.plans.planner import plan_for_budget
from ctrlab.plans.rank_problem import PlanOptions
from ctrlab.plans.table_forms import (
    kept_ids,
    quotient_remainder_rows,
    table_numbers,
    tensor_train_shape,
)
from ctrlab.training.configs import FitConfig
from tests.support.onnx import assert_onnx_agrees
from tests.support.small_models import SCHEMA, MemoryDataset, logits, make_model, perturb_, random_fields, spectra_of

DATA, FIELDS = MemoryDataset(), random_fields(64)
OTHER = [name for name in METHODS.names() if not METHODS[name].keeps_latents]
METHOD = pytest.mark.parametrize("method", OTHER)
#: (architecture, method) pairs in place of their product, which the predicted cost runs over: interactions by products, by attention
#: and by lists, each method with some of them.
PAIRS = list(zip(("deepfm", "dcn", "autoint", "din", "finalmlp", "gru4rec"), 2 * OTHER, strict=True))


def compressed(name, method, rank=3, **settings):
    """The model and its trainable compressed form after some fine-tuning has moved all parameters."""
    model = make_model(name, batch_norm=True, **settings)
    ranks = {layer.layer_name: min(rank, layer.out_features) for layer in profile_model(model).compressible}
    result = compress_model(
        model,
        CompressionSpec.of(ranks, method=method),
        spectra_of(model, loss_gradients=METHODS[method].needs_gradients),
        counts=look_up_counts(model, DATA),
    )
    perturb_(result.model, 0.02)
    return model, result


def only_table(method, weight, counts, rank, field="ad"):
    """A DeepFM whose table of `field` is `weight`, compressed; and a function of ids that gives its vectors."""
    model = make_model("deepfm", embed_dim=weight.shape[1])
    number = SCHEMA.table_names.index(field)
    with torch.no_grad():
        model.embedding.categorical.table.weight[model.embedding.categorical.rows_of(number)] = weight.float()
    plan, known = RankPlan.of({f"embedding.{field}": rank}), look_up_counts(model, DATA) | {f"embedding.{field}": counts}
    built = compress_model(
        model, CompressionSpec(plan=plan, method=method), spectra_of(model), counts=known, respect_break_even=False
    ).model
    return built, lambda ids: built.embedding.look_up(torch.as_tensor(ids), number).detach()


@pytest.mark.parametrize("method", METHODS.names())
@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_size_on_disk_is_what_the_plan_promised(method, precision, tmp_path):
    name = "dcn" if precision == "int8" else "deepfm"
    model, result = compressed(name, method)
    promised = predict(profile_model(model), None, CompressionSpec(plan=result.plan, precision=precision, method=method))
    served, path = quantize(serving_form(result.model), precision), tmp_path / "model.safetensors"
    save_model(served, path)
    (header,) = struct.unpack("<Q", path.read_bytes()[:8])
    # A count of batches that batch normalisation keeps outside the folded layers would be 8 bytes more; here all fold.
    assert path.stat().st_size - 8 - header == promised.serving.size_bytes == measure_cost(served).size_bytes


@METHOD
@pytest.mark.parametrize("name", MODELS.names())
def test_the_predicted_cost_is_the_cost_of_what_is_built(name, method):
    model, result = compressed(name, method)
    profile = profile_model(model)
    prediction = predict(profile, spectra_of(model), CompressionSpec(plan=result.plan, method=method))
    assert prediction.cost_explicit == measure_cost(result.model)
    assert prediction.cost_folded == measure_cost(fold(result.model))
    assert not any(profile.by_name[layer].kind == "embedding" for layer in prediction.variance_lost if layer in prediction.ranks)
    after = sum(row.parameters_after - row.parameters_before for row in result.rows)
    assert after == prediction.cost_explicit.parameters - prediction.cost_original.parameters


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_every_form_is_saved_loaded_folded_quantised_exported_and_trained(name, method, tmp_path):
    _, result = compressed(name, method)
    torch.testing.assert_close(logits(fold(result.model), FIELDS), logits(result.model, FIELDS), atol=1e-5, rtol=1e-5)
    for form in (result.model.eval(), serving_form(result.model), quantize(serving_form(result.model), "int4")):
        save_model(form, tmp_path / "m.safetensors")
        assert torch.equal(logits(load_model(tmp_path / "m.safetensors", SCHEMA), FIELDS), logits(form, FIELDS))
        assert_onnx_agrees(form, FIELDS, batch_sizes=(len(FIELDS.ids),))
    model = result.model.train()
    model(DATA.fields()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.numel())


@given(st.integers(3, 200_000), st.sampled_from([1, 2, 7, 8, 10, 16, 20, 64]), st.integers(1, 20))
@settings(max_examples=150, deadline=None)
def test_no_form_is_larger_than_latents_of_the_rank(num_ids, width, rank):
    if rank >= table_break_even(num_ids, width):
        return
    limit = 4 * table_numbers(num_ids, width, rank)
    for name in OTHER:
        shape = METHODS[name].table_shape(num_ids, width, rank)
        smallest = name == "tensor_train" and tensor_train_shape(num_ids, width, rank).ranks == (1, 1)
        assert smallest or 0 < 4 * shape.parameters + shape.index_bytes <= limit
    ids, widths = tensor_train_shape(num_ids, width, rank).ids, tensor_train_shape(num_ids, width, rank).widths
    assert np.prod(ids) >= num_ids and np.prod(widths) == width
    kept = METHODS["rare_ids"].table_shape(num_ids, width, rank)
    assert limit - (4 * kept.parameters + kept.index_bytes) < 4 * width or kept_ids(num_ids, width, rank) == num_ids


# -- Tensor trains ------------------------------------------------------------------------------------------------------------


def matrix_of(cores, shape):
    """(n_1 n_2 n_3, d) from the definition, an id and a column at a time."""
    (n1, n2, n3), (d1, d2, d3), (r1, r2) = shape.ids, shape.widths, shape.ranks
    first, second, third = (core.detach().double().numpy() for core in cores)
    table = np.zeros((n1 * n2 * n3, d1 * d2 * d3))
    for number in range(len(table)):
        i1, i2, i3 = number // (n2 * n3), number // n3 % n2, number % n3
        for column in range(table.shape[1]):
            j1, j2, j3 = column // (d2 * d3), column // d3 % d2, column % d3
            left = first[i1].reshape(d1, r1)[j1]
            middle = second[i2].reshape(r1, d2, r2)[:, j2]
            table[number, column] = left @ middle @ third[i3].reshape(r2, d3)[:, j3]
    return table


def test_a_tensor_train_row_is_the_product_of_its_cores():
    shape = tensor_train_shape(50, 8, 2)
    table = TensorTrainTable(shape)
    perturb_(table, 1.0)
    expected = matrix_of([core.table.weight for core in table.cores], shape)
    np.testing.assert_allclose(table(torch.arange(50)).detach().numpy(), expected[:50], rtol=1e-4, atol=1e-4)


def test_a_table_of_low_tensor_train_rank_is_found_again():
    shape = tensor_train_shape(64, 8, 3)  # 4 x 4 x 4: rows of zeros that fill up the last core would not be of that rank
    table = TensorTrainTable(shape)
    perturb_(table, 1.0)
    exact = table(torch.arange(64)).detach().double()
    scales = [torch.rand(rows, dtype=torch.float64) + 0.5 for rows in shape.ids]
    torch.testing.assert_close(torch.tensor(matrix_of(decompose(exact, shape, scales), shape)), exact, atol=1e-5, rtol=1e-5)


def test_tensor_train_weighs_ids_by_how_often_they_occur():
    torch.manual_seed(0)
    weight, counts = torch.randn(300, 8).double(), (3000 / (1 + np.arange(300)) ** 1.2).astype(np.int64)
    errors = []
    for known in (counts, np.zeros_like(counts)):
        _, vectors = only_table("tensor_train", weight, known, 2)
        errors.append(float(((vectors(np.arange(300)).double() - weight).square().sum(1) * torch.tensor(counts + 1.0)).sum()))
    assert errors[0] < 0.8 * errors[1]


# -- Kept ids -----------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_the_ids_seen_most_keep_their_rows_and_the_others_share_the_weighted_mean(seed, rank):
    random = np.random.default_rng(seed)
    weight, counts = torch.tensor(random.normal(size=(300, 8))), random.integers(0, 50, 300)
    counts[OUT_OF_VOCABULARY_ID] = 0
    _, vectors = only_table("rare_ids", weight, counts, rank)
    found = vectors(np.arange(300)).double().numpy()
    rows = kept_ids(300, 8, rank)
    own = [number for number in range(300) if np.allclose(found[number], weight[number].numpy(), atol=1e-6)]
    dropped = sorted(set(range(300)) - set(own))
    assert len(own) == rows - 1 and OUT_OF_VOCABULARY_ID in dropped
    assert counts[own].min() >= max(counts[number] for number in dropped)
    mean = (counts[dropped] @ weight[dropped].numpy()) / counts[dropped].sum()
    np.testing.assert_allclose(found[dropped], np.tile(mean, (len(dropped), 1)), atol=1e-6)


def test_ids_never_seen_leave_the_out_of_vocabulary_row_as_it_was():
    weight, counts = torch.randn(300, 8), np.zeros(300, np.int64)
    counts[2:12] = 5
    _, vectors = only_table("rare_ids", weight, counts, 4)
    torch.testing.assert_close(vectors([OUT_OF_VOCABULARY_ID, 299]), weight[[OUT_OF_VOCABULARY_ID] * 2])


def test_dropping_ids_without_counts_or_with_those_of_other_data_is_refused():
    model = make_model("deepfm")
    plan, spectra = RankPlan.of({"embedding.ad": 2}), spectra_of(model)
    with pytest.raises(CompressionError, match=r"embedding\.ad needs the training counts"):
        compress_model(model, CompressionSpec(plan=plan, method="rare_ids"), spectra)
    with pytest.raises(CompressionError, match="7 counts were given for the 300 ids"):
        compress_model(model, CompressionSpec(plan=plan, method="rare_ids"), spectra, counts={"embedding.ad": np.ones(7)})


# -- Quotients and remainders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_vector_of_an_id_is_made_of_its_quotient_and_its_remainder(rank):
    model, vectors = only_table("qr_hash", torch.randn(300, 8), np.ones(300), rank)
    group = model.embedding.groups[0]
    quotients, remainders = quotient_remainder_rows(300, 8, rank)
    q, r = group.quotients.table.weight.detach(), group.remainders.table.weight.detach()
    assert (len(q), len(r)) == (quotients, remainders)
    for number in range(300):
        expected = r[number % remainders] * (1 + q[number // remainders % quotients])
        torch.testing.assert_close(vectors([number])[0], expected)


@given(st.integers(4, 100_000), st.integers(1, 15))
@settings(max_examples=60, deadline=None)
def test_no_two_ids_share_both_rows_where_there_is_room(num_ids, rank):
    quotients, remainders = quotient_remainder_rows(num_ids, 16, rank)
    if table_numbers(num_ids, 16, rank) // 16 >= 2 * np.ceil(np.sqrt(num_ids)):
        assert quotients * remainders >= num_ids


def test_hashed_tables_start_alike_for_one_original_and_differently_for_another():
    weight = torch.randn(300, 8)
    first, again, other = (only_table("qr_hash", table, np.ones(300), 2)[1]([5]) for table in (weight, weight, weight + 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


# -- Around them --------------------------------------------------------------------------------------------------------------


@METHOD
def test_what_the_method_cannot_do_is_said_before_anything_runs(method):
    with pytest.raises(ConfigError, match="no basis that tables could share"):
        CompressConfig(plan=RankPlan(), method=method, basis="shared")
    with pytest.raises(ConfigError, match="no basis that tables could share"):
        CompressionSpec(method=method, basis="shared")
    _, result = compressed("dcn", method)
    with pytest.raises(CompressionError, match=f"reduced to {method}, latents was asked for"):
        compress_model(result.model, CompressionSpec(method="svd"))


def test_a_method_that_retrains_asks_for_a_training_and_has_nothing_to_preview():
    with pytest.raises(ConfigError, match="re-initialises the tables; add fine-tuning"):
        CompressConfig(plan=RankPlan.of({"embedding.ad": 2}), method="qr_hash")
    model = make_model("deepfm")
    with pytest.raises(CompressionError, match="nothing to measure before training"):
        Probe(model, spectra_of(model), DATA.split("valid")).measure(CompressionSpec.of({"embedding.ad": 2}, method="qr_hash"))


@METHOD
@pytest.mark.parametrize("order", ["mlp_first", "tables_first"])
def test_the_pipeline_compresses_and_trains_in_stages(method, order):
    model = make_model("deepfm")
    plan = RankPlan.of({"embedding.ad": 2, "embedding.site": 1, "mlp.0": 4})
    tuning = FitConfig(batch_size=400, evaluations_per_epoch=1, device="cpu")
    result = compress_and_finetune(model, DATA, CompressConfig(plan=plan, method=method, order=order, finetune=tuning))
    assert [stage.name for stage in result.stages] == (["mlp", "tables"] if order == "mlp_first" else ["tables", "mlp"])
    assert result.model.structure.table_form == method and result.model.structure.ranks == plan.as_dict()
    assert (
        measure_cost(result.model) == predict(profile_model(model), None, CompressionSpec(plan=plan, method=method)).cost_explicit
    )


@METHOD
@pytest.mark.parametrize("kind", ["bytes", "macs"])
def test_a_budget_holds_for_what_the_method_costs(method, kind):
    model = make_model("deepfm")
    sensitivity = measure_sensitivity(Probe(model, spectra_of(model), DATA.split("valid"), max_rows=100))
    profile = profile_model(model)
    whole = profile.cost.size_bytes if kind == "bytes" else profile.cost.macs
    planned = plan_for_budget(
        profile, sensitivity, Budget(kind=kind, limit=whole * 0.6), PlanOptions(spec=CompressionSpec(method=method))
    )
    built = compress_model(
        model, CompressionSpec(plan=planned.plan, method=method), spectra_of(model), counts=look_up_counts(model, DATA)
    ).model
    cost = measure_cost(serving_form(built))
    assert cost == planned.cost and (cost.size_bytes if kind == "bytes" else cost.macs) <= whole * 0.6


def test_only_the_hash_retrains():
    assert [name for name in METHODS.names() if METHODS[name].retrains] == ["qr_hash"]

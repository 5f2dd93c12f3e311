import copy
import functools
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ctrlab.compression.fold import fold, serving_form
from ctrlab.compression.quantize import prepare_, quantize
from ctrlab.compression.quantized import QuantizedLinear, QuantizedTable, pack, unpack
from ctrlab.compression.surgery import compress_model
from ctrlab.errors import CompressionError, ConfigError, StorageError
from ctrlab.models.checkpoint import load_model, save_model
from ctrlab.models.configs import MODELS
from ctrlab.models.cost import measure_cost
from ctrlab.models.header import read_model_header
from ctrlab.models.layers import FusedTable
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.cost_prediction import predict
from ctrlab.plans.rank_problem import with_bits
from ctrlab.plans.serving_forms import quantizes_linear
from ctrlab.serving.onnx_export import export_onnx
from tests.support.onnx import assert_onnx_agrees
from tests.support.small_models import SCHEMA, logits, make_model, perturb_, random_fields, varied

EVERY_MODEL = pytest.mark.parametrize("name", MODELS.names())
PRECISION = pytest.mark.parametrize("precision", ["int8", "int4"])
FIELDS = random_fields(64)


def compressed(name, numeric="embedding", rank=3, basis="per_field"):
    """The model and its trainable compressed form after some fine-tuning has moved all parameters."""
    model = make_model(name, batch_norm=True, numeric_fields=numeric)
    ranks = {layer.layer_name: min(rank, layer.out_features) for layer in profile_model(model).compressible}
    result = compress_model(model, CompressionSpec.of(ranks, method="svd", basis=basis))
    perturb_(result.model, 0.02)
    return model, result


def forms(name):
    """The uncompressed model, the trainable form and every way to serve it."""
    model, result = compressed(name)
    shared = compressed(name, basis="shared")[1].model
    return [model, serving_form(model), result.model, fold(result.model), fold(shared)]


@functools.cache
def quantized_forms(name, precision):
    """(form, the same in integers) of every other form; made once, for no test changes them.

    One precision has the first, third and fifth form, the other one the rest; which, alternates from one architecture to the next.
    """
    first = (MODELS.names().index(name) + (precision == "int4")) % 2
    return [(form, quantize(form, precision)) for form in forms(name)[first::2]]


def cost_in(form, precision):
    """Cost of `form` in integers, for which the codes themselves do not matter: a search for the best ones takes longest."""
    empty = copy.deepcopy(form)
    prepare_(empty, precision)
    return measure_cost(empty.eval())


def float_twin(form, quantized, noise=0.0, seed=0):
    """`form` with the numbers that the codes of `quantized` stand for, each moved by up to `noise` steps."""
    generator = torch.Generator().manual_seed(seed)

    def moved(values, scale):
        return values + noise * scale * (2 * torch.rand(values.shape, generator=generator) - 1)

    twin, integers = copy.deepcopy(form).eval(), dict(quantized.named_modules())
    with torch.no_grad():
        for module_name, module in twin.named_modules():
            coded = integers.get(module_name)
            if isinstance(coded, QuantizedLinear):
                module.weight.copy_(moved(coded.dequantized(), coded.scale.unsqueeze(1)))
            elif isinstance(coded, QuantizedTable):
                for field, scale in enumerate(coded.scale):
                    module.table.weight[module.rows_of(field)] = moved(coded.dequantized(field), scale)
    return twin


def rms(numbers):
    return float(numbers.double().square().mean().sqrt())


@EVERY_MODEL
@PRECISION
def test_every_table_and_every_larger_linear_layer_is_in_integers(name, precision):
    for _, quantized in quantized_forms(name, precision):
        for _, module in quantized.named_modules(remove_duplicate=False):
            assert not isinstance(module, FusedTable)
            assert not (isinstance(module, nn.Linear) and quantizes_linear(module.in_features, module.out_features))
            if isinstance(module, QuantizedTable):
                assert module.codes.dtype == torch.uint8
                assert module.bits == (4 if precision == "int4" and module.width > 1 else 8)
        assert not quantized.training and profile_model(quantized).compressed


@EVERY_MODEL
@PRECISION
def test_logits_are_those_of_the_float_model_with_the_numbers_that_the_codes_stand_for(name, precision):
    for form, quantized in quantized_forms(name, precision):
        expected = logits(float_twin(form, quantized), FIELDS)
        torch.testing.assert_close(logits(quantized, FIELDS), expected, rtol=1e-5, atol=1e-5)


@EVERY_MODEL
@PRECISION
def test_logits_move_no_further_than_by_noise_of_half_a_step_in_every_number(name, precision):
    model = serving_form(make_model(name, batch_norm=True))
    quantized, fields = quantize(model, precision), random_fields(500)
    found = rms(logits(quantized, fields) - logits(model, fields))
    twin = logits(float_twin(model, quantized), fields)
    noise = [rms(logits(float_twin(model, quantized, 0.5, seed), fields) - twin) for seed in range(4)]
    # A few numbers lie outside the clipped range, further off than half a step.
    assert 0 < found < 2 * max(noise)


@EVERY_MODEL
def test_logits_of_int8_are_close(name):
    model, fields = serving_form(make_model(name, batch_norm=True)), random_fields(500)
    expected = logits(model, fields)
    error = (logits(quantize(model, "int8"), fields) - expected).abs() / expected.std()
    # A table's numbers are off by 1 / (255 sqrt 12) of their range, which is some six deviations: less than 1 % of a deviation.
    # A logit is a sum of many of them with as many errors. AFN looks at logarithms, hence at relative errors of numbers near
    # zero, which the logits of some rows are made of.
    assert (error.median() if name.startswith("afn") else rms(error)) < 0.03


@EVERY_MODEL
@pytest.mark.parametrize("number", [0, 1])
def test_the_predicted_cost_is_the_cost_of_what_is_built(name, number):
    precision, basis, numeric = varied(name, number, ("int8", "int4"), ("per_field", "shared"), ("embedding", "raw"))
    model, result = compressed(name, numeric, basis=basis)
    profile = profile_model(model)
    prediction = predict(profile, None, CompressionSpec(plan=result.plan, basis=basis, precision=precision))
    assert prediction.served_explicit == cost_in(result.model, precision)
    assert prediction.served_folded == cost_in(fold(result.model), precision)
    assert prediction.serving == cost_in(serving_form(result.model), precision)
    alone = predict(profile, None, CompressionSpec(precision=precision))
    assert alone.serving == cost_in(serving_form(model), precision)
    in_floats = predict(profile, None, CompressionSpec(plan=result.plan, basis=basis))
    assert (prediction.serving.macs, prediction.serving.parameters) == (in_floats.serving.macs, in_floats.serving.parameters)
    assert (prediction.cost_explicit, prediction.serving_original) == (in_floats.cost_explicit, in_floats.serving_original)
    assert in_floats.serving == measure_cost(serving_form(result.model))


@given(
    st.sampled_from(["deepfm", "dcn", "autoint_plus", "din"]), st.sampled_from(["int8", "int4"]), st.integers(1, 9),
    st.lists(st.integers(1, 20), min_size=1, max_size=2), st.integers(1, 6), st.sampled_from(["none", "prelu"]),
    st.sampled_from(["per_field", "shared"]),
)  # fmt: skip
@settings(max_examples=12, deadline=None)
def test_the_predicted_cost_holds_for_any_width_and_rank(name, precision, embed_dim, mlp_dims, rank, bottleneck, basis):
    model = make_model(name, embed_dim=embed_dim, mlp_dims=tuple(mlp_dims))
    profile = profile_model(model)
    ranks = {layer.layer_name: min(rank, layer.out_features) for layer in profile.compressible}
    result = compress_model(model, CompressionSpec.of(ranks, bottleneck=bottleneck, method="svd", basis=basis))
    prediction = predict(profile, None, CompressionSpec.of(ranks, bottleneck=bottleneck, basis=basis, precision=precision))
    assert prediction.served_explicit == cost_in(result.model, precision)
    assert prediction.served_folded == cost_in(fold(result.model), precision)


@EVERY_MODEL
@PRECISION
def test_a_quantised_checkpoint_loads_bit_for_bit_and_is_of_the_promised_size(name, precision, tmp_path):
    path = tmp_path / "model.safetensors"
    for _, quantized in quantized_forms(name, precision):
        save_model(quantized, path)
        loaded = load_model(path, SCHEMA)
        assert torch.equal(logits(loaded, FIELDS), logits(quantized, FIELDS))
        state = loaded.state_dict()
        assert all(torch.equal(state[key], tensor) for key, tensor in quantized.state_dict().items())
        assert loaded.structure == quantized.structure == read_model_header(path).structure
        (header,) = struct.unpack("<Q", path.read_bytes()[:8])
        # Buffers that count batches take 8 bytes apiece in either form.
        assert path.stat().st_size - 8 - header == measure_cost(quantized).size_bytes


@EVERY_MODEL
def test_the_quantised_form_runs_in_onnx_runtime(name):
    for precision in ("int8", "int4"):  # a trainable or a folded form of a compression, by architecture and precision
        assert_onnx_agrees(quantized_forms(name, precision)[1][1], FIELDS)


@PRECISION
def test_an_exported_file_keeps_the_codes(precision, tmp_path):
    model = serving_form(make_model("deepfm", embed_dim=32, mlp_dims=(400, 400)))
    quantized = quantize(model, precision)
    beside = {}
    for form in (model, quantized):
        export_onnx(form, tmp_path / "model.onnx")
        beside[form] = (tmp_path / "model.onnx").stat().st_size - measure_cost(form).size_bytes
    assert beside[quantized] < beside[model] + 12_000  # more nodes
    assert measure_cost(model).size_bytes > measure_cost(quantized).size_bytes + 600_000


@EVERY_MODEL
def test_the_original_stays_as_it_was(name):
    for form in forms(name)[2:4]:
        structure = copy.deepcopy(form.structure)
        before, training = {key: tensor.clone() for key, tensor in form.state_dict().items()}, form.train().training
        quantized = quantize(form, "int8")
        assert [type(module) for module in form.modules()] == [type(module) for module in copy.deepcopy(form).modules()]
        perturb_(quantized, 1.0)
        assert form.structure == structure and form.training == training
        assert all(torch.equal(before[key], tensor) for key, tensor in form.state_dict().items())


def test_float32_is_a_copy():
    model = fold(make_model("deepfm"))
    same = quantize(model, "float32")
    assert same is not model and torch.equal(logits(same, FIELDS), logits(model, FIELDS)) and same.structure == model.structure


def test_the_same_model_gives_the_same_codes():
    model = serving_form(make_model("dcn"))
    first, second = quantize(model, "int4").state_dict(), quantize(model, "int4").state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_model_of_doubles_stays_one():
    model = serving_form(make_model("deepfm")).double()
    fields = FIELDS._replace(values=FIELDS.values.double())
    quantized = quantize(model, "int8")
    assert logits(quantized, fields).dtype == torch.float64
    assert predict(profile_model(make_model("deepfm").double()), None, CompressionSpec(precision="int8")).serving == measure_cost(
        quantized
    )


def test_folding_leaves_a_quantised_model_as_it_is():
    quantized = quantize(compressed("deepfm")[1].model, "int8")
    assert torch.equal(logits(serving_form(quantized), FIELDS), logits(quantized, FIELDS))


def test_what_cannot_be_quantised_is_refused_with_a_sentence():
    model = make_model("deepfm")
    quantized = quantize(model, "int8")
    for again in ("int8", "int4", "float32"):
        with pytest.raises(CompressionError, match="quantised already; quantise the float serving form"):
            quantize(quantized, again)
    with pytest.raises(CompressionError, match="quantised for serving; compress the trainable form"):
        compress_model(quantized, CompressionSpec())
    with pytest.raises(ConfigError, match="precision must be one of float32, int8, int4, got int2"):
        quantize(model, "int2")
    with torch.no_grad():
        model.mlp[0].weight[0, 0] = torch.inf
    with pytest.raises(CompressionError, match=r"mlp\.0\.weight holds numbers that are not finite"):
        quantize(model, "int8")


def test_a_checkpoint_of_an_unknown_precision_is_damaged(tmp_path):
    quantized = quantize(make_model("deepfm"), "int8")
    quantized.structure = replace(quantized.structure, precision="int2")
    save_model(quantized, tmp_path / "model.safetensors")
    with pytest.raises(StorageError, match=r"truncated or damaged.*precision must be one of"):
        load_model(tmp_path / "model.safetensors")


@given(st.integers(1, 9), st.integers(0, 40), st.integers(0, 99))
def test_two_codes_lie_in_a_byte_the_earlier_one_below(width, rows, seed):
    codes = np.random.default_rng(seed).integers(0, 16, (rows, width), dtype=np.uint8)
    padded = np.pad(codes, ((0, 0), (0, width % 2)))
    packed = pack(torch.from_numpy(codes))
    np.testing.assert_array_equal(packed.numpy(), padded[:, 0::2] + 16 * padded[:, 1::2])
    assert packed.shape == (rows, (width + 1) // 2) and torch.equal(unpack(packed, width), torch.from_numpy(codes))


def values_of(kind, shape, seed):
    """Rows about 3; of a flat kind all but the first column, which is one number throughout."""
    random = np.random.default_rng(seed)
    draw = {"normal": random.standard_normal, "heavy": lambda size: random.standard_t(2, size), "flat": random.random}[kind]
    values = 3 + 0.1 * draw(size=shape)
    if kind == "flat":
        values[:, 0] = 0.7
    return values.astype(np.float32)


def quantized_table(values, precision):
    """A table of one field with these rows, by way of a model that has one."""
    schema = type(SCHEMA)(field_names=("a", "b"), field_dims=(5, len(values)))
    model = make_model("fm", schema=schema, embed_dim=values.shape[1])
    with torch.no_grad():
        model.embedding.categorical.table.weight[5:] = torch.from_numpy(values)
    return quantize(model, precision).embedding.categorical


@given(st.sampled_from(["normal", "heavy", "flat"]), st.integers(1, 400), st.integers(1, 7), st.integers(0, 99), st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_tables_numbers_are_off_by_half_a_step_inside_the_range_and_at_its_end_outside(kind, rows, width, seed, four_bits):
    values = values_of(kind, (rows, width), seed)
    table = quantized_table(values, "int4" if four_bits else "int8")
    step, low = table.scale[1].double().numpy(), table.offset[1].double().numpy()
    high = low + step * (2**table.bits - 1)
    found, rounding = table.dequantized(1).double().numpy(), 1e-6 * np.abs(values).max()
    inside = (values >= low) & (values <= high)
    assert np.all(np.abs(found - values)[inside] <= (0.5 * step + rounding + 0 * values)[inside])
    np.testing.assert_allclose(found[~inside], np.clip(values, low, high)[~inside], atol=rounding)


@given(st.sampled_from(["normal", "heavy", "flat"]), st.integers(2, 400), st.integers(1, 7), st.integers(0, 99), st.booleans())
@settings(max_examples=20, deadline=None)
def test_no_column_is_worse_than_with_its_whole_range(kind, rows, width, seed, four_bits):
    values = values_of(kind, (rows, width), seed)
    table = quantized_table(values, "int4" if four_bits else "int8")
    found = np.square(table.dequantized(1).double().numpy() - values).sum(0)
    low, step = values.min(0).astype(float), np.ptp(values.astype(float), axis=0) / (2**table.bits - 1)
    step = np.maximum(step, 1e-30)
    whole = np.square(low + step * np.clip(np.round((values - low) / step), 0, 2**table.bits - 1) - values).sum(0)
    assert np.all(found <= whole * 1.001 + rows * 1e-12)


@pytest.mark.parametrize("kind", ["normal", "heavy"])
@pytest.mark.parametrize("seed", range(4))
def test_the_clipped_range_is_about_as_good_as_the_best_of_all_pairs_of_ends(kind, seed):
    values = values_of(kind, (500, 1), seed)
    served = quantized_table(np.repeat(values, 2, axis=1), "int4").dequantized(1).double().numpy()
    found = np.square(served - values)[:, 0].sum()
    centre, shrinks = np.median(values), 0.9 ** np.arange(30)
    low, high = centre + (values.min() - centre) * shrinks[:, None], centre + (values.max() - centre) * shrinks
    step = (high - low) / 15
    codes = np.clip(np.round((values[:, :, None] - low) / step), 0, 15)
    best = np.square(low + step * codes - values[:, :, None]).sum(0).min()
    assert found < 1.2 * best


@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 99), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_linear_layer_keeps_its_bias_and_rounds_every_output_by_itself(in_features, out_features, seed, with_bias):
    torch.manual_seed(seed)
    model = make_model("lr")  # with no other layer to quantise
    layer = nn.Linear(in_features, out_features, bias=with_bias)
    with torch.no_grad():
        layer.weight[0] *= 100
        layer.weight[1] = 0
    model.extra = layer
    found = quantize(model, "int4").extra
    assert isinstance(found, QuantizedLinear) == (in_features * out_features >= 64)
    if not isinstance(found, QuantizedLinear):
        assert torch.equal(found.weight, layer.weight)
        return
    assert found.codes.dtype == torch.int8 and (found.bias is None) == (not with_bias)
    assert found.bias is None or torch.equal(found.bias, layer.bias)
    step, weight = found.scale.detach().unsqueeze(1), layer.weight.detach()
    inside = weight.abs() <= 127 * step
    assert torch.all(((found.dequantized() - weight).abs() <= 0.501 * step)[inside])
    assert torch.equal(found.dequantized()[1], torch.zeros(in_features))
    assert torch.all(found.codes.abs() <= 127)


def test_the_structure_is_json_and_names_the_precision():
    model = make_model("deepfm")
    for form in (model, fold(model), compressed("deepfm")[1].model):
        structure = json.loads(json.dumps(quantize(form, "int4").structure.to_dict()))
        assert structure["precision"] == "int4" and structure["kind"] == "factored"


def mixed_bits(model):
    """Every layer's bits in turn."""
    names = [layer.layer_name for layer in profile_model(model).compressible]
    return {name: ("float32", "int8", "int4")[number % 3] for number, name in enumerate(names)}


@pytest.mark.parametrize("name", ["deepfm", "dcn", "autoint", "nfm", "din"])
def test_bits_by_layer_have_the_predicted_size_outputs_of_their_numbers_and_load_again(name, tmp_path):
    model, result = compressed(name)
    own = mixed_bits(model)
    for form in (serving_form(model), serving_form(result.model)):
        mixed = quantize(form, "int8", own)
        plan = {} if form.structure is None or not form.structure.ranks else form.structure.ranks
        spec = with_bits(CompressionSpec.of(plan, precision="int8"), own)
        assert predict(profile_model(model), None, spec).serving == measure_cost(mixed)
        uniform = {bits: quantize(form, bits) for bits in ("int8", "int4")}
        assert not torch.equal(logits(mixed, FIELDS), logits(uniform["int8"], FIELDS))
        save_model(mixed, tmp_path / "mixed.safetensors")
        again = load_model(tmp_path / "mixed.safetensors", SCHEMA)
        torch.testing.assert_close(logits(again, FIELDS), logits(mixed, FIELDS), rtol=0, atol=0)
        header = struct.unpack("<Q", (tmp_path / "mixed.safetensors").read_bytes()[:8])[0]
        assert (tmp_path / "mixed.safetensors").stat().st_size - 8 - header == measure_cost(mixed).size_bytes
    everything = dict.fromkeys(own, "int8")
    torch.testing.assert_close(logits(quantize(form, "float32", everything), FIELDS), logits(form, FIELDS), rtol=0.2, atol=0.2)


def test_bits_by_layer_are_exported():
    model, result = compressed("deepfm")
    assert_onnx_agrees(quantize(fold(result.model), "int8", mixed_bits(model)), FIELDS)

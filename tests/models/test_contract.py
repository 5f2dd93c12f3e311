"""What every registered model must keep to. A new architecture is held to all of it by being registered; it adds its
parameter count to `closed_form`."""

import dataclasses
from itertools import pairwise

import pytest
import torch

from ctrlab.data.schema import FeatureSchema, Fields, ListFeature
from ctrlab.errors import ConfigError
from ctrlab.models.base import build_model
from ctrlab.models.checkpoint import load_model, save_model
from ctrlab.models.configs import MODELS
from ctrlab.models.layers import FieldEmbedding
from tests.support.onnx import assert_onnx_agrees
from tests.support.small_models import SCHEMA, random_fields, small_config

pytestmark = pytest.mark.parametrize("name", MODELS.names())

IDS_ONLY = FeatureSchema(field_names=("a", "b"), field_dims=(5, 9), fingerprint="ids only")
NUMBERS_ONLY = FeatureSchema(field_names=(), field_dims=(), value_names=("x", "y", "z"), fingerprint="numbers only")
SCHEMAS = pytest.mark.parametrize("schema", [SCHEMA, IDS_ONLY, NUMBERS_ONLY], ids=lambda schema: schema.fingerprint)
NUMERIC = pytest.mark.parametrize("numeric", ["embedding", "raw"])
D, MLP_DIMS = 6, (12, 8)
#: The embedding vectors a row that an architecture refuses to go without.
NEEDS_VECTORS = {
    "masknet": 1,
    "fm": 2,
    "dlrm": 1,
    "nfm": 2,
    "afn": 1,
    "afn_plus": 1,
    "pnn": 2,
    "xdeepfm": 1,
    "autoint": 1,
    "autoint_plus": 1,
    "fibinet": 2,
}


def mlp_parameters(width, dims=MLP_DIMS, head=(1,)):
    return sum(i * o + o for i, o in pairwise((width, *dims, *head)))


def afn_parameters(vectors, raw_width):
    return vectors * 8 + 2 * vectors + 2 * 8 + mlp_parameters(8 * D + raw_width)


def masknet_parameters(vectors, width):
    block = (width + 1) * 2 * width + (2 * width + 1) * width + 5 * width + 2 * 5
    return 2 * vectors * D + 2 * block + mlp_parameters(10)


def dlrm_parameters(vectors, raw_width):
    if not raw_width:
        return mlp_parameters(vectors * (vectors - 1) // 2)
    return mlp_parameters(raw_width, (5, D), head=()) + mlp_parameters(D + (vectors + 1) * vectors // 2)


def autoint_parameters(M, raw_width, config):
    """Without tables and linear term; with a residual."""
    A = config.attention_dim
    widths = [D] + [A] * (config.attention_layers - 1)
    norms = 2 * A * len(widths) if config.attention_layer_norm else 0
    return sum(3 * width * A + (width != A) * width * A for width in widths) + norms + M * A + raw_width + 1


def fibinet_parameters(M, raw_width):
    """With a matrix for every pair; without tables and linear term."""
    return 2 * M * max(1, M // 3) + M * (M - 1) // 2 * D**2 + mlp_parameters(M * (M - 1) * D + raw_width)


def finalmlp_parameters(width):
    """Streams of 12, 8 and of 6 units, two heads, gates of 5 units with learned contexts."""
    streams = (width + 1) * 12 + 13 * 8 + (width + 1) * 6
    gate = D + (D + 1) * 5 + (5 + 1) * width
    return streams + 8 + 6 + 8 * 6 // 2 + 1 + 2 * gate


def closed_form(name, schema, config):
    """Parameters as the model's docstring states them."""
    ids, V, F = sum(schema.field_dims), len(schema.value_names), len(schema.field_names)
    raw = getattr(config, "numeric_fields", "") == "raw"
    M = F if raw else F + V
    DENSE = M * D + (V if raw else 0)
    embedding, linear = ids * D + (M - F) * D, ids + V + 1
    lengths = [feature.length for feature in schema.lists if feature.shares]
    K, A = len(schema.lists), len(lengths)
    with_lists = embedding + sum(schema.table_dims[F:]) * D
    forms = {
        "finalmlp": lambda: embedding + finalmlp_parameters(DENSE),
        "fibinet": lambda: embedding + linear + fibinet_parameters(M, V if raw else 0),
        "autoint": lambda: embedding + autoint_parameters(M, V if raw else 0, config),
        "autoint_plus": lambda: embedding + linear + autoint_parameters(M, V if raw else 0, config) + mlp_parameters(DENSE),
        "deepfm": lambda: embedding + linear + mlp_parameters(DENSE),
        "din": lambda: with_lists + A * (4 * D * 10 + 10 + 10 * 6 + 6 + 6 + 1 + 10 + 6) + mlp_parameters(DENSE + K * D),
        "gru4rec": lambda: with_lists + K * 3 * 7 * (D + 7 + 2) + mlp_parameters(DENSE + K * 7),
        "bst": lambda: (
            with_lists
            + sum((length + 1) * D + 2 * (4 * (D * D + D) + 4 * D + 2 * D * 14 + 14 + D) for length in lengths)
            + mlp_parameters(DENSE + sum((length + 1) * D for length in lengths) + (K - A) * D)
        ),
        "masknet": lambda: embedding + masknet_parameters(M, DENSE),
        "lr": lambda: linear,
        "fm": lambda: embedding + linear,
        "wide_deep": lambda: embedding + linear + mlp_parameters(DENSE),
        "nfm": lambda: embedding + linear + mlp_parameters(D + (V if raw else 0)),
        "afn": lambda: embedding + afn_parameters(M, V if raw else 0),
        "afn_plus": lambda: 2 * embedding + afn_parameters(M, V if raw else 0) + mlp_parameters(DENSE, (9, 7)) + 3,
        "pnn": lambda: embedding + (DENSE + 1 + M * (M - 1) // 2) * 12 + mlp_parameters(12, (8,)),
        "dlrm": lambda: embedding + dlrm_parameters(M, V if raw else 0),
        "dcnv2": lambda: embedding + config.cross_layers * (DENSE**2 + DENSE) + DENSE + mlp_parameters(DENSE),
        "gdcn": lambda: embedding + config.cross_layers * (2 * DENSE**2 + DENSE) + DENSE + mlp_parameters(DENSE),
        "xdeepfm": lambda: embedding + linear + (M * M + 1) * 5 + (5 * M + 1) * 4 + 9 + mlp_parameters(DENSE),
        "dcn": lambda: embedding + (2 * config.cross_layers + 1) * DENSE + mlp_parameters(DENSE),
    }
    return forms[name]()


def build(name, schema=SCHEMA, seed=0, **settings):
    torch.manual_seed(seed)
    settings = {"embed_dim": D, "mlp_dims": MLP_DIMS, "embedding_init_std": 0.3} | settings
    config = small_config(name, **settings)
    raw = getattr(config, "numeric_fields", "raw") == "raw"
    vectors = len(schema.field_names) + (0 if raw else len(schema.value_names))
    if vectors < NEEDS_VECTORS.get(name, 0):
        with pytest.raises(ConfigError, match="embedding vectors"):
            build_model(config, schema)
        pytest.skip("refused, for it needs more embedding vectors")
    return build_model(config, schema)


def suited(name, schema):
    """The schema with what an architecture cannot be built without: a list, and a field whose ids it shares."""
    tags, past = ListFeature(name="tags", length=2, dim=7), ListFeature(name="past", length=5, shares="item")
    with_list = dataclasses.replace(schema, lists=(tags,))
    with_item = dataclasses.replace(
        schema, field_names=("item", *schema.field_names), field_dims=(9, *schema.field_dims), lists=(past, tags)
    )
    config = small_config(name, embed_dim=D)
    return next(candidate for candidate in (schema, with_list, with_item) if not config.schema_faults(candidate))


@SCHEMAS
@NUMERIC
@pytest.mark.parametrize("batch_size", [1, 33])
def test_logits_are_one_finite_float_a_row(name, batch_size, schema, numeric):
    schema = suited(name, schema)
    found = build(name, schema, numeric_fields=numeric).eval()(random_fields(batch_size, schema=schema))
    assert found.shape == (batch_size,)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()


def test_rows_do_not_depend_on_each_other(name):
    model, fields = build(name, batch_norm=True).eval(), random_fields(20)
    alone = torch.cat([model(Fields(*(part[i : i + 1] for part in fields))) for i in range(20)])
    torch.testing.assert_close(model(fields), alone, atol=1e-5, rtol=1e-5)


@SCHEMAS
def test_every_parameter_gets_a_finite_gradient(name, schema):
    schema = suited(name, schema)
    model = build(name, schema, batch_norm=True, dropout=0.1).train()
    model(random_fields(32, schema=schema)).sigmoid().log().mean().backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter.numel():  # a schema without numeric fields leaves empty ones
            assert parameter.grad is not None, parameter_name
            assert torch.isfinite(parameter.grad.to_dense()).all(), parameter_name


def test_gradients_agree_with_finite_differences(name):
    model = build(name).double().train()
    fields = random_fields(4)
    fields = fields._replace(values=fields.values.double())
    model(fields).sum().backward()
    generator = torch.Generator().manual_seed(0)
    for parameter_name, parameter in model.named_parameters():
        if not parameter.numel():  # no numeric fields with vectors
            continue
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            ends = []
            for step in (1e-6, -1e-6):
                parameter.add_(direction, alpha=step)
                ends.append(model(fields).sum().item())
                parameter.sub_(direction, alpha=step)
        slope = (ends[0] - ends[1]) / 2e-6
        assert (parameter.grad.to_dense() * direction).sum().item() == pytest.approx(slope, rel=1e-4, abs=1e-6), parameter_name


def test_the_same_seed_builds_the_same_model(name):
    first, second, other = build(name, seed=1), build(name, seed=1), build(name, seed=2)
    fields = random_fields(10)
    assert torch.equal(first.eval()(fields), second.eval()(fields))
    if name != "lr":  # it starts at zero, whatever the seed
        assert not torch.equal(first(fields), other.eval()(fields))


def test_state_survives_a_checkpoint(name, tmp_path):
    model, fields = build(name, batch_norm=True).eval(), random_fields(10)
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors", SCHEMA)
    assert torch.equal(loaded(fields), model(fields))
    assert loaded.state_dict().keys() == model.state_dict().keys()


@SCHEMAS
@NUMERIC
def test_the_parameter_count_is_the_documented_one(name, schema, numeric):
    schema = suited(name, schema)
    model = build(name, schema, numeric_fields=numeric)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == closed_form(name, schema, model.config)


@SCHEMAS
def test_onnx_runtime_agrees(name, schema):
    schema = suited(name, schema)
    model = build(name, schema, batch_norm=True).eval()
    assert_onnx_agrees(model, random_fields(256, schema=schema), batch_sizes=(1, 7, 256))


def test_embedding_readers_are_submodules(name):
    model = build(name)
    for embedding, readers in model.embedding_readers.items():
        assert isinstance(model.get_submodule(embedding), FieldEmbedding)
        for reader in readers:
            model.get_submodule(reader)

"""engines/fast/dedup_linear.py: multiplying each distinct vector once gives what multiplying all of them gives, forward and back."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from ctrlab.data.dataset import Split
from ctrlab.data.schema import FeatureSchema
from ctrlab.engines.fast.batch_vectors import BatchVectors
from ctrlab.engines.fast.context import Limits
from ctrlab.engines.fast.dedup_linear import linear_of_look_up
from ctrlab.engines.fast.engine import FastEngine
from ctrlab.engines.fast.tables import LookedUp
from ctrlab.evaluation.prediction import predict_logits
from ctrlab.models.base import build_model
from ctrlab.models.configs import MODELS
from ctrlab.training.configs import FitConfig
from ctrlab.training.loop import fit
from tests.support.engines import ALWAYS, context, fast_layer, in_parts, twin
from tests.support.small_models import make_model, random_fields


def a_batch(num_rows, fields, width, num_values, seed):
    rng = np.random.default_rng(seed)
    dims = rng.integers(1, 30, fields)
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(dims)[:-1]]).astype(np.int64))
    ids = torch.from_numpy(np.stack([rng.integers(0, dim, num_rows) for dim in dims], axis=1))
    numbers = torch.Generator().manual_seed(seed)
    weight = torch.randn(int(dims.sum()), width, generator=numbers)
    values = torch.randn(num_rows, num_values, generator=numbers) if num_values else None
    numeric = torch.randn(num_values, width, generator=numbers) if num_values else None
    return ids, offsets, weight, values, numeric


class Rows:
    """Rows as `fit` takes them, all to train on."""

    splits = ("train",)

    def __init__(self, schema, rows):
        self.schema, self.rows = schema, rows

    def split(self, name):
        return self.rows


def through(batch, layers, *, distinct_only, threads=1):
    """(output, gradients of table, numeric vectors, weight and bias) of `layers` behind a look-up."""
    ids, offsets, weight, values, numeric = batch
    table = weight.clone().requires_grad_()
    vectors = None if numeric is None else numeric.clone().requires_grad_()
    layers.zero_grad()
    if distinct_only:
        parts = in_parts(threads)
        found = BatchVectors(context(sparse=True, parts=parts), ids, offsets, table, values, vectors)
        out = twin(layers, parts=parts)(LookedUp(found, flat=True))
        (out * torch.arange(out.numel()).view_as(out).cos()).sum().backward()
    else:
        e = functional.embedding(ids + offsets, table)
        if vectors is not None:
            e = torch.cat([e, values.unsqueeze(2) * vectors], dim=1)
        out = layers(e.flatten(1))
        (out * torch.arange(out.numel()).view_as(out).cos()).sum().backward()
    of_table = table.grad.to_dense() if table.grad.is_sparse else table.grad
    return [out.detach(), of_table, *(p.grad.clone() for p in layers.parameters()), *([] if vectors is None else [vectors.grad])]


@settings(max_examples=40, deadline=None)
@given(
    num_rows=st.integers(1, 150), fields=st.integers(1, 5), width=st.integers(1, 18), num_values=st.integers(0, 3),
    outputs=st.integers(1, 70), bias=st.booleans(), relu=st.booleans(), seed=st.integers(0, 2**20),
)  # fmt: skip
def test_outputs_and_all_gradients_are_those_of_the_plain_layer(num_rows, fields, width, num_values, outputs, bias, relu, seed):
    batch = a_batch(num_rows, fields, width, num_values, seed)
    torch.manual_seed(seed)
    first = nn.Linear((fields + num_values) * width, outputs, bias=bias)
    layers = nn.Sequential(first, nn.ReLU()) if relu else nn.Sequential(first)
    found = through(batch, layers, distinct_only=True)
    expected = through(batch, layers, distinct_only=False)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-4 * max(1.0, float(theirs.abs().max())), rtol=1e-4)


@pytest.mark.parametrize("threads", [2, 3])
def test_results_do_not_depend_on_the_number_of_threads(threads):
    batch = a_batch(3000, 6, 16, 0, 5)
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(96, 100), nn.ReLU())
    results = [through(batch, layers, distinct_only=True, threads=count) for count in (1, threads)]
    for mine, theirs in zip(*results, strict=True):
        assert torch.equal(mine, theirs)


def test_nan_passes_so_that_a_diverged_training_is_seen():
    ids, offsets, weight, _, _ = a_batch(50, 2, 8, 0, 1)
    weight[0] = float("nan")
    ids[0] = 0
    out, *gradients = through((ids, offsets, weight, None, None), nn.Sequential(nn.Linear(16, 40), nn.ReLU()), distinct_only=True)
    assert out[0].isnan().all() and gradients[1].isnan().any()


@pytest.mark.parametrize(
    "case", ["many distinct", "narrow vectors", "a row of two fields", "in bfloat16", "of another width", "empty"]
)
def test_where_it_would_not_pay_or_not_be_right_every_vector_is_multiplied(case):
    ids, offsets, weight, _, _ = a_batch(64, 3, 4, 0, 2)
    limits = {"many distinct": Limits(0.0, 1, 0), "narrow vectors": Limits(1.0, 5, 0)}.get(case, ALWAYS)
    if case == "a row of two fields":
        ids[0, 0] = offsets[1]  # the first row of the second field, named by the first
        ids[1, 1] = 0
    if case == "empty":
        ids, offsets = ids[:, :0], offsets[:0]
    found = BatchVectors(context(limits=limits), ids, offsets, weight.requires_grad_())
    layer = fast_layer(
        nn.Linear(9 if case == "of another width" else 12, 8), compute_dtype="bfloat16" if case == "in bfloat16" else "float32"
    )
    assert linear_of_look_up(found, layer) is None


def test_a_layer_that_reads_vectors_one_by_one_reads_them_all():
    ids, offsets, weight, _, _ = a_batch(30, 1, 8, 0, 4)
    layer = nn.Linear(8, 5)
    found = LookedUp(BatchVectors(context(), ids, offsets, weight))
    torch.testing.assert_close(twin(layer)(found), functional.linear(found.plain(), layer.weight, layer.bias))


@pytest.mark.parametrize("numeric_fields", [0, 3])
@pytest.mark.parametrize("fields", [0, 3])
@pytest.mark.parametrize("name", ["deepfm", "dcn", "autoint_plus", "finalmlp", "wide_deep"])
def test_models_train_and_predict_as_they_do_without_it(name, fields, numeric_fields):
    """Whole models, in `fit` and in prediction, also of numeric fields alone."""
    if fields + numeric_fields < 2:
        pytest.skip("no vectors to speak of")
    schema = FeatureSchema(
        field_names=tuple(f"c{f}" for f in range(fields)), field_dims=(20,) * fields,
        value_names=tuple(f"v{v}" for v in range(numeric_fields)), fingerprint="x",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    ids, values = (
        rng.integers(0, 20, (600, fields), dtype=np.int32),
        rng.standard_normal((600, numeric_fields)).astype(np.float32),
    )
    data = Rows(schema, Split("train", ids, values, (rng.random(600) < 0.4).astype(np.uint8)))
    settings = {"embed_dim": 8, "mlp_dims": (40, 24)} if name != "finalmlp" else {"embed_dim": 8}
    torch.manual_seed(0)
    model = build_model(MODELS[name].config_class(**settings), schema)
    results = []
    for limits in (ALWAYS, Limits(most_distinct=-1.0)):

        def engine(own, settings, limits=limits):
            return FastEngine(own, settings, limits=limits)

        trained = fit(model, data, FitConfig(batch_size=200, learning_rate=1e-3), engine=engine).model
        results.append(predict_logits(trained, data.rows))
    np.testing.assert_allclose(*results, atol=2e-4)
    assert np.abs(results[0] - predict_logits(model, data.rows)).max() > 1e-3


def products_of_distinct_vectors(logits):
    """How many linear layers multiplied each distinct vector once, by the nodes of the gradient's graph."""
    seen, waiting = set(), [logits.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(following for following, _ in node.next_functions)
    return sum("LinearOfLookUp" in node.name() for node in seen)


def readers_of_all_vectors(model, fields):
    """The linear layers whose input is the vectors of a row side by side, as the model's own forward calls them."""
    found = []
    vectors = {name: model.get_submodule(name)(fields).flatten(1) for name in model.embedding_readers}

    def keep(layer, inputs, output, name):
        if any(inputs[0].shape == own.shape and torch.equal(inputs[0], own) for own in vectors.values()):
            found.append(name)

    hooks = [
        layer.register_forward_hook(partial(keep, name=name)) for name, layer in model.named_modules() if type(layer) is nn.Linear
    ]
    model(fields)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("name", sorted(entry.name for entry in MODELS))
def test_every_linear_layer_that_reads_all_vectors_of_a_row_multiplies_distinct_ones(name):
    model, fields = make_model(name), random_fields(60)
    assert products_of_distinct_vectors(twin(model)(fields)) == len(readers_of_all_vectors(model, fields))

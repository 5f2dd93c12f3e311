"""A model trained in DeepCTR-Torch is compressed, measured and trained on by DeepCTR-Torch's own code."""

import copy

import numpy as np
import pytest
import torch

pytest.importorskip("deepctr_torch", reason="DeepCTR-Torch is not installed here; `make interop` runs these tests")

from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
from deepctr_torch.models import DCN, AutoInt

from ctrlab.errors import CompressionError, DataError
from ctrlab.interop import deepctr_torch

RANKS = {"embedding_dict.site": 3, "embedding_dict.ad": 2, "dnn.linears.1": 12}
ROWS = 1200


def clicks():
    draw = np.random.default_rng(0)
    x = {"site": draw.integers(0, 30, ROWS), "ad": draw.integers(0, 50, ROWS), "price": draw.normal(size=ROWS).astype("float32")}
    return x, (x["site"] * x["ad"] % 7 < 3).astype(np.float32)


def dcn(**settings):
    columns = [SparseFeat("site", 30, embedding_dim=6), SparseFeat("ad", 50, embedding_dim=6), DenseFeat("price", 1)]
    model = DCN(columns, columns, dnn_hidden_units=(48, 32), init_std=0.1, **settings)
    model.compile("adam", "binary_crossentropy", metrics=["auc", "logloss"])
    return model


@pytest.fixture(scope="module")
def data():
    return clicks()


@pytest.fixture
def model(data):
    x, y = data
    trained = dcn(l2_reg_dnn=1e-3)
    trained.fit(x, y, batch_size=100, epochs=4, verbose=0)
    return trained


def test_their_evaluation_takes_the_compressed_model_and_sees_nearly_the_same_auc(model, data):
    x, y = data
    before = model.evaluate(x, y)
    result = deepctr_torch.compress(model, x, variance=0.98)
    after = result.model.evaluate(x, y)
    assert type(result.model) is DCN and result.plan.as_dict()
    assert before["auc"] > 0.6
    assert after["auc"] == pytest.approx(before["auc"], abs=0.02)
    assert result.model.predict(x).shape == (ROWS, 1)


def test_the_original_is_left_as_it_was(model, data):
    kept, optimizer, penalized = copy.deepcopy(model.state_dict()), model.optim, model.regularization_weight
    model.train()
    compressed = deepctr_torch.compress(model, data[0], ranks=RANKS).model
    assert sum(p.numel() for p in compressed.parameters()) < sum(p.numel() for p in model.parameters())
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert model.optim is optimizer and model.regularization_weight is penalized and model.training


def test_the_penalty_is_on_the_new_matrices_with_the_strength_each_weight_had(model, data):
    compressed = deepctr_torch.compress(model, data[0], ranks=RANKS).model
    own = {id(parameter): name for name, parameter in compressed.named_parameters()}
    penalized = [
        ({own[id(w[1] if isinstance(w, tuple) else w)] for w in ws}, l1, l2) for ws, l1, l2 in compressed.regularization_weight
    ]
    strengths = [(l1, l2) for _, l1, l2 in model.regularization_weight]
    assert [(l1, l2) for _, l1, l2 in penalized] == strengths
    matrices = {name for name, p in compressed.named_parameters() if p.ndim > 1}
    assert penalized[0][0] == {name for name in matrices if name.startswith("embedding_dict.")}
    assert penalized[2][0] == {name for name in matrices if name.startswith("dnn.")}
    model.zero_grad(set_to_none=True)
    compressed.get_regularization_loss().backward()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_their_fit_moves_every_weight_of_the_compressed_model_and_lowers_its_loss(model, data):
    x, y = data
    compressed = deepctr_torch.compress(model, x, ranks=RANKS).model
    start = {name: value.detach().clone() for name, value in compressed.named_parameters()}
    before = compressed.evaluate(x, y)["logloss"]
    compressed.fit(x, y, batch_size=100, epochs=4, verbose=0)
    assert [name for name, value in compressed.named_parameters() if torch.equal(value, start[name])] == []
    assert compressed.evaluate(x, y)["logloss"] < before


def test_kernels_that_are_raw_parameters_are_reported_as_skipped(model, data):
    skipped = deepctr_torch.compress(model, data[0], variance=0.9).skipped
    assert {"crossnet.kernels", "dnn_linear", "linear_model.embedding_dict.site"} <= set(skipped)
    assert all(skipped.values())


def test_attention_matrices_that_are_raw_parameters_are_reported_as_skipped(data):
    x, _ = data
    columns = [SparseFeat("site", 30, embedding_dim=6), SparseFeat("ad", 50, embedding_dim=6)]
    model = AutoInt(columns, columns, dnn_hidden_units=(8,), att_layer_num=1)
    result = deepctr_torch.compress(model, {name: x[name] for name in ("site", "ad")}, variance=0.9)
    assert {f"int_layers.0.{name}" for name in ("W_Query", "W_key", "W_Value")} <= set(result.skipped)
    assert not hasattr(result.model, "optim")  # the original was never compiled either


def test_inputs_may_be_a_dictionary_a_list_or_the_matrix_and_are_not_changed(model, data):
    x, _ = data
    arrays = [x[name] for name in model.feature_index]
    matrix = np.stack(arrays, axis=1)
    batches = [torch.cat(deepctr_torch.batches_of(model, form, 500)) for form in (x, arrays, matrix, torch.tensor(matrix))]
    assert all(torch.equal(batch, batches[0]) for batch in batches)
    assert all(array.ndim == 1 for array in arrays)
    assert [len(batch) for batch in deepctr_torch.batches_of(model, x, 500)] == [500, 500, 200]


def test_lists_padded_with_zeros_go_through(data):
    x, y = data
    draw = np.random.default_rng(2)
    history = draw.integers(1, 50, (ROWS, 4)) * (np.arange(4) < draw.integers(1, 5, (ROWS, 1)))
    ad = SparseFeat("ad", 50, embedding_dim=6)
    columns = [ad, VarLenSparseFeat(SparseFeat("history", 50, embedding_dim=6, embedding_name="ad"), maxlen=4, combiner="mean")]
    model = DCN([], columns, dnn_hidden_units=(8,))
    inputs = {"ad": x["ad"], "history": history}
    model.compile("adam", "binary_crossentropy", metrics=["auc"])
    model.fit(inputs, y, batch_size=200, verbose=0)
    compressed = deepctr_torch.compress(model, inputs, ranks={"embedding_dict.ad": 2}).model
    assert compressed.predict(inputs).shape == (ROWS, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {"site": x["site"]}, "lack ad, price; the model takes site, ad, price"),
        (lambda x: x | {"ad": x["ad"] + 1}, "feature ad holds id 50, its table has 50 rows"),
        (lambda x: [x["site"], x["ad"]], r"shape \(1200, 2\); the model takes \(rows, 3\)"),
    ],
)
def test_inputs_that_do_not_fit_are_one_sentence(data, change, message):
    with pytest.raises(DataError, match=message):
        deepctr_torch.batches_of(dcn(), change(data[0]))


def test_a_module_of_another_kind_is_refused(data):
    with pytest.raises(CompressionError, match="not a DeepCTR-Torch model"):
        deepctr_torch.compress(torch.nn.Linear(3, 1), data[0], variance=0.9)

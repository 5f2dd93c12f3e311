"""Models trained by FuxiCTR and DeepCTR-Torch are registered, compressed by a job and evaluated by their own code again."""

import pytest

pytest.importorskip("fuxictr", reason="FuxiCTR is not installed here; `make interop` runs these tests")
pytest.importorskip("deepctr_torch", reason="DeepCTR-Torch is not installed here; `make interop` runs these tests")

import numpy as np
from deepctr_torch import models
from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat

import ctrlab
from ctrlab.errors import CompressionError
from ctrlab.interop import deepctr_torch, fuxictr
from ctrlab.services.export import export_model
from tests.interop.test_deepctr_torch_models import clicks, dcn
from tests.interop.test_fuxictr_models import batches, deepfm


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registered")
    with pytest.MonkeyPatch.context() as patch, ctrlab.Lab(folder / "home") as lab:
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        yield lab


def accuracy(lab, model_id):
    (evaluation,) = lab.workspace.store.artifacts.list(kind="evaluation", parent=model_id)
    return evaluation.summary["metrics"]["auc"]


def test_a_fuxictr_model_goes_through_the_lab_and_back_to_its_own_evaluation(lab, tmp_path):
    loader = batches()
    model = deepfm(tmp_path, embedding_regularizer=1e-4, learning_rate=1e-2)
    model.fit(loader, epochs=3, validation_data=loader)
    registered = lab.register_fuxictr(model, loader, name="FuxiCTR DeepFM")
    measured = loader[-2:]  # the last quarter of six batches, rounded
    assert accuracy(lab, registered.id) == pytest.approx(model.evaluate(measured)["AUC"], abs=1e-4)
    smaller = lab.compress(registered.id, variance=0.95)
    theirs = lab.module(smaller.id)
    assert type(theirs) is type(model)
    assert accuracy(lab, smaller.id) == pytest.approx(theirs.evaluate(measured)["AUC"], abs=1e-4)
    assert sum(part.numel() for part in theirs.parameters()) == lab.compare([smaller.id])["parameters"].iloc[0]
    theirs.fit(loader, epochs=1, validation_data=loader)  # fine-tuning by the framework
    assert lab.sensitivity_of(registered.id).summary["num_layers"] >= 3


def test_a_deepctr_torch_model_goes_through_the_lab_and_back_to_its_own_evaluation(lab):
    x, y = clicks()
    model = dcn(l2_reg_dnn=1e-3)
    model.fit(x, y, batch_size=100, epochs=4, verbose=0)
    registered = lab.register_deepctr_torch(model, x, y, name="DeepCTR-Torch DCN")
    measured = {name: column[900:] for name, column in x.items()}, y[900:]
    assert accuracy(lab, registered.id) == pytest.approx(model.evaluate(*measured)["auc"], abs=1e-4)
    smaller = lab.compress(registered.id, variance=0.95)
    theirs = lab.module(smaller.id)
    assert type(theirs) is type(model)
    assert accuracy(lab, smaller.id) == pytest.approx(theirs.evaluate(*measured)["auc"], abs=1e-4)
    theirs.fit(x, y, batch_size=100, epochs=1, verbose=0)


def columns(lists=False):
    sparse = [SparseFeat(name, size, embedding_dim=8) for name, size in (("site", 30), ("ad", 50), ("hour", 24))]
    history = VarLenSparseFeat(SparseFeat("hist_ad", 50, embedding_dim=8, embedding_name="ad"), 4, length_name="seq_length")
    return [*sparse, history] if lists else sparse


@pytest.mark.parametrize(
    "name",
    ["WDL", "DeepFM", "xDeepFM", "AFM", "DIFM", "IFM", "AutoInt", "DCN", "DCNMix", "FiBiNET", "NFM", "MLR", "ONN", "PNN", "CCPM",
     "AFN", "DIN", "DIEN"],
)  # fmt: skip
def test_every_model_of_deepctr_torch_is_compressed_to_the_predicted_size_and_scores_alike_in_its_own_code(lab, name):
    x, y = clicks()
    draw, rows = np.random.default_rng(1), len(y)
    x = {"site": x["site"], "ad": x["ad"], "hour": draw.integers(0, 24, rows), "hist_ad": draw.integers(0, 50, (rows, 4)),
         "seq_length": draw.integers(1, 5, rows)}  # fmt: skip
    fields = columns(lists=name in ("DIN", "DIEN"))
    made = {"DIN": (fields, ["ad"]), "DIEN": (fields, ["ad"]), "PNN": (fields,), "MLR": (fields,)}
    model = getattr(models, name)(*made.get(name, (fields, fields)))
    model.compile("adam", "binary_crossentropy", metrics=["auc"])
    registered = lab.register_deepctr_torch(model, x, y, name=name)
    smaller = lab.compress(registered.id, variance=0.9)
    theirs = lab.module(smaller.id)
    cost = smaller.summary["cost"]
    assert cost["parameters_tables"] + cost["parameters_dense"] == sum(part.numel() for part in theirs.parameters())
    measured = {key: column[900:] for key, column in x.items()}, y[900:]
    assert accuracy(lab, smaller.id) == pytest.approx(theirs.evaluate(*measured)["auc"], abs=1e-4)


def test_the_exported_files_are_restored_into_a_new_model_of_the_framework(lab, tmp_path):
    loader = batches()
    model = deepfm(tmp_path)
    registered = lab.register_fuxictr(model, loader, name="To export")
    smaller = lab.compress(registered.id, ranks={"mlp.mlp.2": 12})
    export_model(lab.workspace, smaller.id, tmp_path / "out")
    restored = fuxictr.restore(deepfm(tmp_path), tmp_path / "out" / "model.safetensors")
    assert restored.evaluate(loader) == lab.module(smaller.id).evaluate(loader)
    with pytest.raises(CompressionError, match="not a DeepCTR-Torch model"):
        deepctr_torch.restore(deepfm(tmp_path), tmp_path / "out" / "model.safetensors")

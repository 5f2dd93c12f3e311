"""A model trained elsewhere is registered, decomposed, measured, compressed and compared; what cannot be done says why."""

import importlib
import json
import sys
from collections import OrderedDict

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import ctrlab
from ctrlab.errors import ConfigError, CtrlabError, DataError
from ctrlab.evaluation.metrics import auc
from ctrlab.plans.configs import CompressConfig, CompressionSpec, RankPlan
from ctrlab.plans.cost_prediction import predict
from ctrlab.services import factories, models, outside, previews
from ctrlab.services.capabilities import capabilities
from ctrlab.services.compression import CompressJobConfig, submit_compress
from ctrlab.services.previews import PreviewRequest
from ctrlab.services.spectra import latest_spectra, load_layer_spectra
from ctrlab.services.work import outside as work
from ctrlab.storage import NewArtifact
from ctrlab.worker.preview import Previewer
from tests.support.outside_models import MAKER

RANKS = {"site": 3, "ad": 4, "mlp.0": 6, "mlp.2": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the maker's module, on a machine where nothing was registered."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "their_model.py").write_text(MAKER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        yield folder
    sys.modules.pop("their_model", None)


@pytest.fixture(scope="module")
def lab(folder):
    with ctrlab.Lab(folder / "home") as lab:
        yield lab


@pytest.fixture(scope="module")
def theirs(folder):
    return importlib.import_module("their_model")


@pytest.fixture(scope="module")
def registered(lab):
    return lab.register_factory("their_model:make", name="Theirs")


@pytest.fixture(scope="module")
def compressed(lab, registered):
    return lab.compress(registered.id, ranks=RANKS, name="Smaller")


@pytest.fixture
def forgotten(monkeypatch):
    """No module is held or was made: as in another process."""
    monkeypatch.setattr(outside, "_held", {})
    monkeypatch.setattr(work, "_made", OrderedDict())


def test_its_size_and_arithmetic_are_those_of_the_module(registered, theirs):
    module, cost = theirs.TheirModel(), registered.summary["cost"]
    assert cost["parameters_tables"] == 60 * 8 + 90 * 8
    assert cost["parameters_tables"] + cost["parameters_dense"] == sum(parameter.numel() for parameter in module.parameters())
    assert cost["bytes_tables"] + cost["bytes_dense"] == sum(parameter.nbytes for parameter in module.parameters())
    assert cost["macs"] == 17 * 24 + 24 * 16 + 16
    assert list(registered.summary["other"]) == ["scale"]


def test_its_spectra_are_those_of_its_calibration_batches(lab, registered, theirs):
    batches, _ = theirs.rows()
    expected = ctrlab.spectra(theirs.trained(), batches[:6])
    found = load_layer_spectra(lab.workspace, lab.spectra_of(registered.id).id)
    assert list(found) == ["site", "ad", "mlp.0", "mlp.2"]
    for name, spectrum in found.items():
        np.testing.assert_allclose(spectrum.eigenvalues, expected[name].eigenvalues, rtol=1e-4, atol=1e-7)


def test_its_auc_is_that_of_the_rows_which_made_no_spectrum(lab, registered, theirs):
    (batches, clicks), module = theirs.rows(), theirs.trained().eval()
    with torch.no_grad():
        found = torch.cat([module(*batch) for batch in batches[6:]]).numpy()
    (evaluation,) = lab.workspace.store.artifacts.list(kind="evaluation", parent=registered.id)
    assert evaluation.summary["metrics"]["auc"] == pytest.approx(auc(clicks[3000:], found), abs=1e-4)
    assert evaluation.summary["metrics"]["num_rows"] == 1000


def test_the_predicted_cost_is_that_of_the_compressed_module(lab, registered, compressed):
    profile = models.model_profile(lab.workspace, registered.id)
    predicted = predict(profile, None, CompressionSpec.of(RANKS)).serving
    module = lab.module(compressed.id)
    assert predicted.parameters == sum(parameter.numel() for parameter in module.parameters())
    assert predicted.to_dict() == compressed.summary["cost"]
    assert predicted.macs == 8 * (3 + 4) + 6 * (17 + 24) + 5 * (24 + 16) + 16


def test_a_compression_is_compared_with_its_original_on_the_same_rows(lab, registered, compressed):
    table = lab.compare([registered.id, compressed.id])
    assert table["smaller"].iloc[1] > 1.2
    assert table["auc"].notna().all()
    assert table["auc_change_low"].iloc[1] <= table["auc"].iloc[1] - table["auc"].iloc[0] <= table["auc_change_high"].iloc[1]


def test_the_preview_process_measures_what_a_job_makes(lab, registered, compressed, forgotten):
    request = PreviewRequest(model_id=registered.id, spectra_id=lab.spectra_of(registered.id).id, spec=CompressionSpec.of(RANKS))
    found = Previewer(lab.workspace).measure(request)
    (evaluation,) = lab.workspace.store.artifacts.list(kind="evaluation", parent=compressed.id)
    assert found.auc.estimate == pytest.approx(evaluation.summary["metrics"]["auc"], abs=1e-6)
    assert found.num_rows == 1000


def test_sensitivity_and_a_plan_for_a_budget_are_those_of_any_model(lab, registered):
    sensitivity = lab.sensitivity_of(registered.id)
    assert sensitivity.summary["num_layers"] == 4
    choice = lab.choose(registered.id, budget=ctrlab.Budget(kind="parameters", limit=1500))
    assert choice.spec.plan.as_dict()
    with pytest.raises(CtrlabError, match="only AFM"):
        lab.choose(registered.id, budget=ctrlab.Budget(kind="bytes", limit=3000), bits="int8")


def test_another_process_makes_it_with_the_weights_that_were_stored(lab, registered, theirs, forgotten, monkeypatch):
    monkeypatch.setattr(theirs, "make", theirs.make_untrained)  # a factory need not train again
    before = theirs.trained().state_dict()
    after = lab.module(registered.id).state_dict()
    assert all(torch.equal(before[name], value) for name, value in after.items())


def test_a_factory_that_makes_another_module_is_refused(lab, registered, theirs, forgotten, monkeypatch):
    monkeypatch.setattr(theirs, "make", lambda: (nn.Linear(3, 2), [torch.zeros(2, 3)]))
    with pytest.raises(ConfigError, match="makes another module than was registered"):
        lab.module(registered.id)


def test_a_factory_that_this_user_did_not_register_is_never_imported(lab, registered, forgotten, folder, monkeypatch):
    (folder / "planted.py").write_text("raise SystemExit('imported')")
    facts = registered.config["outside"] | {"address": "planted:make"}
    planted = lab.workspace.store.artifacts.add(
        NewArtifact("model", "Planted", config={"outside": facts}, summary=registered.summary)
    )
    with pytest.raises(ConfigError, match="was not registered by this user"):
        lab.module(planted.id)
    assert "planted" not in sys.modules
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "another-user"))
    with pytest.raises(ConfigError, match="was not registered by this user"):
        lab.module(registered.id)


def test_the_file_of_allowed_factories_is_the_users_alone(registered, folder):
    path = folder / "config" / "ctrlab" / "factories.json"
    assert path.stat().st_mode & 0o077 == 0
    assert registered.id in {entry["model"] for entry in json.loads(path.read_text())}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"finetune": ctrlab.FINETUNE}, "by its own code"),
        ({"method": "svd"}, "only AFM"),
        ({"precision": "int8"}, "only AFM"),
        ({"recovery": "on"}, "by its own code"),
    ],
)
def test_a_setting_that_is_not_for_outside_models_is_refused_with_the_reason(lab, registered, settings, reason):
    config = CompressJobConfig(
        model_id=registered.id, spectra_id=lab.spectra_of(registered.id).id,
        compress=CompressConfig(plan=RankPlan.of(RANKS), **settings),
    )  # fmt: skip
    with pytest.raises(ConfigError, match=reason):
        submit_compress(lab.workspace, config)


@pytest.mark.parametrize("call", ["time", "integers", "analyse"])
def test_jobs_that_need_ctrlabs_own_layers_say_so(lab, registered, call):
    with pytest.raises(ConfigError, match=r"Its serving form|exported by its own code|trained outside"):
        getattr(lab, call)([registered.id] if call == "time" else registered.id)


def test_a_module_of_this_process_is_compressed_here_and_refused_elsewhere(lab, theirs, monkeypatch):
    model = lab.register(
        theirs.trained(), theirs.rows()[0], name="In Python", evaluate=lambda module: float(module.scale.detach().sum())
    )
    smaller = lab.compress(model.id, ranks=RANKS)
    (evaluation,) = lab.workspace.store.artifacts.list(kind="evaluation", parent=smaller.id)
    assert evaluation.summary["measure"] == pytest.approx(4.0, abs=0.5)
    assert "measure" in lab.compare([model.id, smaller.id])
    monkeypatch.setattr(outside, "_held", {})
    with pytest.raises(ConfigError, match="Only the Python process that registered"):
        lab.compress(model.id, ranks=RANKS)


def test_the_preview_process_measures_by_the_models_own_function_where_there_are_no_labels(lab, forgotten, monkeypatch):
    model = lab.register_factory("their_model:make_with_evaluate", name="Own function")
    monkeypatch.setattr(outside, "_held", {})
    smaller = lab.compress(model.id, ranks=RANKS)
    request = PreviewRequest(model_id=model.id, spectra_id=lab.spectra_of(model.id).id, spec=CompressionSpec.of(RANKS))
    found = Previewer(lab.workspace).answer(request)
    (evaluation,) = lab.workspace.store.artifacts.list(kind="evaluation", parent=smaller.id)
    (original,) = lab.workspace.store.artifacts.list(kind="evaluation", parent=model.id)
    assert found.value == pytest.approx(evaluation.summary["measure"], abs=1e-6)
    assert found.original == original.summary["measure"] != found.value
    nothing = Previewer(lab.workspace).answer(request.replace(spec=CompressionSpec()))
    assert nothing.value == nothing.original


def test_without_labels_it_is_compressed_and_not_measured(lab):
    model = lab.register_factory("their_model:make_without_labels", name="No labels")
    smaller = lab.compress(model.id, ranks=RANKS)
    assert lab.workspace.store.artifacts.list(kind="evaluation", parent=smaller.id) == []
    with pytest.raises(ConfigError, match="registered without labels"):
        lab.evaluate([smaller.id])
    assert lab.compare([model.id, smaller.id])["auc"].isna().all()
    previews.prepare(lab.workspace, model.id, lab.spectra_of(model.id).id)  # starts no process
    assert not (lab.workspace.home / "preview.log").exists()


@pytest.mark.parametrize(
    ("address", "reason"),
    [("make", "module:function"), ("their_model:missing", "no function missing"), ("not_there:make", "cannot be imported"),
     ("their_model:make_nonsense", "must return"), ("their_model:make_fault", "failed with ZeroDivisionError")],
)  # fmt: skip
def test_a_factory_that_cannot_be_used_is_one_sentence(lab, address, reason):
    with pytest.raises(ConfigError, match=reason):
        lab.register_factory(address)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [(np.zeros(3), "one label a row"), (np.full(200, 2), "0 or 1"), (np.zeros(200), "one class")],
)
def test_labels_that_do_not_fit_are_refused(lab, labels, reason):
    with pytest.raises(ConfigError, match=reason):
        lab.register(nn.Linear(4, 2), [torch.zeros(100, 4)] * 2, name="Labels", labels=labels)


def test_a_state_dict_gives_the_spectra_of_its_weights_and_says_what_is_missing(lab, folder):
    path, weight, table = folder / "bare.safetensors", torch.randn(6, 10), torch.randn(300, 4)
    kernel = torch.zeros(2, 3, 4, dtype=torch.float16)
    save_file({"mlp.0.weight": weight, "mlp.0.bias": torch.zeros(6), "embedding.site.weight": table, "conv": kernel}, str(path))
    model = lab.read_weights(path)
    assert model.summary["cost"]["parameters_dense"] == 66 + 24
    assert model.summary["cost"]["bytes_dense"] == 4 * 66 + 2 * 24
    assert model.summary["other"] == {"conv": "a tensor of 3 dimensions, not a matrix"}
    assert model.summary["cost"]["parameters_tables"] == 1200
    found = load_layer_spectra(lab.workspace, latest_spectra(lab.workspace, model.id).id)
    singular = np.linalg.svd(weight.numpy(), compute_uv=False)
    np.testing.assert_allclose(found["mlp.0"].eigenvalues, singular**2, rtol=1e-5)
    np.testing.assert_allclose(
        found["embedding.site"].eigenvalues[::-1], np.linalg.eigvalsh(np.cov(table.numpy().T, bias=True)), rtol=1e-5
    )
    assert "no architecture" in capabilities(model).why_not("compress")
    with pytest.raises(ConfigError, match="no architecture"):
        lab.compress(model.id, ranks={"mlp.0": 1})


def test_an_onnx_file_gives_layers_sizes_and_macs(lab, folder, theirs):
    path = folder / "theirs.onnx"
    module, (batches, _) = theirs.trained().eval(), theirs.rows()
    torch.onnx.export(module, batches[0], str(path), dynamo=False)
    model = lab.read_weights(path, name="From ONNX")
    profile = models.model_profile(lab.workspace, model.id)
    shapes = sorted((layer.kind, layer.in_features, layer.out_features) for layer in profile.layers)
    assert shapes == [("embedding", 60, 8), ("embedding", 90, 8), ("linear", 17, 24), ("linear", 24, 16)]
    assert profile.cost.macs == 17 * 24 + 24 * 16


def test_an_onnx_file_that_names_another_file_is_refused(lab, folder):
    weights = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2, 2], [1.0, 2.0, 3.0, 4.0])
    weights.ClearField("float_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="/etc/hostname")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:], [weights])
    (folder / "outside.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(CtrlabError, match="keeps weights in another file"):
        lab.read_weights(folder / "outside.onnx")


def test_a_numpy_table_is_read_and_objects_in_one_are_refused(lab, folder):
    np.save(folder / "items.npy", np.random.default_rng(0).normal(size=(50, 4)).astype("float32"))
    model = lab.read_weights(folder / "items.npy")
    assert [layer.layer_name for layer in models.model_profile(lab.workspace, model.id).layers] == ["items"]
    np.save(folder / "objects.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(CtrlabError, match="without running code"):
        lab.read_weights(folder / "objects.npy")


def test_a_pickle_is_refused_unopened(lab, folder):
    (folder / "model.pt").write_bytes(b"not opened")
    with pytest.raises(DataError, match="can run code"):
        lab.read_weights(folder / "model.pt")


def test_a_broken_file_is_one_sentence(lab, folder):
    (folder / "broken.safetensors").write_bytes(b"broken")
    with pytest.raises(CtrlabError, match=r"broken\.safetensors is no safetensors file"):
        lab.read_weights(folder / "broken.safetensors")


def test_two_folders_may_have_a_module_of_one_name(tmp_path):
    made = []
    for number in (1, 2, 1):
        folder = tmp_path / str(number)
        folder.mkdir(exist_ok=True)
        (folder / "of_one_name.py").write_text(
            f"import helper_of_one_name as own\n\ndef make():\n    return own.value, {number}\n"
        )
        (folder / "helper_of_one_name.py").write_text(f"value = {number}\n")
        made.append(factories.Factory(address="of_one_name:make", folder=str(folder)).make())
    assert made == [(1, 1), (2, 2), (1, 1)]


def test_a_module_that_is_imported_from_elsewhere_is_not_taken_for_the_one_of_the_folder(tmp_path):
    (tmp_path / "json.py").write_text("def make():\n    return 1\n\ndumps = make\n")
    with pytest.raises(ConfigError, match="already imported from"):
        factories.Factory(address="json:dumps", folder=str(tmp_path)).make()


def test_what_is_no_module_is_refused_in_a_sentence(lab):
    with pytest.raises(ConfigError, match="is no torch module"):
        lab.register(3, [torch.zeros(2, 3)], name="Number")


def test_the_command_line_module_is_made_in_the_working_folder(folder):
    assert factories.Factory.here("their_model:make").folder == str(folder)

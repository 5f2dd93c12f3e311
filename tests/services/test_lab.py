"""The whole flow through the services, on a small table: what is stored, what it says, and that it agrees with itself."""

import json

import numpy as np
import pytest

import ctrlab
from ctrlab.data.synthetic import SyntheticConfig, write_sample
from ctrlab.errors import ConfigError, CtrlabError, DataError, StorageError, UnknownNameError
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.cost_prediction import predict
from ctrlab.services import datasets, export, models, spectra
from ctrlab.services.models import TrainConfig
from ctrlab.services.settings_difference import config_difference
from ctrlab.training.configs import FitConfig
from tests.support.small_lab import encoded, write_table

FIT = FitConfig(batch_size=256, epochs=2, learning_rate=3e-3)


@pytest.fixture(scope="module")
def lab(small_lab):
    return small_lab.lab


@pytest.fixture(scope="module")
def dataset(small_lab):
    return small_lab.dataset


@pytest.fixture(scope="module", params=["deepfm", "dcn"])
def model(request, lab, dataset):
    settings = {"embed_dim": 8, "mlp_dims": [32, 24]}
    return lab.train(TrainConfig(dataset_id=dataset.id, architecture=request.param, model=settings, fit=FIT))


@pytest.fixture(scope="module")
def compressed(lab, model):
    return lab.compress(model.id, ranks={"mlp.0": 6, "mlp.2": 6, "embedding.*": 3}, finetune=FIT.replace(epochs=1))


def test_a_change_of_auc_comes_with_its_paired_interval(lab, model, compressed):
    table = lab.compare([compressed.id, model.id]).set_index("id")
    small, original = table.loc[compressed.id], table.loc[model.id]
    assert np.isnan(original.auc_change)  # it is what the others are compared with
    assert small.auc_change == pytest.approx(small.auc - original.auc, abs=1e-12)
    assert small.auc_change_low <= small.auc_change <= small.auc_change_high
    assert original.auc_low < original.auc < original.auc_high
    assert small.auc_change_high - small.auc_change_low < original.auc_high - original.auc_low


def test_training_learns_and_is_measured(lab, model):
    row = lab.compare([model.id]).iloc[0]
    assert row.auc > 0.65
    assert row.kind == "original" and row.split == "test"
    assert row[["torch_p50_ms_1", "onnx_p50_ms_4096", "torch_p99_ms_256"]].gt(0).all()


def test_spectra_cover_every_layer_that_can_be_compressed(lab, model):
    table = spectra.spectra_table(lab.workspace, lab.spectra_of(model.id).id)
    assert set(table["layer"]) == {"mlp.0", "mlp.2", "embedding.site", "embedding.ad"}
    assert (table["k90"] <= table["k95"]).all() and (table["k95"] <= table["k99"]).all()


def test_the_compressed_model_costs_exactly_what_was_predicted(lab, model, compressed):
    profile = models.model_profile(lab.workspace, model.id)
    plan = ctrlab.RankPlan.of(compressed.summary["compression"]["ranks"])
    promised = predict(
        profile, spectra.load_layer_spectra(lab.workspace, lab.spectra_of(model.id).id), CompressionSpec(plan=plan)
    ).serving
    assert compressed.summary["cost_serving"] == promised.to_dict()


@pytest.fixture(scope="module")
def with_history(lab, tmp_path_factory):
    """A generated log with a behaviour list."""
    path = tmp_path_factory.mktemp("history") / "t.csv"
    write_sample(path, SyntheticConfig(num_rows=2000, history_of="site"))
    return encoded(lab, path, "history")


def test_a_model_of_lists_goes_the_whole_way(lab, with_history):
    settings = {"embed_dim": 8, "mlp_dims": [32, 24]}
    din = lab.train(TrainConfig(dataset_id=with_history.id, architecture="din", model=settings, fit=FIT.replace(epochs=1)))
    small = lab.compress(din.id, ranks={"mlp.0": 6, "attention.0.0": 5, "embedding.*": 3}, finetune=FIT.replace(epochs=1))
    assert set(small.summary["compression"]["ranks"]) >= {"embedding.site", "attention.0.0"}
    profile = models.model_profile(lab.workspace, din.id)
    plan = ctrlab.RankPlan.of(small.summary["compression"]["ranks"])
    promised = predict(
        profile, spectra.load_layer_spectra(lab.workspace, lab.spectra_of(din.id).id), CompressionSpec(plan=plan)
    ).serving
    assert small.summary["cost_serving"] == promised.to_dict()
    table = lab.compare([din.id, small.id])
    assert table["auc"].notna().all()
    assert table["onnx_p50_ms_1"].gt(0).all()


def test_data_without_a_list_is_refused_before_anything_is_queued(lab, dataset):
    with pytest.raises(ConfigError, match="DIN needs a list-valued field; this dataset has none: site, ad, price"):
        models.submit_train(lab.workspace, TrainConfig(dataset_id=dataset.id, architecture="din"))


def test_lineage_leads_back_to_the_dataset(lab, dataset, model, compressed):
    lineage = [artifact.id for artifact in lab.workspace.store.artifacts.lineage(compressed.id)]
    assert lineage[0] == dataset.id and lineage[-1] == compressed.id and model.id in lineage


def test_fine_tuning_never_ends_below_truncation_in_validation(compressed):
    for stage in compressed.summary["compression"]["stages"]:
        assert stage["valid_log_loss"] <= stage["truncated_log_loss"]  # what the best checkpoint is chosen by


def test_an_exported_model_comes_back_as_it_was(lab, dataset, compressed, tmp_path):
    files = {path.name: path for path in export.export_model(lab.workspace, compressed.id, tmp_path)}
    assert set(files) == {"model.safetensors", "serving.safetensors", "model.ids.onnx"}
    again = lab.import_checkpoint(dataset.id, files["model.safetensors"])
    table = lab.compare([compressed.id, again.id])
    assert table["auc"].nunique() == 1 and table["parameters"].nunique() == 1


def test_the_difference_of_two_configs_shows_only_what_differs(lab, model, compressed):
    difference = config_difference(lab.workspace, model.id, compressed.id).set_index("setting")
    assert difference.loc["rank of mlp.0"].tolist() == ["dense", str(compressed.summary["compression"]["ranks"]["mlp.0"])]
    assert difference.loc["compression"].tolist() == ["none", "AFM"]
    assert not [name for name in difference.index if "_id" in name or name == "architecture"]


def test_a_checkpoint_of_another_encoding_is_refused_before_it_is_queued(lab, dataset, model, tmp_path):
    other = encoded(lab, write_table(tmp_path / "other.csv", seed=1), "other")
    with pytest.raises(DataError, match="another encoding"):
        models.import_checkpoint(lab.workspace, other.id, export.export_model(lab.workspace, model.id, tmp_path)[0])


def test_a_pickle_is_refused_before_it_is_queued(lab, dataset, tmp_path):
    import pickle

    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps({"weight": 1}))
    with pytest.raises(StorageError, match="pickle"):
        models.import_checkpoint(lab.workspace, dataset.id, path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "deepfn"}, "no model is called 'deepfn'; there are deepfm"),
        ({"architecture": "deepfm", "model": {"embed_dim": 0}}, "embed_dim must be between"),
        ({"architecture": "deepfm", "model": {"widths": 3}}, "unknown setting widths"),
    ],
)
def test_unusable_training_settings_are_refused_before_they_are_queued(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(dataset_id="ds-x", **settings)


def test_an_unknown_dataset_is_named(lab):
    with pytest.raises(UnknownNameError, match="ds-nothing"):
        lab.train(TrainConfig(dataset_id="ds-nothing", architecture="deepfm"))


def test_ranks_are_chosen_in_exactly_one_way(lab, model):
    with pytest.raises(ConfigError, match="exactly one"):
        lab.plan(model.id, variance=0.9, preset="variance-90")


def test_a_failed_job_raises_its_sentence(lab, tmp_path):
    path = tmp_path / "three.csv"
    path.write_text("click,a\n" + "0,x\n1,y\n2,z\n" * 20)
    columns = (ctrlab.ColumnConfig(name="click", role="label"), ctrlab.ColumnConfig(name="a", role="categorical"))
    config = ctrlab.DatasetConfig(name="three", source=ctrlab.SourceConfig(paths=(str(path),)), columns=columns)
    with pytest.raises(CtrlabError, match="click"):
        lab.encode(config)


def test_an_upload_above_the_limit_is_refused_and_leaves_nothing(lab):
    import io

    with pytest.raises(DataError, match="larger than the upload limit"):
        datasets.stage_upload(lab.workspace, "big.csv", io.BytesIO(b"x" * 100), max_bytes=10)
    assert not list((lab.workspace.home / "uploads").glob("big*"))


def test_two_uploads_of_one_name_are_both_kept(lab):
    import io

    paths = [datasets.stage_upload(lab.workspace, "a/../clicks.csv.gz", io.BytesIO(content)) for content in (b"1", b"2")]
    assert [path.read_bytes() for path in paths] == [b"1", b"2"]
    assert {path.parent for path in paths} == {lab.workspace.home / "uploads"}


def test_artifact_summaries_are_plain_json(lab, dataset, model, compressed):
    for artifact in (dataset, model, compressed):
        json.dumps([artifact.config, artifact.summary], allow_nan=True)

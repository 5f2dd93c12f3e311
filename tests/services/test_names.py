"""Names of what jobs store: readable by default, and different ones for different artifacts."""

from pathlib import Path

import pytest

from ctrlab.plans.configs import CompressConfig, RankPlan
from ctrlab.services import sample
from ctrlab.services.annotations import free_name
from ctrlab.services.compression import CompressJobConfig, compressed_name
from ctrlab.services.models import TrainConfig, default_name
from ctrlab.services.workspace import Workspace, open_workspace
from ctrlab.storage import NewArtifact
from ctrlab.storage.records import MAX_NAME_LENGTH
from tests.support.workspaces import deepfm_workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path)


def test_a_name_in_use_gets_the_next_number(workspace: Workspace) -> None:
    for expected in ("DeepFM on Avazu", "DeepFM on Avazu, 2", "DeepFM on Avazu, 3"):
        name = free_name(workspace, "model", "DeepFM on Avazu")
        assert name == expected
        workspace.store.artifacts.add(NewArtifact("model", name))
    assert free_name(workspace, "dataset", "DeepFM on Avazu") == "DeepFM on Avazu"


def test_a_numbered_name_is_no_longer_than_a_name_may_be(workspace: Workspace) -> None:
    longest = "x" * MAX_NAME_LENGTH
    workspace.store.artifacts.add(NewArtifact("model", longest))
    name = free_name(workspace, "model", longest)
    assert name.endswith("x, 2") and len(name) == MAX_NAME_LENGTH


def test_default_names_say_architecture_and_data_or_method_and_factor(tmp_path: Path) -> None:
    ids = deepfm_workspace(tmp_path, num_tables=3, mlp_dims=(40, 40))
    workspace = open_workspace(tmp_path)
    assert default_name(workspace, TrainConfig(dataset_id=ids["dataset"], architecture="dcnv2")) == "DCN V2 on Synthetic clicks"
    plan = RankPlan.of({"mlp.0": 2, "embedding.C3": 1})
    config = CompressJobConfig(model_id=ids["model"], spectra_id=ids["spectra"], compress=CompressConfig(plan=plan))
    assert compressed_name(workspace, config).startswith("DeepFM, AFM ")
    assert compressed_name(workspace, config).endswith("x")


def test_the_sample_is_found_under_its_numbered_name(workspace: Workspace) -> None:
    store = workspace.store.artifacts
    store.add(NewArtifact("dataset", sample.SAMPLE_NAME))  # what an interrupted opening left
    dataset = store.add(NewArtifact("dataset", f"{sample.SAMPLE_NAME}, 2"))
    model = store.add(NewArtifact("model", f"{sample.SAMPLE_MODEL_NAME}, 2", parents=[dataset.id]))
    spectra = store.add(NewArtifact("spectra", "Spectra", parents=[model.id]))
    assert sample.sample_ids(workspace) == {"dataset": dataset.id, "model": model.id, "spectra": spectra.id}

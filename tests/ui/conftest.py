"""Pages without a browser or a worker: Streamlit's AppTest on a home of its own."""

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from ctrlab.data.schema import FeatureSchema
from ctrlab.evaluation.delong import Interval
from ctrlab.models.base import build_model
from ctrlab.models.configs import MODELS
from ctrlab.models.profiling import profile_model
from ctrlab.services import jobs, previews
from ctrlab.services.previews import Preview, PreviewRequest
from ctrlab.services.workspace import Workspace, open_workspace
from ctrlab.storage import NewArtifact
from tests.support.patience import PATIENCE
from tests.support.workspaces import deepfm_workspace

PREVIEW = Preview(
    num_rows=1000, auc=Interval(0.765, 0.01, 0.745, 0.785, 0.95), auc_change=Interval(-0.005, 0.001, -0.007, -0.003, 0.95),
    log_loss=0.48, log_loss_change=Interval(0.002, 0.001, 0.0, 0.004, 0.95), original_auc=0.77, original_log_loss=0.478,
    seconds=0.1,
)  # fmt: skip
ROOT = Path(__file__).parents[2]
SCHEMA = FeatureSchema(field_names=("ad_id",), field_dims=(1202,), value_names=("price",), fingerprint="f")


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home without artifacts and jobs, to be copied: to make its tables takes longer than a page."""
    home = tmp_path_factory.mktemp("empty") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CTRLAB_STORE_URL", raising=False)
        open_workspace(home).store.close()
    return home


@pytest.fixture
def workspace(tmp_path: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty home that the pages use too; no worker is started for it."""
    home = tmp_path / "home"
    shutil.copytree(empty_home, home)
    monkeypatch.setenv("CTRLAB_HOME", str(home))
    monkeypatch.delenv("CTRLAB_STORE_URL", raising=False)
    monkeypatch.setattr(jobs, "ensure_worker", lambda workspace, command=None: None)
    st.cache_resource.clear()
    return open_workspace(home)


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> list[PreviewRequest]:
    """Plans are measured at once, without a process: half of a hundredth of AUC is lost by each. The requests, as they came."""
    requests: list[PreviewRequest] = []

    class AtOnce:
        def ask(self, request: PreviewRequest, asker: str) -> Future[Preview]:
            requests.append(request)
            answer: Future[Preview] = Future()
            answer.set_result(PREVIEW)
            return answer

    monkeypatch.setattr(previews, "preview_process", lambda workspace: AtOnce())
    return requests


@pytest.fixture
def open_page(workspace: Workspace) -> Callable[..., AppTest]:
    """open_page("Data", dataset="ds-1"): the page after its first run."""

    def open_page(name: str, **query: str) -> AppTest:
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=PATIENCE)
        if name != "Home":
            app.switch_page(f"pages/{name}.py")
        for key, value in query.items():
            app.query_params[key] = value
        return app.run()

    return open_page


@pytest.fixture
def dataset(workspace: Workspace) -> str:
    """Id of a catalogued dataset with the summary that the pages read."""
    fields = [
        {"name": "ad_id", "column": "ad_id", "kind": "categorical", "cardinality": 1200, "missing_share": 0.1, "oov_share": 0.05,
         "head_share": 0.6, "unreadable": 0},
        {"name": "price", "column": "price", "kind": "numeric", "cardinality": 0, "missing_share": 0.0, "oov_share": 0.0,
         "head_share": 0.0, "unreadable": 3},
    ]  # fmt: skip
    summary = {
        "rows": {"train": 8000, "valid": 1000},
        "ctr": {"train": 0.21, "valid": 0.2},
        "fields": fields,
        "size_bytes": 90_000,
    }
    return workspace.store.artifacts.add(
        NewArtifact("dataset", "Ads_2024", summary=summary | {"fingerprint": "f", "schema": SCHEMA.to_dict()}, seed=0)
    ).id


@pytest.fixture
def model(workspace: Workspace, dataset: str) -> str:
    """Id of a catalogued model of `dataset`."""
    profile = profile_model(build_model(MODELS["deepfm"].config_class(), SCHEMA))
    cost = {
        "parameters_tables": 19_200,
        "parameters_dense": 330_000,
        "bytes_tables": 76_800,
        "bytes_dense": 1_320_000,
        "macs": 330_000,
    }
    config = {"dataset_id": dataset, "architecture": "deepfm", "model": {}}
    summary = {"role": "original", "architecture": "DeepFM", "cost": cost, "cost_serving": cost, "profile": profile.to_dict()}
    return workspace.store.artifacts.add(
        NewArtifact("model", "First DeepFM", parents=[dataset], config=config, summary=summary, seed=0)
    ).id


@pytest.fixture
def ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Ids of a dataset, a DeepFM with three tables and its spectra, in the home that the pages use."""
    monkeypatch.setenv("CTRLAB_HOME", str(tmp_path))
    monkeypatch.setattr("ctrlab.services.jobs.ensure_worker", lambda *_: None)
    return deepfm_workspace(tmp_path, num_tables=3, mlp_dims=(40, 40))

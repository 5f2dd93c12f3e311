"""A kind of job that the package does not know runs in a real worker's child process, beside the package's own kinds."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctrlab.services.jobs import get_job, job_curves
from ctrlab.services.workspace import Workspace, open_workspace
from ctrlab.storage import NewArtifact
from tests.support.worker_support import ROOT, wait_for_end

EXAMPLE = Path(__file__).with_name("new_job_kind.py")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.delenv("CTRLAB_STORE_URL", raising=False)
    workspace = open_workspace(tmp_path / "home")
    environment = workspace.environment()
    environment["PYTHONPATH"] += os.pathsep + str(ROOT)
    worker = subprocess.Popen([sys.executable, "-m", "tests.examples.new_job_kind"], env=environment, start_new_session=True)
    yield workspace
    worker.kill()
    worker.wait()
    workspace.store.close()


def test_a_job_kind_from_outside_is_run_by_a_worker(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "weights.bin").write_bytes(b"weights")
    artifact = workspace.store.artifacts.add(NewArtifact("model", "DeepFM", files_from=tmp_path / "files"))
    job_id = workspace.store.jobs.submit("checksum", "Checksum", {"artifact_id": artifact.id}).id
    assert wait_for_end(workspace, job_id) == "succeeded"
    assert get_job(workspace, job_id).result == {"weights.bin": hashlib.sha256(b"weights").hexdigest()}
    assert job_curves(workspace, job_id).to_dict("records") == [{"step": 1, "name": "bytes", "value": 7.0}]


def test_it_takes_less_than_40_lines() -> None:
    assert len([line for line in EXAMPLE.read_text().splitlines() if line.strip()]) < 40

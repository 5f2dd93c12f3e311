"""The top of the command line: unexpected errors, the worker's settings, and the address that `serve` prints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctrlab.__main__ import main
from ctrlab.cli.serve import opening_line
from ctrlab.services.workspace import Workspace, open_workspace
from ctrlab.storage import NewArtifact
from tests.support.worker_support import ROOT


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.delenv("CTRLAB_STORE_URL", raising=False)
    return open_workspace(tmp_path / "home")


def damage(workspace: Workspace) -> None:
    """Leave a row that no reader expects: its JSON is broken off."""
    workspace.store.artifacts.add(NewArtifact("dataset", "ads"))
    with workspace.store.database.write() as connection:
        connection.exec_driver_sql("UPDATE artifacts SET config = '{'")


def test_an_unexpected_error_is_one_sentence_with_the_path_of_a_log(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(workspace)
    assert main(["data", "list", "--home", str(workspace.home)]) == 1
    printed = capsys.readouterr()
    log = workspace.home / "cli.log"
    assert printed.out == ""
    assert printed.err.startswith("ctrlab: unexpected: JSONDecodeError: ")
    assert printed.err.strip().splitlines() == [printed.err.strip()]
    assert printed.err.strip().endswith(f"the details are in {log}")
    assert "Traceback" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_an_unexpected_error_is_an_object_with_json(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    damage(workspace)
    assert main(["data", "list", "--json", "--home", str(workspace.home)]) == 1
    assert json.loads(capsys.readouterr().out)["error"].startswith("unexpected: JSONDecodeError")


@pytest.mark.parametrize(
    ("flag", "variable", "sentence"),
    [
        (["--concurrency", "0"], None, "a worker runs at least 1 job at a time, got 0"),
        ([], "two", "CTRLAB_CONCURRENCY must be a whole number of jobs, got 'two'"),
        ([], "0", "a worker runs at least 1 job at a time, got 0"),
    ],
)
def test_a_wrong_number_of_jobs_at_once_is_one_sentence(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flag: list[str],
    variable: str | None,
    sentence: str,
) -> None:
    if variable is not None:
        monkeypatch.setenv("CTRLAB_CONCURRENCY", variable)
    assert main(["worker", "--home", str(workspace.home), *flag]) == 1
    assert capsys.readouterr().err.strip() == f"ctrlab: {sentence}"


def test_serve_prints_the_address_that_the_dashboard_gets(workspace: Workspace, tmp_path: Path) -> None:
    worker_id = workspace.store.workers.new_id()
    lock = workspace.store.workers.hold(worker_id)  # a worker is alive: serve starts none
    workspace.store.workers.heartbeat(worker_id, os.getpid())
    module = tmp_path / "modules" / "streamlit"
    module.mkdir(parents=True)
    (module / "__init__.py").touch()
    (module / "__main__.py").write_text(
        "import json, os, sys\nmask = os.umask(0)\nprint(json.dumps([sys.argv[1:], os.environ['CTRLAB_HOME'], mask]))"
    )
    environment = os.environ | {"PYTHONPATH": str(module.parent), "STREAMLIT_SERVER_ADDRESS": "127.0.0.2"}
    command = [sys.executable, "-m", "ctrlab", "serve", "--port", "8765", "--home", str(workspace.home)]
    printed = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    first, second = printed.splitlines()
    assert first == "The dashboard opens at http://127.0.0.2:8765 (stop it with Ctrl-C)"
    arguments, home, mask = json.loads(second)
    assert arguments[arguments.index("--server.address") + 1] == "127.0.0.2"
    assert (home, mask) == (str(workspace.home), 0o077)
    lock.release()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost"])
def test_a_loopback_address_is_printed_without_a_warning(address: str) -> None:
    host = "[::1]" if address == "::1" else address
    assert opening_line(address, 8501) == f"The dashboard opens at http://{host}:8501 (stop it with Ctrl-C)"


@pytest.mark.parametrize("address", ["0.0.0.0", "10.1.2.3", "example.org"])
def test_an_address_that_others_reach_is_printed_with_a_warning(address: str) -> None:
    opened, warning = opening_line(address, 8501).splitlines()
    assert f"http://{address}:8501" in opened
    assert "reads and changes everything" in warning

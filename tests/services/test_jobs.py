"""Job services of the pages and the command line: run in this process, follow, cancel, read logs, start a worker."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ctrlab.config import Config, option
from ctrlab.errors import ConfigError, DataError, JobCancelled, StorageError, UnknownNameError
from ctrlab.services import handlers
from ctrlab.services.handlers import JOB_HANDLERS, JobContext
from ctrlab.services.jobs import cancel_job, ensure_worker, get_job, job_curves, job_log, list_jobs, retry_job, worker_state
from ctrlab.services.runner import run_job
from ctrlab.services.workspace import Workspace, open_workspace
from ctrlab.storage import Job, MetricRow, NewArtifact
from tests.support.patience import PATIENCE
from tests.support.worker_support import ROOT, WORKER_COMMAND

SHORT_WORKER = [*WORKER_COMMAND, "--idle-exit-seconds", "20"]


@JOB_HANDLERS.register("inline test", builder=f"{__name__}:run_inline", title="Inline test")
@dataclass(frozen=True, kw_only=True)
class InlineConfig(Config):
    """What the handler below does."""

    do: str = option("succeed", choices=("succeed", "refuse", "crash", "wait", "interrupt"))


def run_inline(config: InlineConfig, context: JobContext) -> dict[str, str]:
    if config.do == "refuse":
        raise DataError("the file is empty; choose another")
    if config.do == "crash":
        raise KeyError("lost")
    if config.do == "interrupt":
        raise KeyboardInterrupt
    while config.do == "wait":
        if context.should_stop():
            raise JobCancelled("asked to stop")
        time.sleep(0.01)
    (context.folder / "half-made").write_text("x")
    context.metric(1, loss=0.5, auc=None)
    context.report(0.5, "half way", eta_seconds=3.0)
    return {"model": "model-00000000"}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.delenv("CTRLAB_STORE_URL", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    workspace = open_workspace(tmp_path / "home")
    yield workspace
    for worker in workspace.store.workers.alive():
        os.kill(worker.pid, signal.SIGKILL)
    workspace.store.close()


def submit(workspace: Workspace, do: str = "succeed") -> Job:
    return workspace.store.jobs.submit("inline test", "Inline", InlineConfig(do=do).to_dict())


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_the_home_is_the_argument_then_the_environment_then_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTRLAB_HOME", str(tmp_path / "from environment"))
    monkeypatch.delenv("CTRLAB_STORE_URL", raising=False)
    assert open_workspace(tmp_path / "given").home == tmp_path / "given"
    assert open_workspace().home == tmp_path / "from environment"
    monkeypatch.delenv("CTRLAB_HOME")
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path / "data directory"))
    assert open_workspace().home == tmp_path / "data directory"


def test_a_child_process_opens_the_same_workspace(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'elsewhere.sqlite3'}"
    workspace = open_workspace(tmp_path / "home", url)
    added = workspace.store.artifacts.add(NewArtifact("dataset", "ads"))
    script = "from ctrlab.services.workspace import open_workspace\nprint(open_workspace().store.artifacts.list()[0].id)"
    command = [sys.executable, "-c", script]
    printed = subprocess.run(command, env=workspace.environment(), cwd=tmp_path, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == added.id


def test_a_job_run_here_ends_with_its_result_curve_and_log(workspace: Workspace) -> None:
    job = run_job(workspace, submit(workspace).id)
    assert (job.state, job.result, job.progress, job.message) == ("succeeded", {"model": "model-00000000"}, 1.0, "succeeded")
    assert job_curves(workspace, job.id).to_dict("records") == [{"step": 1, "name": "loss", "value": 0.5}]
    assert "Inline" in job_log(workspace, job.id)
    assert not job.checkpoint_folder.exists()
    assert run_job(workspace, job.id) == job  # an ended job is returned as it is


def test_an_expected_failure_is_its_sentence_and_an_unexpected_one_points_to_the_log(workspace: Workspace) -> None:
    refused = run_job(workspace, submit(workspace, "refuse").id)
    assert (refused.state, refused.error, refused.error_expected) == ("failed", "the file is empty; choose another", True)
    crashed = run_job(workspace, submit(workspace, "crash").id)
    assert (crashed.state, crashed.error_expected) == ("failed", False)
    assert crashed.error == "unexpected: KeyError: 'lost', see the log"
    assert "Traceback" in job_log(workspace, crashed.id)


def test_a_damaged_config_fails_with_its_own_sentence(workspace: Workspace) -> None:
    job = run_job(workspace, workspace.store.jobs.submit("inline test", "Inline", {"do": "fly", "version": 1}).id)
    assert job.error_expected
    assert "do must be one of" in str(job.error)
    with pytest.raises(ConfigError):
        InlineConfig.from_dict(job.config)


def test_a_key_press_interrupts_the_job_and_it_can_be_retried(workspace: Workspace) -> None:
    job = run_job(workspace, submit(workspace, "interrupt").id)
    assert job.state == "interrupted"
    assert retry_job(workspace, job.id).state == "queued"


def test_a_job_run_here_stops_on_its_callers_flag_and_on_a_cancel_request(workspace: Workspace) -> None:
    assert run_job(workspace, submit(workspace, "wait").id, should_stop=lambda: True).state == "cancelled"
    job = submit(workspace, "wait")
    threading.Timer(0.3, cancel_job, (workspace, job.id)).start()
    assert run_job(workspace, job.id).state == "cancelled"


def test_running_a_job_of_another_worker_waits_for_its_end(workspace: Workspace) -> None:
    store = workspace.store
    lock = store.workers.hold("other-1-1")
    claimed = store.jobs.claim("other-1-1", submit(workspace).id)
    assert claimed is not None
    threading.Timer(0.5, store.jobs.finish, (claimed, "succeeded"), {"result": {"model": "theirs"}}).start()
    seen: list[str] = []
    job = run_job(workspace, claimed.id, on_change=lambda now: seen.append(now.state))
    assert job.result == {"model": "theirs"}
    assert set(seen) == {"running"}
    lock.release()


def test_progress_is_shown_while_a_job_runs_here(workspace: Workspace) -> None:
    seen: list[Job] = []
    job = submit(workspace, "wait")
    run_job(workspace, job.id, should_stop=lambda: len(seen) >= 2, on_change=seen.append)
    assert seen[0].state == "running"


def test_no_job_is_shown_running_once_its_worker_died(workspace: Workspace) -> None:
    job = submit(workspace)
    lock = workspace.store.workers.hold("dead-1-1")
    workspace.store.jobs.claim("dead-1-1", job.id)
    assert get_job(workspace, job.id).state == "running"
    lock.release()
    assert [shown.state for shown in list_jobs(workspace)] == ["queued"]
    assert [shown.state for shown in list_jobs(workspace, limit=1, states=["running"])] == []


def test_cancel_is_at_once_for_a_queued_job_and_for_one_whose_worker_died(workspace: Workspace) -> None:
    assert cancel_job(workspace, submit(workspace).id).state == "cancelled"
    job = submit(workspace)
    workspace.store.workers.hold("dead-1-1").release()
    workspace.store.jobs.claim("dead-1-1", job.id)
    assert cancel_job(workspace, job.id).state == "cancelled"


def test_an_unknown_job_is_refused_with_a_sentence(workspace: Workspace) -> None:
    for read in (get_job, cancel_job, retry_job, job_log):
        with pytest.raises(UnknownNameError, match="no job is called 'job-none'"):
            read(workspace, "job-none")
    with pytest.raises(StorageError, match="is queued"):
        retry_job(workspace, submit(workspace).id)


def test_the_log_is_read_from_its_end_and_invalid_bytes_are_replaced(workspace: Workspace) -> None:
    job = submit(workspace)
    assert job_log(workspace, job.id) == ""
    job.log_path.write_bytes(b"x" * 2_000_000 + b"\nlast but one \xff\nlast\n")
    assert job_log(workspace, job.id, max_lines=2) == "last but one \ufffd\nlast"


def test_curves_are_a_typed_table_even_when_empty(workspace: Workspace) -> None:
    job = submit(workspace)
    assert list(job_curves(workspace, job.id).columns) == ["step", "name", "value"]
    assert str(job_curves(workspace, job.id)["step"].dtype) == "int64"
    workspace.store.metrics.append(job.id, [MetricRow(1, "loss", 0.5), MetricRow(2, "loss", 0.4)])
    assert list(job_curves(workspace, job.id, since_step=1)["value"]) == [0.4]


def test_the_time_left_is_estimated_from_the_pace_unless_the_handler_gives_it(workspace: Workspace) -> None:
    clock = [100.0]
    context = JobContext(workspace, submit(workspace), clock=lambda: clock[0])
    context.report(0.5)  # resumed half way: the pace is of this attempt only
    assert context.drain()[0] == (0.5, "", None)
    clock[0] += 10.0
    context.report(0.75)
    assert context.drain()[0] == (0.75, "", 10.0)
    context.report(0.8, "epoch 2", eta_seconds=7)
    assert context.drain() == ((0.8, "epoch 2", 7.0), [])


def test_what_could_not_be_written_is_kept_for_the_next_time(workspace: Workspace) -> None:
    context = JobContext(workspace, submit(workspace))
    context.metric(1, loss=0.5)
    context.report(0.1)
    drained = context.drain()
    context.metric(2, loss=0.4)
    context.restore(*drained)
    progress, points = context.drain()
    assert progress is not None
    assert progress.fraction == 0.1
    assert [point.step for point in points] == [1, 2]


def test_two_dashboards_that_start_a_worker_at_once_end_up_with_one(workspace: Workspace) -> None:
    script = (
        "import sys\nfrom ctrlab.services.jobs import ensure_worker\nfrom ctrlab.services.workspace import open_workspace\n"
        "workspace = open_workspace()\nprint('ready', flush=True)\nsys.stdin.readline()\n"
        "ensure_worker(workspace, sys.argv[1:])\n"
    )
    dashboards = [
        subprocess.Popen(
            [sys.executable, "-c", script, *WORKER_COMMAND],
            env=workspace.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for dashboard in dashboards:
        assert dashboard.stdout is not None
        dashboard.stdout.readline()
    for dashboard in dashboards:
        dashboard.communicate("go\n", timeout=PATIENCE)
    wait_until(lambda: worker_state(workspace).alive)
    job = workspace.store.jobs.submit("count", "Count", {"steps": 2})
    wait_until(lambda: not get_job(workspace, job.id).active)
    assert get_job(workspace, job.id).state == "succeeded"  # the worker outlived the dashboards that started it
    assert len(workspace.store.workers.alive()) == 1
    assert len(re.findall(r"worker \S+ started", (workspace.home / "worker.log").read_text())) == 1


def test_a_worker_is_started_where_none_lives_and_again_after_it_was_killed(workspace: Workspace) -> None:
    assert not worker_state(workspace).alive
    ensure_worker(workspace, SHORT_WORKER)
    ensure_worker(workspace, SHORT_WORKER)
    wait_until(lambda: worker_state(workspace).alive)
    state = worker_state(workspace)
    assert (state.running, state.queued, state.outdated) == ((), 0, False)
    first = state.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not worker_state(workspace).alive)
    ensure_worker(workspace, SHORT_WORKER, restart_seconds=0.0)
    wait_until(lambda: worker_state(workspace).alive)
    assert worker_state(workspace).pid != first
    assert (workspace.home / "worker.log").read_text().count("another worker is alive") == 0


def test_the_request_side_loads_neither_torch_nor_sklearn() -> None:
    modules = "ctrlab.services.jobs, ctrlab.services.runner, ctrlab.services.handlers, ctrlab.services.workspace"
    script = f"import sys, {modules}\nassert not {{'torch', 'sklearn', 'streamlit', 'pandas'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_every_module_that_registers_a_kind_of_job_is_loaded_where_jobs_run():
    """A child knows only the kinds of the modules in the list; a test process has imported them all anyway."""
    services = Path(handlers.__file__).parent
    registering = {
        f"ctrlab.services.{path.stem}" for path in services.glob("*.py") if "JOB_HANDLERS.register(" in path.read_text()
    }
    assert registering - {"ctrlab.services.handlers"} == set(handlers.HANDLER_MODULES)

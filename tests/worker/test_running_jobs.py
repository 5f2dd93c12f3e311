"""Jobs in a running worker, in real processes: one worker for all of these tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ctrlab.services.jobs import cancel_job, get_job, job_curves, job_log, retry_job
from ctrlab.services.workspace import Workspace, open_workspace
from tests.support.patience import PATIENCE
from tests.support.sample_handlers import CountConfig, PrintConfig, TroubleConfig, UnresponsiveConfig
from tests.support.worker_support import (
    child_pids,
    counted,
    eventually,
    is_running,
    pid_of_attempt,
    start_worker_process,
    submit,
    wait_for_end,
    warm_children,
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace with one worker for all tests of this file."""
    workspace = open_workspace(tmp_path_factory.mktemp("shared") / "home")
    worker = start_worker_process(workspace)
    eventually(lambda: workspace.store.workers.alive())
    yield workspace
    worker.kill()
    worker.wait()
    workspace.store.close()


def test_a_job_runs_and_leaves_result_progress_curve_and_log_readable_by_its_user_alone(workspace: Workspace) -> None:
    job_id = submit(workspace, "count", CountConfig(steps=4))
    assert wait_for_end(workspace, job_id) == "succeeded"
    job = get_job(workspace, job_id)
    assert job.result == {"dataset": "ds-00000000"}
    assert (job.progress, job.attempts, job.error, job.worker_id) == (1.0, 1, None, None)
    assert list(job_curves(workspace, job_id)["value"]) == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert "succeeded" in job_log(workspace, job_id)
    assert not job.checkpoint_folder.exists()
    files = [path for path in workspace.home.rglob("*") if path.is_file()]
    assert {"worker.log", "log.txt", "counted.txt", "ctrlab.sqlite3"} <= {path.name for path in files}
    assert {path.name: path.stat().st_mode & 0o077 for path in files if path.stat().st_mode & 0o077} == {}


def test_a_job_runs_in_a_process_that_was_started_before_it_was_submitted(workspace: Workspace) -> None:
    assert wait_for_end(workspace, submit(workspace, "count", CountConfig())) == "succeeded"
    eventually(lambda: warm_children(workspace))
    submitted = time.time()
    job_id = submit(workspace, "count", CountConfig(steps=1))
    eventually(lambda: counted(workspace, job_id))
    assert psutil.Process(pid_of_attempt(workspace, job_id)).create_time() < submitted


def test_everything_printed_is_in_the_job_log(workspace: Workspace) -> None:
    job_id = submit(workspace, "print", PrintConfig())
    assert wait_for_end(workspace, job_id) == "succeeded"
    log = job_log(workspace, job_id)
    assert all(text in log for text in ("from print", "from stderr", "from native code", "from the context"))
    assert len(job_log(workspace, job_id, max_lines=2).splitlines()) == 2


def test_each_kind_of_failure_has_its_own_state_and_error_and_an_unexpected_one_its_traceback_in_the_log(
    workspace: Workspace,
) -> None:
    ends = {}
    for how in ("refuse", "raise", "exit", "system_exit", "no_dict", "kill"):
        job_id = submit(workspace, "trouble", TroubleConfig(how=how))
        wait_for_end(workspace, job_id)
        job = get_job(workspace, job_id)
        ends[how] = (job.state, job.error_expected, job.error)
        if how == "raise":
            assert "ZeroDivisionError: nothing to divide" in job_log(workspace, job_id)
            assert "sample_handlers.py" in job_log(workspace, job_id)  # the traceback
    assert ends["refuse"] == ("failed", True, "the label has three values; choose a column with two")
    assert ends["raise"] == ("failed", False, "unexpected: ZeroDivisionError: nothing to divide, see the log")
    assert ends["exit"] == ("failed", False, "unexpected: its process ended with code 3 and without a result, see the log")
    assert ends["system_exit"][:2] == ("failed", False)
    assert ends["no_dict"][:2] == ("failed", False)
    assert ends["kill"][:2] == ("interrupted", True)
    assert "SIGKILL" in str(ends["kill"][2])


def test_a_kind_that_no_code_registers_fails_with_a_sentence_and_imports_nothing(workspace: Workspace) -> None:
    job_id = workspace.store.jobs.submit("os:system", "abuse", {"command": "true"}).id
    assert wait_for_end(workspace, job_id) == "failed"
    job = get_job(workspace, job_id)
    assert job.error_expected
    assert "no kind of job is called 'os:system'" in str(job.error)


def test_cancel_stops_a_job_that_checks_whether_to_stop(workspace: Workspace) -> None:
    job_id = submit(workspace, "count", CountConfig(steps=1000, step_seconds=0.05))
    eventually(lambda: counted(workspace, job_id))
    cancel_job(workspace, job_id)
    assert wait_for_end(workspace, job_id) == "cancelled"
    assert get_job(workspace, job_id).error is None


@pytest.mark.parametrize("ignore_sigterm", [False, True])
def test_cancel_stops_a_job_that_never_checks_and_the_processes_it_started(workspace: Workspace, ignore_sigterm: bool) -> None:
    job_id = submit(workspace, "unresponsive", UnresponsiveConfig(ignore_sigterm=ignore_sigterm, with_helper=True))
    pids = child_pids(workspace, job_id)
    cancel_job(workspace, job_id)
    assert wait_for_end(workspace, job_id) == "cancelled"
    eventually(lambda: not any(map(is_running, pids)))


def test_a_killed_child_interrupts_the_job_and_retry_continues_from_its_checkpoint(workspace: Workspace) -> None:
    job_id = submit(workspace, "count", CountConfig(steps=12, wait_at=3))
    eventually(lambda: len(counted(workspace, job_id)) == 3)
    os.kill(pid_of_attempt(workspace, job_id), signal.SIGKILL)
    assert wait_for_end(workspace, job_id) == "interrupted"
    assert "retry to continue" in str(get_job(workspace, job_id).error)
    retry_job(workspace, job_id)
    assert wait_for_end(workspace, job_id) == "succeeded"
    lines = counted(workspace, job_id)
    first, second = ([line for line in lines if line.endswith(f"attempt {attempt}")] for attempt in (1, 2))
    assert [int(line.split()[0]) for line in first] == [0, 1, 2]
    continued = [int(line.split()[0]) for line in second]
    assert continued in (list(range(2, 12)), list(range(3, 12)))  # the last step may have been killed before its checkpoint
    assert get_job(workspace, job_id).attempts == 2
    steps = list(job_curves(workspace, job_id)["step"])  # the kill may have come before the first points were written
    assert steps == sorted(set(steps)) and set(continued) <= set(steps) <= set(range(12))


def test_a_killed_submitter_leaves_its_job_running(workspace: Workspace) -> None:
    script = (
        "import time\nfrom ctrlab.services.workspace import open_workspace\n"
        "job = open_workspace().store.jobs.submit('count', 'Count', {'steps': 10, 'step_seconds': 0.05})\n"
        "print(job.id, flush=True)\ntime.sleep(60)"
    )
    dashboard = subprocess.Popen([sys.executable, "-c", script], env=workspace.environment(), stdout=subprocess.PIPE, text=True)
    assert dashboard.stdout is not None
    job_id = dashboard.stdout.readline().strip()
    dashboard.kill()
    dashboard.wait()
    dashboard.stdout.close()
    assert wait_for_end(workspace, job_id) == "succeeded"


def test_a_second_worker_exits_and_the_first_stays(workspace: Workspace) -> None:
    workers = workspace.store.workers.alive()
    second = start_worker_process(workspace)
    assert second.wait(timeout=PATIENCE) == 0
    assert [worker.id for worker in workspace.store.workers.alive()] == [worker.id for worker in workers]


def test_an_artifact_added_just_before_a_kill_is_not_added_again(workspace: Workspace) -> None:
    job_id = submit(workspace, "trouble", TroubleConfig(how="kill_once_after_adding"))
    assert wait_for_end(workspace, job_id) == "interrupted"
    retry_job(workspace, job_id)
    assert wait_for_end(workspace, job_id) == "succeeded"
    assert [item.id for item in workspace.store.artifacts.list()] == [get_job(workspace, job_id).result["plan"]]


def test_the_worker_process_loads_neither_torch_nor_sklearn() -> None:
    script = "import sys, ctrlab.worker.main\nassert not {'torch', 'sklearn', 'streamlit'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])

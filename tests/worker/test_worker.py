"""The worker with real processes: what is promised must hold when any of them is killed at any moment."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sample_handlers import CountConfig, DeafConfig, PrintConfig, TroubleConfig
from worker_support import StartWorker, eventually, is_running

from ctrlab.config import Config
from ctrlab.services.jobs import cancel_job, get_job, job_curves, job_log, retry_job, worker_state
from ctrlab.services.workspace import Workspace


def submit(workspace: Workspace, kind: str, config: Config) -> str:
    return workspace.store.jobs.submit(kind, kind.title(), config.to_dict()).id


def wait_for_end(workspace: Workspace, job_id: str, seconds: float = 15.0) -> str:
    eventually(lambda: not workspace.store.jobs.get(job_id).active, seconds)
    return workspace.store.jobs.get(job_id).state


def counted(workspace: Workspace, job_id: str) -> list[str]:
    path = workspace.store.jobs.get(job_id).folder / "counted.txt"
    return path.read_text().splitlines() if path.exists() else []


def child_pids(workspace: Workspace, job_id: str) -> list[int]:
    path = workspace.store.jobs.get(job_id).folder / "pids.txt"
    eventually(path.exists)
    return [int(pid) for pid in path.read_text().split() if pid != "0"]


def pid_of_attempt(workspace: Workspace, job_id: str) -> int:
    eventually(lambda: "process " in job_log(workspace, job_id))
    return int(job_log(workspace, job_id).split("process ")[-1].split()[0])


def test_a_job_runs_and_leaves_result_progress_curve_and_log(workspace: Workspace, start_worker: StartWorker) -> None:
    start_worker()
    job_id = submit(workspace, "count", CountConfig(steps=4))
    assert wait_for_end(workspace, job_id) == "succeeded"
    job = get_job(workspace, job_id)
    assert job.result == {"dataset": "ds-00000000"}
    assert (job.progress, job.attempts, job.error, job.worker_id) == (1.0, 1, None, None)
    assert list(job_curves(workspace, job_id)["value"]) == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert "succeeded" in job_log(workspace, job_id)
    assert not job.checkpoint_folder.exists()


def test_a_warm_child_starts_a_job_in_under_half_a_second(workspace: Workspace, start_worker: StartWorker) -> None:
    start_worker()
    assert wait_for_end(workspace, submit(workspace, "count", CountConfig())) == "succeeded"
    time.sleep(1.5)  # the next child warms up
    submitted = time.monotonic()
    job_id = submit(workspace, "count", CountConfig(steps=1))
    eventually(lambda: counted(workspace, job_id))
    assert time.monotonic() - submitted < 0.5


def test_everything_printed_is_in_the_job_log(workspace: Workspace, start_worker: StartWorker) -> None:
    start_worker()
    job_id = submit(workspace, "print", PrintConfig())
    assert wait_for_end(workspace, job_id) == "succeeded"
    log = job_log(workspace, job_id)
    assert all(text in log for text in ("from print", "from stderr", "from native code", "from the context"))
    assert len(job_log(workspace, job_id, max_lines=2).splitlines()) == 2


def test_each_bad_end_is_told_apart(workspace: Workspace, start_worker: StartWorker) -> None:
    start_worker()
    ends = {}
    for how in ("refuse", "raise", "exit", "system_exit", "no_dict", "kill"):
        job_id = submit(workspace, "trouble", TroubleConfig(how=how))
        wait_for_end(workspace, job_id)
        job = get_job(workspace, job_id)
        ends[how] = (job.state, job.error_expected, job.error)
    assert ends["refuse"] == ("failed", True, "the label has three values; choose a column with two")
    assert ends["raise"] == ("failed", False, "unexpected: ZeroDivisionError: nothing to divide, see the log")
    assert ends["exit"] == ("failed", False, "unexpected: its process ended with code 3 and without a result, see the log")
    assert ends["system_exit"][:2] == ("failed", False)
    assert ends["no_dict"][:2] == ("failed", False)
    assert ends["kill"][:2] == ("interrupted", True)
    assert "SIGKILL" in str(ends["kill"][2])


def test_a_traceback_is_in_the_log_of_an_unexpected_failure(workspace: Workspace, start_worker: StartWorker) -> None:
    start_worker()
    job_id = submit(workspace, "trouble", TroubleConfig(how="raise"))
    wait_for_end(workspace, job_id)
    assert "ZeroDivisionError: nothing to divide" in job_log(workspace, job_id)
    assert "sample_handlers.py" in job_log(workspace, job_id)


def test_a_kind_that_no_code_registers_fails_with_a_sentence_and_imports_nothing(
    workspace: Workspace, start_worker: StartWorker
) -> None:
    start_worker()
    job_id = workspace.store.jobs.submit("os:system", "abuse", {"command": "true"}).id
    assert wait_for_end(workspace, job_id) == "failed"
    job = get_job(workspace, job_id)
    assert job.error_expected
    assert "no kind of job is called 'os:system'" in str(job.error)


def test_cancel_stops_a_listening_job_within_two_seconds(workspace: Workspace, start_worker: StartWorker) -> None:
    start_worker()
    job_id = submit(workspace, "count", CountConfig(steps=1000, step_seconds=0.05))
    eventually(lambda: counted(workspace, job_id))
    asked = time.monotonic()
    cancel_job(workspace, job_id)
    assert wait_for_end(workspace, job_id, 2.0) == "cancelled"
    assert time.monotonic() - asked < 2.0
    assert get_job(workspace, job_id).error is None


@pytest.mark.parametrize("ignore_sigterm", [False, True])
def test_cancel_stops_a_deaf_job_and_what_it_started_within_two_seconds(
    workspace: Workspace, start_worker: StartWorker, ignore_sigterm: bool
) -> None:
    start_worker()
    job_id = submit(workspace, "deaf", DeafConfig(ignore_sigterm=ignore_sigterm, with_helper=True))
    pids = child_pids(workspace, job_id)
    asked = time.monotonic()
    cancel_job(workspace, job_id)
    assert wait_for_end(workspace, job_id, 2.0) == "cancelled"
    assert time.monotonic() - asked < 2.0
    eventually(lambda: not any(map(is_running, pids)), 1.0)


def test_a_killed_child_interrupts_the_job_and_retry_continues_from_its_checkpoint(
    workspace: Workspace, start_worker: StartWorker
) -> None:
    start_worker()
    job_id = submit(workspace, "count", CountConfig(steps=12, step_seconds=0.1))
    eventually(lambda: len(counted(workspace, job_id)) >= 3)
    os.kill(pid_of_attempt(workspace, job_id), signal.SIGKILL)
    assert wait_for_end(workspace, job_id) == "interrupted"
    assert "retry to continue" in str(get_job(workspace, job_id).error)
    retry_job(workspace, job_id)
    assert wait_for_end(workspace, job_id) == "succeeded"
    lines = counted(workspace, job_id)
    assert {int(line.split()[0]) for line in lines} == set(range(12))
    assert len(lines) <= 13  # the step under way when it was killed may have been done twice
    assert lines[-1].endswith("attempt 2")
    assert get_job(workspace, job_id).attempts == 2
    steps = list(job_curves(workspace, job_id)["step"])
    assert steps == sorted(set(steps))
    assert len(steps) >= 9  # the points of the last fifth of a second before the kill were not written yet
    assert steps[-1] == 11


def test_a_killed_worker_takes_its_child_along_and_the_next_worker_continues_the_job(
    workspace: Workspace, start_worker: StartWorker
) -> None:
    first = start_worker()
    job_id = submit(workspace, "count", CountConfig(steps=15, step_seconds=0.1))
    eventually(lambda: len(counted(workspace, job_id)) >= 3)
    child = pid_of_attempt(workspace, job_id)
    first.kill()
    first.wait()
    eventually(lambda: not is_running(child), 2.0)
    assert get_job(workspace, job_id).state == "queued"  # the truth, before any other worker came
    assert not worker_state(workspace).alive
    done = len(counted(workspace, job_id))
    start_worker()
    assert wait_for_end(workspace, job_id) == "succeeded"
    lines = counted(workspace, job_id)
    assert {int(line.split()[0]) for line in lines} == set(range(15))
    assert len(lines) <= 16
    assert done >= 3
    assert get_job(workspace, job_id).attempts == 2


def test_a_worker_killed_with_a_deaf_job_leaves_no_process_behind(workspace: Workspace, start_worker: StartWorker) -> None:
    worker = start_worker()
    pids = child_pids(workspace, submit(workspace, "deaf", DeafConfig(ignore_sigterm=True, with_helper=True)))
    worker.kill()
    worker.wait()
    eventually(lambda: not any(map(is_running, pids)), 2.0)


def test_cancel_ends_a_job_whose_worker_was_just_killed(workspace: Workspace, start_worker: StartWorker) -> None:
    worker = start_worker()
    job_id = submit(workspace, "deaf", DeafConfig())
    child_pids(workspace, job_id)
    worker.kill()
    worker.wait()
    assert cancel_job(workspace, job_id).state == "cancelled"


def test_sigterm_gives_the_job_back_and_the_next_worker_continues(workspace: Workspace, start_worker: StartWorker) -> None:
    worker = start_worker()
    job_id = submit(workspace, "count", CountConfig(steps=15, step_seconds=0.1))
    eventually(lambda: len(counted(workspace, job_id)) >= 3)
    child = pid_of_attempt(workspace, job_id)
    worker.terminate()
    assert worker.wait(timeout=5) == 0
    assert workspace.store.jobs.get(job_id).state == "queued"
    assert workspace.store.workers.alive() == []
    assert not is_running(child)
    start_worker()
    assert wait_for_end(workspace, job_id) == "succeeded"
    assert {int(line.split()[0]) for line in counted(workspace, job_id)} == set(range(15))


def test_a_killed_submitter_leaves_its_job_running(workspace: Workspace, start_worker: StartWorker) -> None:
    start_worker()
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


def test_a_second_worker_leaves_quietly_and_the_first_stays(workspace: Workspace, start_worker: StartWorker) -> None:
    first = start_worker()
    second = start_worker(wait=False)
    assert second.wait(timeout=10) == 0
    assert first.poll() is None
    assert [worker.pid for worker in workspace.store.workers.alive()] == [first.pid]


def test_a_worker_without_jobs_leaves_after_its_idle_time(workspace: Workspace, start_worker: StartWorker) -> None:
    worker = start_worker("--idle-exit-seconds", "0.5")
    assert worker.wait(timeout=10) == 0
    assert not worker_state(workspace).alive


def test_a_worker_leaves_when_its_home_is_removed(workspace: Workspace, start_worker: StartWorker) -> None:
    worker = start_worker()
    workspace.home.rename(workspace.home.with_name("elsewhere"))
    assert worker.wait(timeout=10) == 0


def test_jobs_side_by_side_never_exceed_the_concurrency(workspace: Workspace, start_worker: StartWorker) -> None:
    start_worker("--concurrency", "2")
    job_ids = [submit(workspace, "count", CountConfig(steps=5, step_seconds=0.1)) for _ in range(3)]
    most = 0
    while any(workspace.store.jobs.get(job_id).active for job_id in job_ids):
        most = max(most, workspace.store.jobs.count("running"))
        time.sleep(0.02)
    assert most == 2
    assert {get_job(workspace, job_id).state for job_id in job_ids} == {"succeeded"}
    assert all(len(counted(workspace, job_id)) == 5 for job_id in job_ids)


def test_an_artifact_added_just_before_a_kill_is_not_added_again(workspace: Workspace, start_worker: StartWorker) -> None:
    start_worker()
    job_id = submit(workspace, "trouble", TroubleConfig(how="kill_once_after_adding"))
    assert wait_for_end(workspace, job_id) == "interrupted"
    retry_job(workspace, job_id)
    assert wait_for_end(workspace, job_id) == "succeeded"
    assert [artifact.id for artifact in workspace.store.artifacts.list()] == [get_job(workspace, job_id).result["plan"]]


def test_the_worker_process_loads_neither_torch_nor_sklearn() -> None:
    script = "import sys, ctrlab.worker.main\nassert not {'torch', 'sklearn', 'streamlit'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])

"""State after a worker has ended, orderly or by kill -9 at any moment."""

import time

from ctrlab.services.jobs import cancel_job, get_job, worker_state
from ctrlab.services.workspace import Workspace
from tests.support.patience import PATIENCE
from tests.support.sample_handlers import CountConfig, UnresponsiveConfig
from tests.support.worker_support import (
    StartWorker,
    child_pids,
    counted,
    eventually,
    is_running,
    pid_of_attempt,
    submit,
    wait_for_end,
)


def test_a_killed_worker_ends_its_child_and_the_next_worker_continues_the_job(
    workspace: Workspace, start_worker: StartWorker
) -> None:
    first = start_worker()
    job_id = submit(workspace, "count", CountConfig(steps=15, wait_at=3))
    eventually(lambda: len(counted(workspace, job_id)) == 3)
    child = pid_of_attempt(workspace, job_id)
    first.kill()
    first.wait()
    eventually(lambda: not is_running(child))
    assert get_job(workspace, job_id).state == "queued"  # before another worker has started
    assert not worker_state(workspace).alive
    start_worker()
    assert wait_for_end(workspace, job_id) == "succeeded"
    lines = counted(workspace, job_id)
    assert {int(line.split()[0]) for line in lines} == set(range(15))
    assert len(lines) <= 16  # the last step before the kill may have lacked its checkpoint
    assert get_job(workspace, job_id).attempts == 2


def test_a_worker_killed_with_an_unresponsive_job_leaves_no_process_behind_and_its_job_can_be_cancelled_at_once(
    workspace: Workspace, start_worker: StartWorker
) -> None:
    worker = start_worker()
    job_id = submit(workspace, "unresponsive", UnresponsiveConfig(ignore_sigterm=True, with_helper=True))
    pids = child_pids(workspace, job_id)
    worker.kill()
    worker.wait()
    assert cancel_job(workspace, job_id).state == "cancelled"
    eventually(lambda: not any(map(is_running, pids)))


def test_sigterm_returns_the_job_to_the_queue_and_the_next_worker_continues(
    workspace: Workspace, start_worker: StartWorker
) -> None:
    worker = start_worker()
    job_id = submit(workspace, "count", CountConfig(steps=15, wait_at=3))
    eventually(lambda: len(counted(workspace, job_id)) == 3)
    child = pid_of_attempt(workspace, job_id)
    worker.terminate()
    assert worker.wait(timeout=PATIENCE) == 0
    assert workspace.store.jobs.get(job_id).state == "queued"
    assert workspace.store.workers.alive() == []
    assert not is_running(child)
    start_worker()
    assert wait_for_end(workspace, job_id) == "succeeded"
    assert {int(line.split()[0]) for line in counted(workspace, job_id)} == set(range(15))


def test_a_worker_exits_when_its_home_is_removed(workspace: Workspace, start_worker: StartWorker) -> None:
    worker = start_worker()
    workspace.home.rename(workspace.home.with_name("elsewhere"))
    assert worker.wait(timeout=PATIENCE) == 0


def test_concurrent_jobs_never_exceed_the_concurrency(workspace: Workspace, start_worker: StartWorker) -> None:
    start_worker("--concurrency", "2")
    job_ids = [submit(workspace, "count", CountConfig(steps=5, step_seconds=0.1)) for _ in range(3)]
    most = 0
    while any(workspace.store.jobs.get(job_id).active for job_id in job_ids):
        most = max(most, workspace.store.jobs.count("running"))
        time.sleep(0.02)
    assert most == 2
    assert {get_job(workspace, job_id).state for job_id in job_ids} == {"succeeded"}
    assert all(len(counted(workspace, job_id)) == 5 for job_id in job_ids)

"""The worker's loop over executors of the test: no process is started."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ctrlab.errors import ConfigError, StoreUnavailableError
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Job
from ctrlab.worker.main import run_worker
from ctrlab.worker.supervisor import Supervisor
from tests.support.worker_support import eventually


class FakeExecutor:
    """Runs nothing. code: its exit code, set by the test."""

    def __init__(self, *, dead: bool = False, ignores_sigterm: bool = False) -> None:
        self.name = "fake"
        self.job: Job | None = None
        self.code: int | None = None
        self.signals: list[signal.Signals] = []
        self.ended = False
        self._dead = dead
        self._ignores_sigterm = ignores_sigterm

    def give(self, job: Job) -> bool:
        if not self._dead:
            self.job = job
        return not self._dead

    def exit_code(self) -> int | None:
        return self.code

    def signal(self, number: signal.Signals) -> None:
        self.signals.append(number)
        if number == signal.SIGKILL or not self._ignores_sigterm:
            self.code = -number

    def end(self) -> None:
        self.ended = True


Make = Callable[[], FakeExecutor]


@contextmanager
def supervised(workspace: Workspace, make: Make = FakeExecutor, concurrency: int = 1) -> Iterator[list[FakeExecutor]]:
    """A supervisor in a thread; the executors that it started so far."""
    started: list[FakeExecutor] = []

    def start(*, background: bool) -> FakeExecutor:
        started.append(make())
        return started[-1]

    stop = threading.Event()
    thread = threading.Thread(target=Supervisor(workspace, start, concurrency, None, stop).run)
    thread.start()
    try:
        yield started
    finally:
        stop.set()
        thread.join()


def submit(workspace: Workspace) -> str:
    return workspace.store.jobs.submit("train", "Train", {}).id


def test_a_job_that_gives_way_goes_back_for_another_and_is_claimed_after_it(workspace: Workspace) -> None:
    jobs = workspace.store.jobs
    giving = jobs.submit("sensitivity", "Sensitivity", {}).id
    with supervised(workspace) as executors:
        eventually(lambda: state(workspace, giving) == "running")
        first = submit(workspace)
        eventually(lambda: state(workspace, first) == "running")
        assert state(workspace, giving) == "queued" and executors[0].ended
        second = submit(workspace)
        jobs.finish(jobs.get(first), "succeeded")
        running(executors)[0].code = 0
        eventually(lambda: state(workspace, second) == "running")
        assert state(workspace, giving) == "queued"
        jobs.finish(jobs.get(second), "succeeded")
        running(executors)[-1].code = 0
        eventually(lambda: state(workspace, giving) == "running")


def state(workspace: Workspace, job_id: str) -> str:
    return workspace.store.jobs.get(job_id).state


def running(executors: list[FakeExecutor]) -> list[FakeExecutor]:
    return [executor for executor in executors if executor.job is not None and executor.code is None]


@pytest.mark.parametrize(("code", "expected"), [(-9, "interrupted"), (3, "failed"), (0, "failed")])
def test_an_executor_that_ends_without_recording_the_end_gives_the_job_a_state(
    workspace: Workspace, code: int, expected: str
) -> None:
    job_id = submit(workspace)
    with supervised(workspace) as executors:
        eventually(lambda: running(executors))
        executors[0].code = code
        eventually(lambda: state(workspace, job_id) == expected)
        eventually(lambda: executors[0].ended)


def test_an_end_that_could_not_be_recorded_is_recorded_later_and_the_job_is_not_run_again(workspace: Workspace) -> None:
    job_id = submit(workspace)
    finish, refusals = workspace.store.jobs.finish, iter([True])

    def away_once(*arguments: Any, **named: Any) -> bool:
        if next(refusals, False):
            raise StoreUnavailableError("database is locked")
        return finish(*arguments, **named)

    workspace.store.jobs.finish = away_once  # type: ignore[method-assign]
    with supervised(workspace) as executors:
        eventually(lambda: running(executors))
        executors[0].code = 3
        eventually(lambda: state(workspace, job_id) != "running")
    assert (state(workspace, job_id), workspace.store.jobs.get(job_id).attempts) == ("failed", 1)


def test_a_job_given_to_a_dead_executor_runs_in_the_next_one(workspace: Workspace) -> None:
    dead = iter([True, False])
    job_id = submit(workspace)
    with supervised(workspace, lambda: FakeExecutor(dead=next(dead, False))) as executors:
        eventually(lambda: running(executors))
        assert [executor.ended for executor in executors[:2]] == [True, False]
        assert running(executors)[0].job == workspace.store.jobs.get(job_id)


def test_a_cancelled_job_is_terminated_and_where_that_does_not_help_killed(workspace: Workspace) -> None:
    job_id = submit(workspace)
    with supervised(workspace, lambda: FakeExecutor(ignores_sigterm=True)) as executors:
        eventually(lambda: running(executors))
        workspace.store.jobs.request_cancel(job_id)
        eventually(lambda: state(workspace, job_id) == "cancelled")
        assert executors[0].signals[0] == signal.SIGTERM
        assert executors[0].signals[-1] == signal.SIGKILL


def test_a_stopped_supervisor_returns_its_jobs_to_the_queue_and_leaves_the_registry(workspace: Workspace) -> None:
    job_id = submit(workspace)
    with supervised(workspace) as executors:
        eventually(lambda: running(executors))
        eventually(lambda: workspace.store.workers.alive())
    assert state(workspace, job_id) == "queued"
    assert workspace.store.workers.alive() == []
    assert all(executor.ended for executor in executors)


def test_as_many_jobs_run_at_once_as_the_concurrency_says(workspace: Workspace) -> None:
    for _ in range(3):
        submit(workspace)
    with supervised(workspace, concurrency=2) as executors:
        eventually(lambda: len(running(executors)) == 2)
        assert workspace.store.jobs.count("queued") == 1
        running(executors)[0].code = -9
        eventually(lambda: workspace.store.jobs.count("queued") == 0)
        assert len(running(executors)) == 2


def test_a_worker_of_no_jobs_at_once_is_refused(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="at least 1 job at a time, got 0"):
        run_worker(workspace, concurrency=0)

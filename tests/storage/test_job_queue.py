import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ctrlab.errors import StorageError, UnknownNameError
from ctrlab.storage import Job, Store
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]


def claimed(store: Store, title: str = "Train") -> Job:
    """A running job of a worker without a lock file here, as on another machine."""
    store.jobs.submit("train", title, {})
    job = store.jobs.claim("elsewhere-1")
    assert job is not None
    return job


def test_a_submitted_job_waits_with_its_config_and_folder(store: Store) -> None:
    job = store.jobs.submit("train", "Train DeepFM", {"epochs": 2})
    assert (job.kind, job.title, job.config, job.state) == ("train", "Train DeepFM", {"epochs": 2}, "queued")
    assert (job.progress, job.attempts, job.started_at, job.duration_seconds) == (0.0, 0, None, None)
    assert abs(datetime.now(UTC) - job.created_at) < timedelta(seconds=30)
    assert job.folder.is_dir()
    assert store.jobs.get(job.id) == job


def test_jobs_are_claimed_in_the_order_of_submission(store: Store) -> None:
    submitted = [store.jobs.submit("train", str(number), {}).id for number in range(3)]
    taken = [store.jobs.claim("w") for _ in range(4)]
    assert [job.id for job in taken if job] == submitted
    assert taken[3] is None


def test_one_job_can_be_claimed_by_name_and_only_once(store: Store) -> None:
    store.jobs.submit("train", "first", {})
    second = store.jobs.submit("train", "second", {})
    job = store.jobs.claim("w", second.id)
    assert job is not None
    assert (job.id, job.state, job.worker_id, job.attempts) == (second.id, "running", "w", 1)
    assert store.jobs.claim("w", second.id) is None


def test_four_processes_claim_hundreds_of_jobs_exactly_once(store: Store, store_url: str) -> None:
    submitted = {store.jobs.submit("train", str(number), {}).id for number in range(200)}
    script = (
        "import sys\nfrom pathlib import Path\nfrom ctrlab.storage import Store\n"
        "store = Store.open(Path(sys.argv[1]), sys.argv[2])\nprint('ready', flush=True)\nsys.stdin.readline()\n"
        "while store.jobs.count('queued'):\n    job = store.jobs.claim(sys.argv[3])\n    if job: print(job.id, flush=True)\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(store.home), store_url, f"w{number}"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(4)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=PATIENCE)[0].split() for process in processes]
    assert Counter(job_id for output in outputs for job_id in output) == Counter(submitted)
    assert all(job.attempts == 1 for job in store.jobs.list())


def test_reports_and_results_are_read_back(store: Store) -> None:
    job = claimed(store)
    assert store.jobs.report(job, 0.25, "epoch 1", 12.5) == (True, False)
    assert (now := store.jobs.get(job.id)).progress == 0.25
    assert (now.message, now.eta_seconds) == ("epoch 1", 12.5)
    assert store.jobs.finish(job, "succeeded", result={"model": "model-00000000"})
    ended = store.jobs.get(job.id)
    assert (ended.state, ended.progress, ended.result, ended.eta_seconds) == ("succeeded", 1.0, {"model": "model-00000000"}, None)
    assert ended.finished_at is not None
    assert ended.duration_seconds is not None
    assert not ended.active


def test_progress_is_kept_between_0_and_1(store: Store) -> None:
    job = claimed(store)
    store.jobs.report(job, 1.7, "")
    assert store.jobs.get(job.id).progress == 1.0
    store.jobs.report(job, -3, "")
    assert store.jobs.get(job.id).progress == 0.0


def test_lists_are_newest_first_and_filtered_by_state(store: Store) -> None:
    running = claimed(store)
    queued = store.jobs.submit("train", "later", {})
    assert [job.id for job in store.jobs.list()] == [queued.id, running.id]
    assert [job.id for job in store.jobs.list(limit=1)] == [queued.id]
    assert [job.id for job in store.jobs.list(states=["running"])] == [running.id]
    assert store.jobs.list(states=[]) == []
    assert store.jobs.count("queued") == 1


def test_an_unknown_job_is_refused(store: Store) -> None:
    for act in (store.jobs.get, store.jobs.request_cancel, store.jobs.retry):
        with pytest.raises(UnknownNameError, match="job-00000000"):
            act("job-00000000")


def test_cancelling_a_queued_job_ends_it_at_once(store: Store) -> None:
    job = store.jobs.request_cancel(store.jobs.submit("train", "Train", {}).id)
    assert job.state == "cancelled"
    assert job.finished_at is not None
    assert store.jobs.claim("w") is None


def test_cancelling_a_running_job_reaches_its_worker(store: Store) -> None:
    job = claimed(store)
    assert store.jobs.watch([job])[job.id] == (True, False)
    assert store.jobs.request_cancel(job.id).cancel_requested
    assert store.jobs.watch([job])[job.id] == (True, True)
    assert store.jobs.heartbeat([job])[job.id] == (True, True)
    assert store.jobs.report(job, 0.5, "") == (True, True)


def test_cancelling_an_ended_job_changes_nothing(store: Store) -> None:
    job = claimed(store)
    store.jobs.finish(job, "succeeded")
    assert store.jobs.request_cancel(job.id) == store.jobs.get(job.id)
    assert store.jobs.get(job.id).state == "succeeded"
    assert not store.jobs.get(job.id).cancel_requested


@pytest.mark.parametrize("state", ["failed", "cancelled", "interrupted"])
def test_retry_queues_the_same_job_behind_the_others(store: Store, state: str) -> None:
    job = claimed(store)
    (job.folder / "checkpoint").write_text("half way")
    store.jobs.request_cancel(job.id)
    store.jobs.finish(job, state, error="something")  # type: ignore[arg-type]
    waiting = store.jobs.submit("train", "waiting", {})
    again = store.jobs.retry(job.id)
    assert (again.state, again.error, again.cancel_requested, again.finished_at) == ("queued", None, False, None)
    assert (again.folder / "checkpoint").read_text() == "half way"
    taken = [store.jobs.claim("w"), store.jobs.claim("w")]
    assert [item.id for item in taken if item] == [waiting.id, job.id]
    assert taken[1] is not None
    assert taken[1].attempts == 2


def test_retry_refuses_a_job_that_runs_waits_or_succeeded(store: Store) -> None:
    job = claimed(store)
    with pytest.raises(StorageError, match="is running; only a job that is failed, cancelled, interrupted"):
        store.jobs.retry(job.id)
    store.jobs.finish(job, "succeeded")
    with pytest.raises(StorageError, match="is succeeded"):
        store.jobs.retry(job.id)
    with pytest.raises(StorageError, match="is queued"):
        store.jobs.retry(store.jobs.submit("train", "Train", {}).id)


def test_a_stale_attempt_can_neither_report_nor_end_the_job(store: Store) -> None:
    stale = claimed(store)
    assert store.jobs.release(stale)
    fresh = store.jobs.claim("elsewhere-1")
    assert fresh is not None
    assert not store.jobs.report(stale, 0.9, "stale").owned
    assert not store.jobs.finish(stale, "failed", error="stale")
    assert not store.jobs.release(stale)
    assert not store.jobs.heartbeat([stale])[stale.id].owned
    assert not store.jobs.watch([stale])[stale.id].owned
    assert store.jobs.get(fresh.id) == fresh


def test_a_released_job_keeps_its_place_in_the_queue(store: Store) -> None:
    job = claimed(store, "first")
    store.jobs.submit("train", "second", {})
    store.jobs.release(job)
    taken = store.jobs.claim("w")
    assert taken is not None
    assert taken.id == job.id


def test_releasing_a_job_with_a_cancel_request_cancels_it(store: Store) -> None:
    job = claimed(store)
    store.jobs.request_cancel(job.id)
    assert store.jobs.release(job)
    assert store.jobs.get(job.id).state == "cancelled"


class SetClock:
    """A clock that stands still until the test advances it."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 30, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def timed(store_url: str, tmp_path: Path, clock: SetClock) -> Iterator[Store]:
    """A store by the test's clock, with leases of 30 s."""
    store = Store.open(tmp_path / "home", store_url, lease_seconds=30, now=clock)
    yield store
    store.close()


def test_an_expired_lease_queues_the_job_and_a_third_one_interrupts_it(timed: Store, clock: SetClock) -> None:
    store = timed
    job_id = store.jobs.submit("train", "Train", {}).id
    ends = []
    for _ in range(3):
        assert store.jobs.claim("elsewhere-1") is not None
        clock.advance(31)
        ends += [job.state for job in store.jobs.reap_expired()]
    assert ends == ["queued", "queued", "interrupted"]
    assert "its worker died 3 times" in str(store.jobs.get(job_id).error)
    assert store.jobs.retry(job_id).state == "queued"
    assert store.jobs.claim("elsewhere-1") is not None
    clock.advance(31)
    assert [job.state for job in store.jobs.reap_expired()] == ["queued"]  # a retry resets the count


def test_an_expired_lease_ends_a_job_with_a_cancel_request(timed: Store, clock: SetClock) -> None:
    job = claimed(timed)
    timed.jobs.request_cancel(job.id)
    clock.advance(31)
    assert [reaped.state for reaped in timed.jobs.reap_expired()] == ["cancelled"]


def test_a_heartbeat_renews_the_lease_by_its_full_length(timed: Store, clock: SetClock) -> None:
    job = claimed(timed)
    clock.advance(20)
    timed.jobs.heartbeat([job])
    clock.advance(29)
    assert timed.jobs.reap_expired() == []
    assert timed.jobs.get(job.id).state == "running"
    clock.advance(2)
    assert [reaped.id for reaped in timed.jobs.reap_expired()] == [job.id]


def test_a_worker_of_another_machine_is_alive_until_30_seconds_after_its_heartbeat(timed: Store, clock: SetClock) -> None:
    timed.workers.heartbeat("elsewhere-1", 1)
    clock.advance(29)
    assert [worker.id for worker in timed.workers.alive()] == ["elsewhere-1"]
    clock.advance(2)
    assert timed.workers.alive() == []


def test_a_dead_worker_of_this_machine_is_detected_before_its_lease_ends(store: Store) -> None:
    worker_id = store.workers.new_id()
    lock = store.workers.hold(worker_id)
    store.workers.heartbeat(worker_id, 1)
    store.jobs.submit("train", "Train", {})
    job = store.jobs.claim(worker_id)
    assert job is not None
    assert store.jobs.reap_expired() == []
    assert [worker.id for worker in store.workers.alive()] == [worker_id]
    lock.release()  # what the kernel does when the process dies
    assert store.workers.alive() == []
    assert [reaped.state for reaped in store.jobs.reap_expired()] == ["queued"]


def test_dead_workers_are_removed_only_after_their_jobs_were_taken_over(store: Store) -> None:
    worker_id = store.workers.new_id()
    store.workers.hold(worker_id).release()
    store.jobs.submit("train", "Train", {})
    store.jobs.claim(worker_id)
    store.workers.forget_dead()
    assert store.workers.is_known_dead(worker_id)
    store.jobs.reap_expired()
    store.workers.forget_dead()
    assert not store.workers.is_known_dead(worker_id)

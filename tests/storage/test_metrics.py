import math

import pytest

from ctrlab.storage import Job, MetricRow, Store


@pytest.fixture
def job(store: Store) -> Job:
    return store.jobs.submit("train", "Train", {})


def test_points_come_back_by_step_and_name(store: Store, job: Job) -> None:
    store.metrics.append(job.id, [MetricRow(2, "loss", 0.4), MetricRow(1, "loss", 0.5), MetricRow(1, "auc", 0.7)])
    assert store.metrics.read(job.id) == [MetricRow(1, "auc", 0.7), MetricRow(1, "loss", 0.5), MetricRow(2, "loss", 0.4)]
    assert store.metrics.read(job.id, since_step=1) == [MetricRow(2, "loss", 0.4)]


def test_a_point_written_again_replaces_the_earlier_even_in_one_batch(store: Store, job: Job) -> None:
    store.metrics.append(job.id, [MetricRow(1, "loss", 0.5)])
    store.metrics.append(job.id, [MetricRow(1, "loss", 0.6), MetricRow(1, "loss", 0.7)])
    assert store.metrics.read(job.id) == [MetricRow(1, "loss", 0.7)]


def test_jobs_do_not_see_each_other(store: Store, job: Job) -> None:
    other = store.jobs.submit("train", "Train", {})
    store.metrics.append(other.id, [MetricRow(1, "loss", 0.5)])
    assert store.metrics.read(job.id) == []


def test_nan_and_infinity_are_kept(store: Store, job: Job) -> None:
    store.metrics.append(job.id, [MetricRow(1, "loss", math.nan), MetricRow(2, "loss", math.inf)])
    first, second = (row.value for row in store.metrics.read(job.id))
    assert math.isnan(first)
    assert second == math.inf


def test_an_empty_batch_is_harmless(store: Store, job: Job) -> None:
    store.metrics.append(job.id, [])
    assert store.metrics.read(job.id) == []

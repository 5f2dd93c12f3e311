"""Segments as a job: found again, in words, refused where there is nothing to compare."""

import pytest

from ctrlab.errors import ConfigError
from ctrlab.services.models import TrainConfig
from ctrlab.services.segments import SegmentsConfig, latest_segments, moved_table, segments_table, submit_segments
from ctrlab.training.configs import FitConfig


def test_segments_and_moved_rows_are_stored_with_the_texts_of_the_raw_table(small_lab):
    lab, original = small_lab.lab, small_lab.model
    worse = lab.compress(original.id, ranks={"mlp.0": 1, "mlp.2": 1, "embedding.*": 1})
    found = lab.segments(worse.id, original.id, rows=5)
    assert latest_segments(lab.workspace, worse.id, original.id).id == found.id
    assert latest_segments(lab.workspace, original.id, worse.id) is None
    table, moved = segments_table(found), moved_table(found)
    assert len(table) == found.summary["num_segments"] > 0 and found.summary["left_out"] > 0  # 300 rows: tenths have few clicks
    assert table["log_loss_change_low"].is_monotonic_decreasing
    assert len(moved) == 5 and moved["ad"].str.fullmatch(r"a\d+|missing|not in training").all()
    gaps = (moved["after"] - moved["before"]).abs()
    assert gaps.is_monotonic_decreasing and set(moved["click"]) <= {0.0, 1.0}


def test_models_that_cannot_be_compared_by_rows_are_refused_in_a_sentence(small_lab):
    lab, original = small_lab.lab, small_lab.model
    with pytest.raises(ConfigError, match="compared with itself"):
        submit_segments(lab.workspace, SegmentsConfig(model_id=original.id, reference_id=original.id))
    fit = FitConfig(batch_size=256, epochs=1)
    config = TrainConfig(dataset_id=small_lab.dataset.id, architecture="lr", fit=fit)
    other = lab.train(config)
    for evaluation in lab.workspace.store.artifacts.list(kind="evaluation", parent=other.id):
        lab.workspace.store.artifacts.delete(evaluation.id)
    with pytest.raises(ConfigError, match="has no stored scores; measure it first"):
        submit_segments(lab.workspace, SegmentsConfig(model_id=other.id, reference_id=original.id))

"""Segments against a brute force over rows, with scikit-learn's AUC."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from ctrlab.evaluation.segments import FREQUENCIES, Segment, moved_rows, probabilities, segment_changes, segments_of


@pytest.fixture(scope="module")
def rows():
    """3000 rows of two fields; the model is worse where the first field is 2, and as good elsewhere."""
    random = np.random.default_rng(0)
    ids = np.stack([random.integers(0, 5, 3000), random.zipf(1.6, 3000) % 50], axis=1).astype(np.int32)
    reference = random.normal(size=3000).astype(np.float32)
    clicks = (random.random(3000) < probabilities(reference)).astype(np.float32)
    logits = np.where(ids[:, 0] == 2, random.normal(size=3000), reference).astype(np.float32)
    counts = [np.bincount(ids[:, field], minlength=50).astype(np.int64) for field in (0, 1)]
    return ids, reference, clicks, logits, counts


def test_the_segment_where_a_model_is_worse_comes_first_with_the_numbers_of_its_rows(rows):
    ids, reference, clicks, logits, counts = rows
    found = segments_of(ids, ("site", "ad"), counts.__getitem__, reference)
    changes, left_out = segment_changes(clicks, logits, reference, found)
    first = changes[0]
    assert first.segment == Segment("value", "site", 2) and left_out > 0
    mask = ids[:, 0] == 2
    assert (first.rows, first.clicks) == (mask.sum(), clicks[mask].sum())
    assert first.auc == pytest.approx(roc_auc_score(clicks[mask], logits[mask]), abs=1e-12)
    assert first.auc_change.estimate == pytest.approx(first.auc - roc_auc_score(clicks[mask], reference[mask]), abs=1e-12)
    rise = log_loss(clicks[mask], probabilities(logits[mask])) - log_loss(clicks[mask], probabilities(reference[mask]))
    assert first.log_loss_change.estimate == pytest.approx(rise, rel=1e-6) and first.share == pytest.approx(1.0, abs=1e-6)
    assert first.auc_change.high < 0 < first.log_loss_change.low
    unchanged = next(change for change in changes if change.segment == Segment("value", "site", 1))
    assert unchanged.auc_change.estimate == 0 and unchanged.log_loss_change.low == 0
    assert first.auc_change.level > 0.95  # intervals hold for all segments together


def test_tenths_of_scores_and_frequencies_part_the_rows(rows):
    ids, reference, _, _, counts = rows
    found = list(segments_of(ids, ("site", "ad"), counts.__getitem__, reference))
    tenths = [mine for segment, mine in found if segment.kind == "score"]
    assert sorted(np.concatenate(tenths)) == list(range(3000))
    assert reference[tenths[0]].max() <= reference[tenths[1]].min()
    for segment, mine in found:
        if segment.kind == "frequency":
            assert segment.field == "ad"  # every site is frequent, so its frequencies part nothing
            seen = counts[1][ids[mine, 1]]
            assert (np.searchsorted(FREQUENCIES, seen, side="right") == segment.value).all()


def test_moved_rows_are_those_of_a_sort(rows):
    _, reference, _, logits, _ = rows
    moved = np.abs(probabilities(logits) - probabilities(reference))
    assert moved[moved_rows(logits, reference, 7)].tolist() == sorted(moved, reverse=True)[:7]
    assert len(moved_rows(logits[:3], reference[:3], 7)) == 3 and len(moved_rows(logits[:0], reference[:0])) == 0

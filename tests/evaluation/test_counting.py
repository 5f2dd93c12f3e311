"""evaluation/counting.py, the compiled passes for many rows, against scikit-learn and against the passes for few."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as oracle

from ctrlab.evaluation import counting, metrics
from ctrlab.evaluation.counting import counted_auc, loss_sums
from ctrlab.evaluation.metrics import sigmoid


@st.composite
def labelled_scores(draw):
    """At least one row of each class; few distinct scores, scores of any size, or infinities, in both precisions."""
    n, dtype = draw(st.integers(2, 80)), draw(st.sampled_from([np.float32, np.float64]))
    clicked = draw(arrays(np.bool_, n))
    clicked[0], clicked[1] = False, True
    grid = st.integers(-3, 3).map(float)
    any_size = st.floats(allow_nan=False, width=32)
    return clicked, draw(arrays(dtype, n, elements=draw(st.sampled_from([grid, any_size, st.floats(-20, 20, width=32)]))))


@settings(deadline=None, max_examples=80)
@given(labelled_scores(), st.integers(1, 3))
def test_counted_auc_is_the_share_of_pairs_in_order_with_ties_as_half(rows, threads):
    clicked, scores = rows
    positive, negative = scores[clicked][:, None], scores[~clicked][None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "num_threads", lambda: threads)
        found = counted_auc(clicked, scores)
    assert found == pytest.approx(np.mean((positive > negative) + 0.5 * (positive == negative)), abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["spread", "many ties", "all equal", "one far away", "two heaps", "sorted"])
def test_many_rows_agree_with_scikit_learn(kind, dtype):
    random = np.random.default_rng(3)
    normal = random.standard_normal(50_000) * 2 - 1
    logits = {
        "spread": normal,
        "many ties": normal.round(1),
        "all equal": np.full(50_000, -0.3),
        "one far away": np.where(np.arange(50_000) == 7, 600.0, normal),
        "two heaps": np.where(normal > 0, 12 + normal * 1e-4, normal * 1e-4 - 12),
        "sorted": np.sort(normal),
    }[kind].astype(dtype)
    labels = (random.random(50_000) < sigmoid(logits.clip(-2, 2))).astype(np.uint8)
    assert counted_auc(labels == 1, logits) == pytest.approx(oracle.roc_auc_score(labels, logits), abs=1e-12)
    sums = loss_sums(labels == 1, logits, 20)
    if kind != "one far away":  # scikit-learn's own probabilities end at 1 - 1e-16
        assert sums.loss / 50_000 == pytest.approx(oracle.log_loss(labels, sigmoid(logits)), rel=1e-10)
    assert sums.loss / 50_000 == pytest.approx(metrics.log_loss(labels, logits), rel=1e-12)


def test_the_metrics_of_many_rows_are_those_of_few(monkeypatch):
    random = np.random.default_rng(5)
    logits = (random.standard_normal(140_000) * 3).astype(np.float32)
    logits[:4] = [120, -120, 0, 0]
    labels = random.integers(0, 2, 140_000)
    few = metrics.metrics_of(labels, logits)
    monkeypatch.setattr(metrics, "MANY_ROWS", 1000)
    many = metrics.metrics_of(labels, logits)
    assert many.to_dict() == pytest.approx(few.to_dict(), rel=1e-12)
    assert metrics.auc(labels, logits) == many.auc
    assert metrics.log_loss(labels, logits) == many.log_loss


def test_neither_auc_nor_losses_depend_on_the_number_of_threads(monkeypatch):
    random = np.random.default_rng(6)
    logits, clicked = random.standard_normal(200_000), random.random(200_000) < 0.2
    found = set()
    for threads in (1, 2, 3):
        monkeypatch.setattr(counting, "num_threads", lambda threads=threads: threads)
        found.add((counted_auc(clicked, logits), loss_sums(clicked, logits, 20).loss))
    assert len(found) == 1


def test_few_rows_do_not_import_the_compiler():
    script = (
        "import sys, numpy as np\nfrom ctrlab.evaluation.metrics import metrics_of\n"
        "metrics_of(np.arange(1000) % 2, np.linspace(-1, 1, 1000, dtype=np.float32))\nassert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)

"""Training on soft labels and weighted rows is training on the table in which every row is repeated by its weights."""

import numpy as np
import pytest
import torch

from ctrlab.data.batches import iterate_batches
from ctrlab.data.dataset import Split
from ctrlab.engines.choose import engine_for
from ctrlab.engines.plain import TorchEngine
from ctrlab.evaluation.prediction import evaluate_model, predict_logits
from ctrlab.training.configs import FitConfig
from ctrlab.training.loop import fit
from tests.support.small_models import MemoryDataset, make_model


def counted(split, seed):
    """The rows of a split as impressions and clicks, and the same as repeated rows."""
    rng = np.random.default_rng(seed)
    impressions = rng.integers(1, 6, len(split))
    clicks = rng.binomial(impressions, np.where(split.labels == 1, 0.7, 0.2))
    shares = (clicks / impressions).astype(np.float32)
    rows = Split(split.name, split.ids, split.values, shares, split.lists, impressions.astype(np.float32))
    index = np.repeat(np.arange(len(split)), impressions)
    first = np.concatenate([np.arange(count) for count in impressions])
    labels = (first < clicks[index]).astype(np.uint8)
    return rows, Split(split.name, split.ids[index], split.values[index], labels, split.lists[index])


@pytest.fixture(scope="module")
def tables():
    """The weighted table and the repeated one, as datasets."""
    pair = MemoryDataset(num_train=400), MemoryDataset(num_train=400)
    for number, name in enumerate(("train", "valid")):
        for dataset, split in zip(pair, counted(pair[0].split(name), number), strict=True):
            dataset.parts = dataset.parts | {name: split}
    return pair


@pytest.mark.parametrize("engine", [engine_for, TorchEngine], ids=["fast", "torch"])
def test_a_fit_on_weighted_rows_is_that_on_repeated_rows(tables, engine):
    # One batch an epoch: of several, the repeated rows fall into other ones.
    config = FitConfig(
        epochs=6,
        batch_size=65536,
        learning_rate=0.01,
        evaluations_per_epoch=1,
        patience=0,
        plateau_factor=1.0,
        monitor="log_loss",
    )
    model = make_model("deepfm", embed_dim=4, mlp_dims=(8,))
    weighted, repeated = (fit(model, table, config, engine=engine) for table in tables)
    assert weighted.steps == repeated.steps == 6
    for ours, theirs in zip(weighted.history, repeated.history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    rows = tables[0].split("valid")
    ours, theirs = (predict_logits(found.model, rows) for found in (weighted, repeated))
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    before = evaluate_model(model, rows)
    assert evaluate_model(weighted.model, rows).log_loss < before.log_loss
    assert not np.allclose(ours, predict_logits(model, rows), atol=0.05)


def test_shuffled_batches_keep_each_rows_label_and_weight_together(tables):
    rows = tables[0].split("train")
    wanted = {(tuple(ids), *target) for ids, target in zip(rows.ids.tolist(), rows.targets().tolist(), strict=True)}
    seen, total = set(), 0
    for fields, labels in iterate_batches(rows, 64, shuffle=True, seed=3):
        assert labels.shape == (len(fields.ids), 2) and labels.dtype == np.float32
        seen |= {(tuple(ids), *target) for ids, target in zip(fields.ids.tolist(), labels.tolist(), strict=True)}
        total += len(labels)
    assert seen == wanted and total == len(rows)


def test_a_soft_label_without_weights_counts_each_row_once():
    shares = np.array([0.25, 1.0, 0.0], np.float32)
    rows = Split("train", np.zeros((3, 1), np.int32), np.zeros((3, 0), np.float32), shares)
    ((_, labels),) = iterate_batches(rows, 8, shuffle=False)
    np.testing.assert_array_equal(labels, [[0.25, 0.75], [1, 0], [0, 1]])
    assert torch.from_numpy(labels).sum() == 3

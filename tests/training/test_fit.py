"""training/loop.py: learning, choosing the best, stopping, cancelling, and going on after a kill."""

import hashlib
import json
import math
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ctrlab.data.dataset import Split
from ctrlab.data.schema import FeatureSchema
from ctrlab.engines.denormals import are_flushed
from ctrlab.engines.fast.engine import FastEngine
from ctrlab.engines.plain import TorchEngine
from ctrlab.errors import ConfigError, DataError, JobCancelled, StorageError
from ctrlab.evaluation.prediction import evaluate_model, predict_logits
from ctrlab.models.base import build_model
from ctrlab.models.checkpoint import load_tensors
from ctrlab.models.configs import DeepFMConfig
from ctrlab.training.configs import FitConfig
from ctrlab.training.loop import fit
from tests.support.engines import library
from tests.support.patience import PATIENCE
from tests.support.small_models import SCHEMA, MemoryDataset, make_model

CONFIG = FitConfig(
    epochs=2, batch_size=100, learning_rate=0.01, evaluations_per_epoch=3, monitor="auc", patience=0, plateau_factor=1.0
)
SETTINGS = {"embed_dim": 4, "mlp_dims": (16,), "dropout": 0.2, "batch_norm": True}


def fresh(seed=0, **settings):
    torch.manual_seed(seed)
    return build_model(DeepFMConfig(**(SETTINGS | settings)), SCHEMA)


@pytest.fixture(scope="module")
def data():
    return MemoryDataset(num_train=1150)


def without(dataset, *names):
    """The dataset without some of its splits."""
    part = MemoryDataset(num_train=10)
    part.parts = {name: split for name, split in dataset.parts.items() if name not in names}
    return part


def assert_same(first, second):
    """Same weights, history and best, bit for bit."""
    for key, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[key]), key
    for fact in ("history", "best_step", "best_auc", "steps", "stopped_early"):
        assert getattr(first, fact) == getattr(second, fact), fact


class Killed(BaseException):
    """Ends a fit where a kill might."""


def interrupted(data, config, path, at_step, model=None, **others):
    """Run a fit that writes its state after every step and dies at `at_step`."""

    def die(progress):
        if progress.step >= at_step:
            raise Killed

    settings = {"report_seconds": 0.0, "checkpoint_path": path, "checkpoint_seconds": 0.0}
    with pytest.raises(Killed):
        fit(model or fresh(), data, config, on_step=die, **settings, **others)


def test_the_best_is_by_log_loss_where_that_is_monitored(data):
    chosen = []
    for rate in (0.01, 0.03, 0.1, 0.3):
        config = CONFIG.replace(epochs=4, learning_rate=rate)
        result, by_auc = fit(fresh(), data, config.replace(monitor="log_loss")), fit(fresh(), data, config)
        losses = {row["step"]: row["valid_log_loss"] for row in result.history}
        assert result.best_step == min(losses, key=losses.get) and by_auc.history == result.history
        assert evaluate_model(result.model, data.split("valid")).log_loss == losses[result.best_step]
        chosen.append((result.best_step, by_auc.best_step))
    assert any(by_log_loss != by_auc for by_log_loss, by_auc in chosen)


def test_the_step_size_warms_up_evenly_and_resumes_where_it_was(data, tmp_path):
    config = CONFIG.replace(warmup_steps=4, learning_rate=0.008)
    rates, whole = rates_of(data, fresh(), config)
    assert [table for table, _ in rates[:5]] == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.008])
    interrupted(data, config, tmp_path / "fit.safetensors", 2)
    resumed = fit(fresh(), data, config, checkpoint_path=tmp_path / "fit.safetensors")
    assert_same(whole, resumed)


def test_distillation_asks_for_the_teachers_probabilities_and_leaves_the_teacher_alone(data):
    teacher = fit(fresh(), data, CONFIG).model
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    config = CONFIG.replace(epochs=6, patience=0, seed=3)
    pupils = {share: fit(fresh(seed=9), data, config.replace(distillation=share), teacher=teacher) for share in (0.0, 1.0)}
    wanted = predict_logits(teacher, data.split("train"))
    gaps = {share: np.abs(predict_logits(pupil.model, data.split("train")) - wanted).mean() for share, pupil in pupils.items()}
    assert gaps[1.0] < 0.7 * gaps[0.0]
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items()) and not teacher.training
    assert_same(pupils[0.0], fit(fresh(seed=9), data, config))
    with pytest.raises(ConfigError, match="needs a teacher"):
        fit(fresh(), data, CONFIG.replace(distillation=0.5))


def test_training_learns_and_returns_the_best_by_validation(data):
    result = fit(fresh(), data, CONFIG)
    aucs = {row["step"]: row["valid_auc"] for row in result.history}
    assert max(aucs.values()) > 0.6
    assert result.best_step == max(aucs, key=aucs.get)
    assert result.best_auc == aucs[result.best_step]
    assert evaluate_model(result.model, data.split("valid")).auc == result.best_auc
    assert not result.model.training
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]


def test_the_given_model_and_the_random_numbers_stay_as_they_were(data):
    model = fresh()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(3)
    fit(model, data, CONFIG.replace(epochs=1))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    drawn = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(2))


def test_a_seed_fixes_everything_and_another_changes_it(data):
    first, again, other = (fit(fresh(), data, CONFIG.replace(seed=seed)) for seed in (1, 1, 2))
    assert_same(first, again)
    assert first.history != other.history


def test_history_has_a_row_an_evaluation_and_each_epoch_ends_with_one(data):
    history = fit(fresh(), data, CONFIG).history
    # 12 steps an epoch (the last of 50 rows), three evaluations each.
    assert [row["step"] for row in history] == [4, 8, 12, 16, 20, 24]
    assert [row["epoch"] for row in history] == [0, 0, 0, 1, 1, 1]
    assert json.loads(json.dumps(history)) == history


def test_more_evaluations_than_steps_are_one_a_step(data):
    history = fit(fresh(), data, CONFIG.replace(epochs=1, batch_size=600, evaluations_per_epoch=9)).history
    assert [row["step"] for row in history] == [1, 2]


@pytest.mark.parametrize("engine", [FastEngine, TorchEngine])
@pytest.mark.parametrize("at_step", [1, 4, 12, 13, 23])
def test_a_killed_and_resumed_fit_equals_an_uninterrupted_one_bit_for_bit(data, tmp_path, at_step, engine):
    # Each optimizer with each engine and, over both engines, at every step.
    config = CONFIG.replace(optimizer="adam" if (engine is FastEngine) == (at_step in (1, 12, 23)) else "lazy_adam")
    path = tmp_path / "fit.safetensors"
    interrupted(data, config, path, at_step, engine=engine)
    steps = []
    resumed = fit(fresh(), data, config, on_step=lambda p: steps.append(p.step), checkpoint_path=path, engine=engine)
    assert_same(resumed, fit(fresh(), data, config, engine=engine))
    assert min(steps) >= at_step  # it did go on, and did not start over


def timed(name):
    """Engines that time matrix products by a clock that favours one library."""
    return lambda model, settings: FastEngine(model, settings, products=library(name, settings.choices))


def test_a_resumed_timed_fit_repeats_the_choices_of_the_interrupted_one(data, tmp_path):
    """The libraries' sums differ in the last bit, and which one is faster differs from day to day."""
    path, config = tmp_path / "fit.safetensors", CONFIG.replace(epochs=1, matrix_products="timed")
    whole = fit(fresh(), data, config, engine=timed("mkl"))
    interrupted(data, config, path, 7, engine=timed("mkl"))
    assert_same(whole, fit(fresh(), data, config, checkpoint_path=path, engine=timed("onednn")))


def test_the_record_of_a_timed_fit_repeats_it(data):
    config = CONFIG.replace(epochs=1, matrix_products="timed")
    first = fit(fresh(), data, config, engine=timed("onednn"))
    assert first.matrix_choices and all(choice.endswith("=onednn") for choice in first.matrix_choices)
    repeated = config.replace(matrix_choices=first.summary()["matrix_choices"])
    assert_same(first, fit(fresh(), data, repeated, engine=timed("mkl")))


def fingerprint_of_a_fit():
    """Digest of the weights and the choices of libraries, at sizes at which the two matrix libraries compete."""
    result = fit(
        fresh(mlp_dims=(400, 400), embed_dim=16), MemoryDataset(num_train=4000), CONFIG.replace(epochs=1, batch_size=1024)
    )
    digest = hashlib.sha256()
    for tensor in result.model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return f"{digest.hexdigest()} {result.matrix_choices}"


def test_one_seed_gives_one_model_in_two_processes():
    """Bit for bit, in this process and in a new one."""
    code = "from tests.training import test_fit; print(test_fit.fingerprint_of_a_fit())"
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert other == fingerprint_of_a_fit() and other.endswith("()")


def test_fit_leaves_threads_and_settings_as_it_found_them(data):
    threads, denormals = {thread.name for thread in threading.enumerate()}, are_flushed()
    fit(fresh(), data, CONFIG.replace(epochs=1))
    assert {thread.name for thread in threading.enumerate()} <= threads and are_flushed() == denormals


def test_bfloat16_trains_about_as_well_and_keeps_float32_weights(data):
    full, low = (fit(fresh(), data, CONFIG.replace(compute_dtype=dtype)) for dtype in ("float32", "bfloat16"))
    assert low.best_auc == pytest.approx(full.best_auc, abs=0.02)
    assert {parameter.dtype for parameter in low.model.parameters()} == {torch.float32}
    assert not torch.equal(low.model.mlp[0].weight, full.model.mlp[0].weight)


def test_a_fit_may_be_killed_many_times(data, tmp_path):
    path = tmp_path / "fit.safetensors"
    config = CONFIG.replace(keep_initial=True)
    for at_step in (2, 3, 9, 17, 24):
        interrupted(data, config, path, at_step)
    resumed = fit(fresh(), data, config, checkpoint_path=path)
    assert_same(resumed, fit(fresh(), data, config))
    assert resumed.seconds > 0


def test_a_finished_fit_returns_at_once_with_the_same_result(data, tmp_path):
    path = tmp_path / "deep" / "fit.safetensors"
    first = fit(fresh(), data, CONFIG, checkpoint_path=path)
    calls = []
    again = fit(fresh(), data, CONFIG, checkpoint_path=path, on_step=calls.append)
    assert_same(first, again)
    assert calls == []
    assert sorted(file.name for file in path.parent.iterdir()) == [f"fit.best-{first.best_step}.safetensors", "fit.safetensors"]


def test_the_saved_state_is_safetensors_and_never_pickle(data, tmp_path):
    path = tmp_path / "fit.safetensors"
    fit(fresh(), data, CONFIG.replace(epochs=1), checkpoint_path=path)
    for file in tmp_path.iterdir():
        assert load_tensors(file)
        assert file.read_bytes()[8:9] == b"{"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda: (fresh(), CONFIG.replace(learning_rate=0.02)), "configuration"),
        (lambda: (fresh(seed=1), CONFIG), "model"),
        (lambda: (fresh(mlp_dims=(8,)), CONFIG), "model"),
    ],
)
def test_the_state_of_another_fit_is_refused(data, tmp_path, change, what):
    path = tmp_path / "fit.safetensors"
    interrupted(data, CONFIG, path, 3)
    model, config = change()
    with pytest.raises(StorageError, match=f"a training of another {what}"):
        fit(model, data, config, checkpoint_path=path)


def test_the_state_of_other_data_is_refused(data, tmp_path):
    path = tmp_path / "fit.safetensors"
    interrupted(data, CONFIG, path, 3)
    with pytest.raises(StorageError, match="another dataset"):
        fit(fresh(), MemoryDataset(num_train=900), CONFIG, checkpoint_path=path)


def test_a_damaged_state_is_refused_and_a_half_written_one_is_not_seen(data, tmp_path):
    path = tmp_path / "fit.safetensors"
    interrupted(data, CONFIG, path, 5)
    (tmp_path / ".fit.safetensors.part").write_bytes(b"half of the next state")
    assert_same(fit(fresh(), data, CONFIG, checkpoint_path=path), fit(fresh(), data, CONFIG))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(StorageError, match="truncated or damaged"):
        fit(fresh(), data, CONFIG, checkpoint_path=path)


def test_best_weights_left_by_an_earlier_fit_are_not_taken(data, tmp_path):
    path = tmp_path / "fit.safetensors"
    fit(fresh(seed=1), data, CONFIG, checkpoint_path=path)
    path.unlink()
    first = fit(fresh(), data, CONFIG, checkpoint_path=path)
    assert_same(fit(fresh(), data, CONFIG, checkpoint_path=path), first)
    assert_same(first, fit(fresh(), data, CONFIG))


def test_step_0_is_the_best_when_training_only_harms(data):
    good = fit(fresh(), data, CONFIG).model
    harmful = CONFIG.replace(epochs=1, learning_rate=0.5, keep_initial=True)
    result = fit(good, data, harmful)
    assert result.history[0]["step"] == 0
    assert result.history[0]["train_loss"] is None
    assert result.best_step == 0
    assert all(torch.equal(value, good.state_dict()[key]) for key, value in result.model.state_dict().items())
    assert fit(good, data, harmful.replace(keep_initial=False)).best_step > 0


def test_early_stopping_waits_for_patience_evaluations(data):
    good = fit(fresh(), data, CONFIG).model
    config = CONFIG.replace(epochs=5, learning_rate=0.5, keep_initial=True, patience=2)
    result = fit(good, data, config)
    aucs = [row["valid_auc"] for row in result.history]
    assert result.stopped_early
    assert len(aucs) - 1 - aucs.index(max(aucs)) == 2
    assert result.steps == result.history[-1]["step"]


class Recording(FastEngine):
    """Notes the step size of every step, once for tables and once for everything else."""

    def __init__(self, model, settings):
        super().__init__(model, settings)
        self.rates = []

    def step(self):
        self.rates.append(self.optimizer.learning_rates)
        super().step()


def rates_of(data, model, config):
    """(the step sizes of every step, the result)."""
    engines = []
    result = fit(model, data, config, engine=lambda *given: engines.append(Recording(*given)) or engines[0])
    return engines[0].rates, result


def test_the_step_size_falls_after_every_evaluation_that_is_not_better(data):
    config = CONFIG.replace(epochs=4, learning_rate=0.1, plateau_factor=0.1)
    rates, result = rates_of(data, fresh(), config)
    best, rate, expected, done = -1.0, 0.1, [], 0
    for row in result.history:
        expected += [rate] * (row["step"] - done)
        rate = rate if row["valid_auc"] > best else max(0.1 * rate, 1e-6)
        best, done = max(best, row["valid_auc"]), row["step"]
    assert len(set(expected)) > 2
    assert [table for table, _ in rates] == pytest.approx(expected)
    assert [dense for _, dense in rates] == pytest.approx(expected)


def test_without_a_factor_the_step_size_stays(data):
    rates, _ = rates_of(data, fresh(), CONFIG.replace(learning_rate=0.5))
    assert set(rates) == {(0.5, 0.5)}


@pytest.mark.parametrize("optimizer", ["lazy_adam", "adam"])
def test_a_fit_killed_on_a_plateau_goes_on_bit_for_bit(data, tmp_path, optimizer):
    config = CONFIG.replace(epochs=4, learning_rate=0.1, plateau_factor=0.3, optimizer=optimizer)
    whole = fit(fresh(), data, config)
    aucs = [row["valid_auc"] for row in whole.history]
    plateau = next(row["step"] for row, auc in zip(whole.history[1:], aucs, strict=False) if row["valid_auc"] < auc)
    interrupted(data, config, tmp_path / "fit.safetensors", plateau + 1)
    assert_same(fit(fresh(), data, config, checkpoint_path=tmp_path / "fit.safetensors"), whole)


def test_an_early_stop_stays_stopped_after_a_resume(data, tmp_path):
    good = fit(fresh(), data, CONFIG).model
    config = CONFIG.replace(epochs=5, learning_rate=0.5, keep_initial=True, patience=2)
    whole = fit(good, data, config)
    for at_step in (whole.steps - 1, whole.steps):
        path = tmp_path / f"{at_step}.safetensors"
        interrupted(data, config, path, at_step, good)
        assert_same(fit(good, data, config, checkpoint_path=path), whole)


def test_a_killed_process_leaves_a_state_that_goes_on(tmp_path):
    """A real `kill -9` at an arbitrary moment of a process that writes all the time."""
    path = tmp_path / "fit.safetensors"
    code = (
        "import sys, pathlib; from tests.training import test_fit as t;"
        "t.fit(t.fresh(), t.MemoryDataset(num_train=1150), t.CONFIG.replace(epochs=500),"
        "checkpoint_path=pathlib.Path(sys.argv[1]), checkpoint_seconds=0.0)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, path], cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + PATIENCE
        while not path.exists():
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    steps = []

    def stop():
        return len(steps) > 0

    with pytest.raises(JobCancelled):
        fit(
            fresh(), MemoryDataset(num_train=1150), CONFIG.replace(epochs=500),
            checkpoint_path=path, on_step=lambda p: steps.append(p.step), should_stop=stop,
        )  # fmt: skip
    assert steps[0] > 1


def test_progress_rises_to_one_with_a_rate_and_an_end_in_sight(data):
    seen = []
    result = fit(fresh(), data, CONFIG, on_step=seen.append, report_seconds=0.0)
    assert [p.step for p in seen] == list(range(1, 25))
    assert [p.fraction for p in seen] == sorted(p.fraction for p in seen)
    assert seen[-1].fraction == 1.0
    assert seen[-1].eta_seconds == 0
    assert all(p.total_steps == 24 and p.rows_per_second > 0 and p.eta_seconds >= 0 and p.train_loss > 0 for p in seen)
    assert [p.step for p in seen if p.valid_auc is not None] == [row["step"] for row in result.history]
    assert result.rows_per_second > 0
    assert result.summary()["best_step"] == result.best_step
    assert json.loads(json.dumps(result.summary()))["steps"] == 24


def test_reports_are_rare_but_every_evaluation_is_reported(data):
    seen = []
    fit(fresh(), data, CONFIG, on_step=seen.append, report_seconds=1e9)
    assert [p.step for p in seen if p.valid_auc is None] in ([], [1])
    assert len([p for p in seen if p.valid_auc is not None]) == 6


def test_without_validation_rows_the_last_weights_are_returned(data):
    result = fit(fresh(), without(data, "valid"), CONFIG.replace(keep_initial=True, patience=1))
    assert (result.steps, result.best_step, result.best_auc) == (24, 24, None)
    assert {row["valid_auc"] for row in result.history} == {None}


def test_a_last_batch_of_one_row_is_left_out_for_batch_normalisation():
    data = MemoryDataset(num_train=301)
    assert fit(fresh(), data, CONFIG.replace(epochs=1)).steps == 3


def test_rows_kept_aside_are_trained_on_when_asked_for(data):
    aside = without(data)
    aside.parts["finetune"] = replace(data.split("valid"), name="finetune")
    assert fit(fresh(), aside, CONFIG.replace(epochs=1, rows="finetune")).steps == 4


def test_training_in_one_thread_matches_a_plain_torch_loop():
    """The same batches through torch's own Adam and dense gradients; no dropout, no clipping."""
    data = MemoryDataset(num_train=400)
    config = FitConfig(epochs=1, optimizer="adam", batch_size=100, clip_norm=0.0, learning_rate=0.01, seed=4)
    model = fresh(dropout=0.0, batch_norm=False)  # a bias before batch normalisation has only rounding for a gradient
    batches = []
    with pytest.MonkeyPatch.context() as patch:
        import ctrlab.training.loop as loop

        original = loop.iterate_batches
        patch.setattr(loop, "iterate_batches", lambda *a, **k: (batches.append(b) or b for b in original(*a, **k)))
        result = fit(model, without(data, "valid"), config)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for fields, labels in batches:
        optimizer.zero_grad()
        logits = model(type(fields)(*map(torch.from_numpy, fields)))
        torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(labels)).backward()
        optimizer.step()
    for key, value in result.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[key], atol=1e-4, rtol=1e-3, msg=key)


def test_faults_are_said_before_any_work(data):
    other = FeatureSchema(**{**SCHEMA.to_dict(), "fingerprint": "elsewhere"})
    with pytest.raises(DataError, match="another encoding"):
        fit(make_model("deepfm", schema=other), data, CONFIG)
    valid = data.split("valid")
    one_class = without(data)
    one_class.parts["valid"] = replace(valid, labels=np.zeros(len(valid), np.uint8))
    with pytest.raises(DataError, match="all 400 validation labels are 0"):
        fit(fresh(), one_class, CONFIG)
    empty = without(data)
    empty.parts["train"] = Split("train", valid.ids[:0], valid.values[:0], valid.labels[:0])
    with pytest.raises(DataError, match="the train split has no rows"):
        fit(fresh(), empty, CONFIG)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA graphics card")
def test_cuda_is_refused_where_there_is_none(data):
    with pytest.raises(ConfigError, match="no CUDA graphics card"):
        fit(fresh(), data, CONFIG.replace(device="cuda"))


def test_a_training_that_diverges_says_so(data):
    model = fresh(batch_norm=False)
    with torch.no_grad():
        model.mlp[0].weight.fill_(math.inf)
    with pytest.raises(ConfigError, match="diverged by step 1: its loss is nan; lower the learning rate"):
        fit(model, data, CONFIG)

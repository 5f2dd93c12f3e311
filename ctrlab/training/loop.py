"""`fit`: one loop for training and fine-tuning, which can be watched, cancelled, killed and resumed."""

import copy
import math
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ctrlab.data.batches import Batch, iterate_batches, num_batches
from ctrlab.data.dataset import Split
from ctrlab.data.schema import FeatureSchema, Fields, fingerprint_of
from ctrlab.engines.waiting import short_waits
from ctrlab.errors import ConfigError, DataError, JobCancelled
from ctrlab.evaluation.denormals import flushed_denormals
from ctrlab.evaluation.prediction import evaluate_model, never, to_tensors
from ctrlab.kernels.groups import group_ahead
from ctrlab.kernels.linear import fast_linears
from ctrlab.kernels.memory import give_back, kept_memory
from ctrlab.kernels.origin import remembering_look_ups
from ctrlab.kernels.threads import prepared_ahead, with_next
from ctrlab.models.base import CTRModel
from ctrlab.training.configs import FitConfig
from ctrlab.training.optim import FitOptimizer
from ctrlab.training.state import CheckpointFile, FitState, Progress, random_state, restore_random_state

#: Shortest time between two calls of `on_step`, and between two of `should_stop`, which may ask a database.
REPORT_SECONDS = 0.2
POLL_SECONDS = 0.05

#: Plateaus reduce the step size no further.
LEAST_RATE = 1e-6


class Dataset(Protocol):
    """What `fit` needs of a dataset; `ctrlab.data.dataset.EncodedDataset` is one."""

    @property
    def schema(self) -> FeatureSchema:
        """The fields and their fingerprint."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the parts that hold rows."""
        ...

    def split(self, name: str) -> Split:
        """The rows of one part."""
        ...


@dataclass(frozen=True)
class FitProgress:
    """A moment of a fit.

    fraction: 0..1 of all steps. epoch: counted from 0.
    train_loss: mean log loss of the batches since the last evaluation, None before the first step.
    valid_auc, valid_log_loss: of the evaluation that was just made, None at all other moments.
    rows_per_second: of training, evaluations not counted. eta_seconds: None until there is something to extrapolate.
    """

    fraction: float
    step: int
    total_steps: int
    epoch: int
    train_loss: float | None
    valid_auc: float | None
    valid_log_loss: float | None
    rows_per_second: float
    eta_seconds: float | None


@dataclass(frozen=True)
class FitResult:
    """What came out of a fit.

    model: the best on the validation rows by `config.monitor`, or the last where there are none; on the CPU, in evaluation mode.
    history: a row an evaluation: step, epoch, train_loss, valid_auc, valid_log_loss (the last two None without validation rows).
    best_step: the step whose weights these are; 0 is the model as it came. best_auc: its validation AUC.
    seconds: wall clock over all runs of this fit. rows_per_second: of training, evaluations not counted.
    """

    model: CTRModel
    history: list[dict[str, Any]]
    best_step: int
    best_auc: float | None
    steps: int
    stopped_early: bool
    seconds: float
    rows_per_second: float

    def summary(self) -> dict[str, Any]:
        """Everything but the model, in plain JSON types."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "model"}


def _ignore(progress: FitProgress) -> None:
    """The default of `on_step`."""


def fit(
    model: CTRModel,
    dataset: Dataset,
    config: FitConfig,
    *,
    on_step: Callable[[FitProgress], None] = _ignore,
    should_stop: Callable[[], bool] = never,
    checkpoint_path: Path | None = None,
    checkpoint_seconds: float = 5.0,
    teacher: CTRModel | None = None,
) -> FitResult:
    """Train a copy of `model` and return the best on the validation rows; `model` itself is left as it is.

    Args:
        on_step: called after every evaluation, and between them at most every 0.2 s.
        should_stop: asked at most every 0.05 s, between two batches.
        checkpoint_path: where to keep the state. When a file is there the fit goes on from it, and ends with the same weights,
            history and best step, bit for bit, as one that was never broken off (on the CPU, with the same number of threads;
            CUDA adds gradients in no fixed order). The finished state stays there: fitting again returns at once.
        checkpoint_seconds: time between two writes; longer for models whose writing would take over 5 % of the time.
        teacher: whose probabilities `config.distillation` asks for; of the same data. It is left as it is.

    Raises:
        ConfigError: CUDA asked for where there is none, distillation without a teacher, or the training diverged.
        DataError: the data has another schema than the model, no rows, or validation rows of one class only.
        StorageError: `checkpoint_path` is damaged or belongs to another fit.
        JobCancelled: `should_stop()` was true.
    """
    device = _device(config)
    train, valid = _checked_splits(model, dataset, config)
    if config.distillation and teacher is None:
        raise ConfigError(f"distillation {config.distillation:g} needs a teacher; give one, or set distillation to 0")
    # Adam's fading moments become denormal numbers.
    with (
        flushed_denormals(),
        kept_memory(),
        short_waits(),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        run = _Fit(
            copy.deepcopy(model).to(device), train, valid, config, on_step, should_stop, _listened_to(teacher, config, device)
        )
        file = CheckpointFile(checkpoint_path, _identity(model, train, config, teacher), checkpoint_seconds)
        return run.run(file)


class _ReadyBatch(NamedTuple):
    """A batch on the model's device. done: batches of its epoch that are done with this one."""

    epoch: int
    done: int
    fields: Fields
    labels: Tensor


class _Fit:
    """One run of `fit`: the model in training, its optimizer and where it stands."""

    def __init__(
        self,
        model: CTRModel,
        train: Split,
        valid: Split | None,
        config: FitConfig,
        on_step: Callable[[FitProgress], None],
        should_stop: Callable[[], bool],
        teacher: CTRModel | None,
    ) -> None:
        self.model, self.teacher = model, teacher
        self.device = next(model.parameters()).device
        self.train, self.valid, self.config = train, valid, config
        self.on_step = on_step
        self.stop = _Throttled(should_stop, POLL_SECONDS)
        self.optimizer = FitOptimizer(model, config)
        self.progress = Progress()
        self.best: dict[str, Tensor] | None = None
        # A last batch of one row has no batch statistics: it is left out.
        self.max_rows = len(train) - (len(train) % config.batch_size == 1 and len(train) > 1)
        self.steps_per_epoch = num_batches(train, config.batch_size, self.max_rows)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.first_step = 0
        self.last_report = -math.inf
        # Three clocks: of this run, up to where `progress.seconds` has counted, and since when rows have been trained on.
        self.started = self.counted = self.lap = time.monotonic()

    @property
    def total_steps(self) -> int:
        return self.config.epochs * self.steps_per_epoch

    def run(self, file: CheckpointFile) -> FitResult:
        torch.manual_seed(self.config.seed)
        state = file.load()
        if state is not None:
            self._restore(state)
        products = self.progress.products
        with closing(self.optimizer), fast_linears(self.model, compute_dtype=self.config.compute_dtype, products=products):
            if state is None and self.config.keep_initial and self.valid is not None:
                self._evaluate()
            self._train(file)
        if not self.progress.finished:
            self.progress.finished = True
            file.save(self._state())
        return self._result()

    def _train(self, file: CheckpointFile) -> None:
        """All batches that are left, with the evaluations, reports and checkpoints that fall between them."""
        if self.progress.finished or self._is_stale():
            return
        self.model.train()
        self.lap = time.monotonic()
        with closing(prepared_ahead(self._batches())) as batches, remembering_look_ups():
            for batch, following in with_next(map(self._ready, batches)):
                self._check_stop()
                self.progress.epoch, self.progress.batch = batch.epoch, batch.done
                self._step(batch, following)
                if self._at_evaluation:
                    self._evaluate()
                elif time.monotonic() - self.last_report >= REPORT_SECONDS:
                    self._report()
                if file.due:
                    file.save(self._state())
                self.lap = time.monotonic()
                if self._is_stale():
                    break

    def _ready(self, drawn: tuple[int, int, Batch]) -> "_ReadyBatch":
        epoch, done, (rows, labels) = drawn
        return _ReadyBatch(epoch, done, to_tensors(rows, self.device), torch.from_numpy(labels).to(self.device))

    def _batches(self) -> Iterator[tuple[int, int, Batch]]:
        """The batches that are left: (epoch, number of batches of it that are done with this one, the batch).

        Drawn ahead, by another thread: it reads what stays, and where the fit stood when it began.
        """
        first, start_batch = self.progress.epoch, self.progress.batch
        for epoch in range(first, self.config.epochs):
            batches = iterate_batches(
                self.train,
                self.config.batch_size,
                shuffle=True,
                seed=epoch_seed(self.config.seed, epoch),
                start_batch=start_batch,
                max_rows=self.max_rows,
            )
            for done, batch in enumerate(batches, start_batch + 1):
                yield epoch, done, batch
            start_batch = 0

    def _is_stale(self) -> bool:
        """Whether `patience` evaluations went by without a better one."""
        return 0 < self.config.patience <= self.progress.stale

    def _step(self, batch: "_ReadyBatch", following: "_ReadyBatch | None") -> None:
        if self.progress.step < self.config.warmup_steps:
            self._set_learning_rate()
        self.optimizer.zero_grad()
        targets = self._targets(batch.fields, batch.labels)
        loss = functional.binary_cross_entropy_with_logits(self.model(batch.fields), targets)
        if following is not None:
            group_ahead(following.fields.ids, like=batch.fields.ids)
        loss.backward()
        self.optimizer.step()
        self.loss_sum += loss.detach()
        self.progress.step += 1
        self.progress.loss_steps += 1
        self.progress.rows += len(batch.labels)
        self.progress.training_seconds += time.monotonic() - self.lap

    def _targets(self, fields: Fields, labels: Tensor) -> Tensor:
        """(B,): the clicks, or as far as the fit distils the teacher's probabilities. Cross-entropy is linear in them."""
        if self.teacher is None:
            return labels
        with torch.no_grad():
            return torch.lerp(labels.to(torch.float32), torch.sigmoid(self.teacher(fields)), self.config.distillation)

    @property
    def _at_evaluation(self) -> bool:
        """Whether the step just made ends one of the epoch's `evaluations_per_epoch` equal parts."""
        done, parts, total = self.progress.batch, self.config.evaluations_per_epoch, self.steps_per_epoch
        return done * parts // total > (done - 1) * parts // total

    def _evaluate(self) -> None:
        """Measure the validation rows, append to the history, keep the weights if they are the best so far."""
        progress, train_loss = self.progress, self._train_loss()
        self.optimizer.settle()
        metrics = None
        if self.valid is not None:
            give_back()
            metrics = evaluate_model(self.model, self.valid, should_stop=self.stop)
            give_back()
        valid_auc, valid_log_loss = (metrics.auc, metrics.log_loss) if metrics else (None, None)
        progress.history.append(
            {
                "step": progress.step,
                "epoch": progress.epoch,
                "train_loss": train_loss,
                "valid_auc": valid_auc,
                "valid_log_loss": valid_log_loss,
            }
        )
        if metrics is not None:
            self._keep_if_best(metrics.auc if self.config.monitor == "auc" else -metrics.log_loss)
        self._report(valid_auc, valid_log_loss)
        self.loss_sum.zero_()
        progress.loss_steps = 0

    def _keep_if_best(self, value: float) -> None:
        """`value`: of the model as it is; more is better."""
        progress = self.progress
        if progress.best_value is not None and value <= progress.best_value:
            progress.stale, progress.not_better = progress.stale + 1, progress.not_better + 1
            self._set_learning_rate()
            return
        progress.best_value, progress.best_step, progress.stale = value, progress.step, 0
        self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}

    def _set_learning_rate(self) -> None:
        """Of the next step: what plateaus have left of it, grown as far as the warm-up has come."""
        config, step = self.config, self.progress.step
        reduced = config.learning_rate * config.plateau_factor**self.progress.not_better
        rate = max(reduced, min(LEAST_RATE, config.learning_rate))
        self.optimizer.set_learning_rate(rate * min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else rate)

    def _train_loss(self) -> float | None:
        """Mean loss since the last evaluation, None where there was no step yet."""
        if not self.progress.loss_steps:
            return None
        loss = float(self.loss_sum) / self.progress.loss_steps
        if not math.isfinite(loss):
            raise ConfigError(
                f"the training diverged by step {self.progress.step}: its loss is {loss}; "
                f"lower the learning rate, now {self.config.learning_rate:g}"
            )
        return loss

    def _report(self, valid_auc: float | None = None, valid_log_loss: float | None = None) -> None:
        progress = self.progress
        self.last_report = time.monotonic()
        steps_here = progress.step - self.first_step
        left = self.total_steps - progress.step
        self.on_step(
            FitProgress(
                fraction=progress.step / self.total_steps,
                step=progress.step,
                total_steps=self.total_steps,
                epoch=min(progress.epoch, self.config.epochs - 1),
                train_loss=self._train_loss(),
                valid_auc=valid_auc,
                valid_log_loss=valid_log_loss,
                rows_per_second=_rate(progress),
                eta_seconds=(self.last_report - self.started) / steps_here * left if steps_here else None,
            )
        )

    def _check_stop(self) -> None:
        if self.stop():
            raise JobCancelled(f"the training was cancelled after {self.progress.step} of {self.total_steps} steps")

    def _state(self) -> FitState:
        self.progress.loss_sum = float(self.loss_sum)
        self._count_seconds()
        model, optimizer = self.model.state_dict(), self.optimizer.state_tensors()
        return FitState(self.progress, model, optimizer, random_state(self.device), self.best)

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.progress.seconds, self.counted = self.progress.seconds + now - self.counted, now

    def _restore(self, state: FitState) -> None:
        self.progress, self.best = state.progress, state.best
        self.model.load_state_dict(state.model)
        self.optimizer.load_state_tensors(state.optimizer)
        self._set_learning_rate()
        self.loss_sum.fill_(state.progress.loss_sum)
        self.first_step = state.progress.step
        restore_random_state(state.random, self.device)

    def _result(self) -> FitResult:
        progress = self.progress
        self._count_seconds()
        if self.best is not None:
            self.model.load_state_dict(self.best)
        of_best = next((row for row in progress.history if row["step"] == progress.best_step), {})
        return FitResult(
            model=self.model.cpu().eval(),
            history=progress.history,
            best_step=progress.best_step if self.best is not None else progress.step,
            best_auc=of_best.get("valid_auc"),
            steps=progress.step,
            stopped_early=progress.step < self.total_steps,
            seconds=progress.seconds,
            rows_per_second=_rate(progress),
        )


class _Throttled:
    """A question that is passed on at most every `seconds`, and whose yes is final."""

    def __init__(self, ask: Callable[[], bool], seconds: float) -> None:
        self._ask, self._seconds = ask, seconds
        self._asked = -math.inf
        self._answer = False

    def __call__(self) -> bool:
        if not self._answer and time.monotonic() - self._asked >= self._seconds:
            self._answer = self._ask()
            self._asked = time.monotonic()
        return self._answer


def _listened_to(teacher: CTRModel | None, config: FitConfig, device: torch.device) -> CTRModel | None:
    """The teacher, ready to predict; None where nothing is distilled. Copied only where its mode or device is another."""
    if teacher is None or not config.distillation:
        return None
    ready = not teacher.training and next(teacher.parameters()).device == device
    return teacher if ready else copy.deepcopy(teacher).to(device).eval()


def _device(config: FitConfig) -> torch.device:
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda was asked for, but torch finds no CUDA graphics card here; choose auto or cpu")
    return torch.device(config.device)


def _checked_splits(model: CTRModel, dataset: Dataset, config: FitConfig) -> tuple[Split, Split | None]:
    """The rows to train on and to validate on, once they are known to fit the model."""
    if model.schema != dataset.schema:
        raise DataError(
            f"the model was built for data of another encoding (fingerprint {model.schema.fingerprint}, this dataset has "
            f"{dataset.schema.fingerprint}); choose the dataset it was trained on"
        )
    train = dataset.split(config.rows)
    if len(train) == 0:
        raise DataError(f"the {config.rows} split has no rows; encode the data with a larger share for it")
    valid = dataset.split("valid") if "valid" in dataset.splits else None
    if valid is None or len(valid) == 0:
        return train, None
    clicks = int(np.count_nonzero(valid.labels))
    if clicks in (0, len(valid)):
        raise DataError(f"all {len(valid)} validation labels are {int(clicks > 0)}; split the data so that it holds both")
    return train, valid


def _identity(model: CTRModel, train: Split, config: FitConfig, teacher: CTRModel | None) -> dict[str, Any]:
    """What must be the same for a saved state to be of this fit."""
    identity = {
        "model": _fingerprint(model),
        "dataset": [model.schema.fingerprint, train.name, len(train)],
        "configuration": config.to_dict(),
    }
    return identity | ({"teacher": _fingerprint(teacher)} if teacher is not None and config.distillation else {})


def _fingerprint(model: CTRModel) -> str:
    """Of architecture and weights; of those by a sample of each tensor."""
    weights = {name: _checksum(tensor) for name, tensor in model.state_dict().items()}
    return fingerprint_of([type(model).__name__, model.config.to_dict(), model.structure, weights])


def _checksum(tensor: Tensor) -> int:
    flat = tensor.detach().flatten()
    sample = flat[:: max(1, flat.numel() // 65536)].cpu().contiguous()
    return zlib.crc32(sample.view(torch.uint8).numpy().tobytes())


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed for the order of rows of one epoch; neighbouring seeds share no epoch."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])


def _rate(progress: Progress) -> float:
    """Training rows a second, over all runs of the fit."""
    return progress.rows / progress.training_seconds if progress.training_seconds else 0.0

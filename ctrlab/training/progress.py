"""What a fit reports while it runs, and how often."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from ctrlab.training.state import Progress

#: Shortest time between two calls of `on_step`, and between two of `should_stop`, which may query a database.
REPORT_SECONDS = 0.2
POLL_SECONDS = 0.05

#: Seconds from some moment on.
Clock = Callable[[], float]


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


def ignore(progress: FitProgress) -> None:
    """The default of `on_step`."""


class Throttled:
    """Rate-limited `should_stop`; latches once it was true.

    >>> stop = Throttled(lambda: True, seconds=60)
    >>> stop(), stop()
    (True, True)
    """

    def __init__(self, should_stop: Callable[[], bool], seconds: float, clock: Clock = time.monotonic) -> None:
        self._should_stop, self._seconds, self._clock = should_stop, seconds, clock
        self._last = -math.inf
        self._stopped = False

    def __call__(self) -> bool:
        if not self._stopped and self._clock() - self._last >= self._seconds:
            self._stopped = self._should_stop()
            self._last = self._clock()
        return self._stopped


class Reporter:
    """Calls `on_step` with the progress of a fit, at most every `seconds` between two evaluations.

    It also keeps the fit's clocks: of this run, and since when rows have been trained on.
    """

    def __init__(
        self, on_step: Callable[[FitProgress], None], seconds: float = REPORT_SECONDS, clock: Clock = time.monotonic
    ) -> None:
        self._on_step, self._seconds, self._clock = on_step, seconds, clock
        self._last_report = -math.inf
        self._started = self._counted = self._lap = clock()
        self._first_step = self._total_steps = self._epochs = 0

    def start(self, total_steps: int, epochs: int) -> None:
        """The clocks start, for a fit of so many steps and epochs."""
        self._total_steps, self._epochs = total_steps, epochs
        self._started = self._counted = self._lap = self._clock()

    def resume_at(self, step: int) -> None:
        """Estimate the remaining time from the steps after this one."""
        self._first_step = step

    def start_lap(self) -> None:
        """Rows are trained on from now on."""
        self._lap = self._clock()

    def end_lap(self, progress: Progress) -> None:
        """Add the time since `start_lap` to the time of training."""
        progress.training_seconds += self._clock() - self._lap

    def count_seconds(self, progress: Progress) -> None:
        """Add the wall clock time since the last call to the fit's."""
        now = self._clock()
        progress.seconds, self._counted = progress.seconds + now - self._counted, now

    @property
    def due(self) -> bool:
        """Whether the last report was long enough ago."""
        return self._clock() - self._last_report >= self._seconds

    def report(
        self, progress: Progress, train_loss: float | None, valid_auc: float | None = None, valid_log_loss: float | None = None
    ) -> None:
        """Call `on_step` now."""
        self._last_report = self._clock()
        steps_here, left = progress.step - self._first_step, self._total_steps - progress.step
        self._on_step(
            FitProgress(
                fraction=progress.step / self._total_steps,
                step=progress.step,
                total_steps=self._total_steps,
                epoch=min(progress.epoch, self._epochs - 1),
                train_loss=train_loss,
                valid_auc=valid_auc,
                valid_log_loss=valid_log_loss,
                rows_per_second=rows_per_second(progress),
                eta_seconds=(self._last_report - self._started) / steps_here * left if steps_here else None,
            )
        )


def rows_per_second(progress: Progress) -> float:
    """Of training, over all runs of the fit."""
    return progress.rows / progress.training_seconds if progress.training_seconds else 0.0

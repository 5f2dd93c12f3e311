"""Measuring the accuracy of a compression without building its model, in the time of one forward pass over the kept rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ctrlab.compression.fold import serving_form
from ctrlab.compression.quantize import quantize
from ctrlab.compression.surgery import CountsByLayer, check_spectra, compress_model
from ctrlab.data.batches import iterate_batches
from ctrlab.data.dataset import Split
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError, DataError, JobCancelled
from ctrlab.evaluation.metrics import auc, log_loss, rows_and_clicks
from ctrlab.evaluation.prediction import never, to_tensors
from ctrlab.measuring.truncation import truncated
from ctrlab.models.base import CTRModel
from ctrlab.models.profile import ModelProfile
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.methods import METHODS
from ctrlab.plans.ranks import effective_ranks, validate_plan

#: The standard error of an AUC near 0.8 on so many rows, a quarter of them clicks, is 0.003; of a paired difference far less.
MAX_ROWS = 32_768
_BATCH_ROWS = 4096

Spectra = Mapping[str, LayerSpectrum]


@dataclass(frozen=True, eq=False, kw_only=True)
class Measurement:
    """Accuracy on the kept rows. logits: float32 (n,)."""

    auc: float
    log_loss: float
    logits: NDArray[np.float32]

    @classmethod
    def of(cls, labels: NDArray[np.float32], logits: NDArray[np.float32]) -> Self:
        """Of these labels and logits (n,); an AUC of labels of one class is NaN."""
        rows, clicks = rows_and_clicks(labels)
        one_class = not 0 < clicks < rows
        return cls(auc=float("nan") if one_class else auc(labels, logits), log_loss=log_loss(labels, logits), logits=logits)


class PlanProbe(Protocol):
    """Rows on which plans of one model are measured.

    split: name of the rows. labels: float32 (n,). original: the model as it is.
    """

    profile: ModelProfile
    spectra: Spectra
    labels: NDArray[np.float32]
    split: str
    original: Measurement

    @property
    def num_rows(self) -> int: ...

    def measure(
        self, spec: CompressionSpec, *, respect_break_even: bool = True, should_stop: Callable[[], bool] = never
    ) -> Measurement: ...


class Probe:
    """A model and rows to measure plans on. One at a time: while a plan is measured, `model` has its layers swapped."""

    def __init__(
        self, model: CTRModel, spectra: Spectra, split: Split, *, counts: CountsByLayer | None = None, max_rows: int = MAX_ROWS,
        seed: int = 0,
    ) -> None:  # fmt: skip
        """Keep the rows, and measure the original on them.

        Args:
            model: not compressed. It is measured in evaluation mode and left in it.
            spectra: of its layers, with eigenvectors, for the methods that need them.
            counts: of the ids of its tables, for the methods that need them.
            split: `max_rows` of its rows, drawn with `seed`; all of them where it has no more.

        Raises:
            DataError: the split has no rows, or the rows drawn are of one class.
        """
        if len(split) == 0:
            raise DataError("there are no validation rows to measure a plan on; encode the data with a share for validation")
        self.model = model.eval()
        self.spectra, self.counts = spectra, counts
        self.profile: ModelProfile = profile_model(model)
        if self.profile.compressed:
            raise CompressionError("the model is compressed already; measure plans on its original")
        device = next(model.parameters()).device
        drawn = list(
            iterate_batches(split, _BATCH_ROWS, shuffle=len(split) > max_rows, seed=seed, max_rows=min(max_rows, len(split)))
        )
        self._batches = [to_tensors(fields, device) for fields, _ in drawn]
        self.labels: NDArray[np.float32] = np.concatenate([labels for _, labels in drawn])
        self.split = split.name
        self.original = self._run(never)

    @property
    def num_rows(self) -> int:
        """Rows every plan is measured on."""
        return len(self.labels)

    def measure(
        self,
        spec: CompressionSpec,
        *,
        respect_break_even: bool = True,
        should_stop: Callable[[], bool] = never,
    ) -> Measurement:
        """Accuracy of the model that `compress_model` would make, before any fine-tuning and at the precision of the spec.

        Below float32, and where tables are reduced to something else than latents, the model is really built.

        Raises:
            CompressionError: the plan does not fit the model or the spectra, or the method re-initialises the tables.
            JobCancelled: `should_stop()` was true between two batches.
        """
        validate_plan(self.profile, spec.plan)
        effective = effective_ranks(self.profile, spec, respect_break_even=respect_break_even)
        if not effective and not spec.quantises:
            return self.original
        method = METHODS[spec.method]
        if method.needs_spectra:
            check_spectra(self.profile, self.spectra, effective, with_gradients=method.needs_gradients)
        if method.retrains:
            raise CompressionError(f"{method.title} re-initialises the tables; there is nothing to measure before training")
        if not method.keeps_latents or spec.quantises:
            built = compress_model(
                self.model, spec, self.spectra, counts=self.counts, respect_break_even=respect_break_even
            ).model
            return self._run(should_stop, _served(built, spec))
        with truncated(self.model, effective, self.spectra, method.compressor(), spec.bottleneck, spec.basis):
            return self._run(should_stop)

    def _run(self, should_stop: Callable[[], bool], model: CTRModel | None = None) -> Measurement:
        model = model or self.model
        logits = np.empty(len(self.labels), np.float32)
        start = 0
        with torch.inference_mode():
            for batch in self._batches:
                if should_stop():
                    raise JobCancelled("cancelled while measuring a plan")
                out = model(batch).float().cpu().numpy()
                logits[start : start + len(out)] = out
                start += len(out)
        return Measurement(auc=auc(self.labels, logits), log_loss=log_loss(self.labels, logits), logits=logits)


def _served(built: CTRModel, spec: CompressionSpec) -> CTRModel:
    """The model at the precision of the spec; as it was built where that is float32, which gives the same outputs."""
    if not spec.quantises:
        return built.eval()
    return quantize(serving_form(built), spec.precision, spec.precisions_by_layer)


def halves(labels: NDArray[np.float32], measured: Measurement) -> tuple[Measurement, Measurement]:
    """The measurement on every other row, and on the rest: one half chooses between plans, the other reports the chosen one."""
    return tuple(Measurement.of(labels[start::2], measured.logits[start::2]) for start in (0, 1))  # type: ignore[return-value]

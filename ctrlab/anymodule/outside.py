"""A model trained elsewhere as ctrlab needs it: the module, calibration batches, and how it is measured."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ctrlab.anymodule.adapter import compress, restore
from ctrlab.anymodule.calls import Forward, run, tensors_of
from ctrlab.compression.result import CompressionResult
from ctrlab.decomposition.trace import evaluating
from ctrlab.errors import ConfigError

#: evaluate(module) measures a module by the caller's own code; higher is better, such as an AUC.
Evaluate = Callable[[nn.Module], float]
#: Of labelled batches, the share that only measures: spectra and plans are not made from it.
_HELD_OUT = 0.25


@dataclass(frozen=True, eq=False, kw_only=True)
class OutsideModel:
    """A module with what is needed to decompose, compress and measure it.

    batches: what the module takes, see `ctrlab.spectra`.
    forward: forward(module, batch), where a batch is no argument of the module.
    labels: 0 or 1 of each row of `batches`, in their order (n,).
    evaluate: evaluate(module), the caller's own measure; higher is better.
    detached: a context in which the module can be copied, without optimizers and data loaders.
    restore: restore(module, path) by default `ctrlab.restore`; a framework's own returns models that it can train.

    >>> module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    >>> model = OutsideModel(module=module, batches=[torch.zeros(2, 4), torch.zeros(2, 4)], labels=np.array([0, 1, 1, 0]))
    >>> len(model.calibration), model.measured_labels
    (1, array([1, 0]))
    """

    module: nn.Module
    batches: Sequence[Any]
    forward: Forward | None = None
    labels: NDArray[Any] | None = None
    evaluate: Evaluate | None = None
    detached: Callable[[nn.Module], AbstractContextManager[Any]] = lambda module: nullcontext()
    restore: Callable[[nn.Module, Any], nn.Module] = restore

    def __post_init__(self) -> None:
        if not isinstance(self.module, nn.Module):
            raise ConfigError(f"{type(self.module).__name__} is no torch module; give an nn.Module")
        if not self.batches:
            raise ConfigError("there are no calibration batches; give a list of what the module takes")
        if self.labels is None:
            return
        rows, known = sum(map(rows_in, self.batches)), set(np.unique(self.labels).tolist())
        if self.labels.shape != (rows,):
            raise ConfigError(f"the labels have shape {self.labels.shape}, the batches {rows:,} rows; give one label a row")
        if not known <= {0, 1}:
            raise ConfigError(f"labels must be 0 or 1, got {sorted(known)[:4]}")
        if len(set(np.unique(self.measured_labels).tolist())) < 2:
            raise ConfigError("the rows that measure, the last quarter of the batches, are of one class; give more, or mix them")

    @property
    def calibration(self) -> Sequence[Any]:
        """The batches that spectra are made from: all, or those before the ones that measure."""
        return self.batches[: len(self.batches) - self._held_out] if self.labels is not None else self.batches

    @property
    def measured(self) -> Sequence[Any]:
        """The batches that measure: the last quarter of those with labels; the only one where there is one."""
        return self.batches[-max(self._held_out, 1) :]

    @property
    def measured_labels(self) -> NDArray[Any]:
        """Labels of the rows that measure."""
        assert self.labels is not None  # `measured` asks for what labels are for
        return self.labels[-sum(map(rows_in, self.measured)) :]

    @property
    def _held_out(self) -> int:
        return max(1, round(_HELD_OUT * len(self.batches))) if len(self.batches) > 1 else 0

    def compressed(self, **settings: Any) -> CompressionResult[nn.Module]:
        """`ctrlab.compress` of the module with its optimizers and loaders left out of the copy."""
        with self.detached(self.module):
            return compress(self.module, settings.pop("batches", self.calibration[:1]), forward=self.forward, **settings)

    def restored(self, path: Any) -> nn.Module:
        """The compressed module in the file at `path`, which `CompressionResult.save` wrote."""
        return self.restore(self.module, path)


def rows_in(batch: Any) -> int:
    """Rows of a batch: the length of its first tensor or array.

    Raises:
        ConfigError: there is none in it.
    """
    if isinstance(batch, (torch.Tensor, np.ndarray)) and batch.ndim:
        return len(batch)
    parts = batch.values() if hasattr(batch, "values") else batch if isinstance(batch, (tuple, list)) else ()
    for part in parts:
        return rows_in(part)
    raise ConfigError(f"a batch of type {type(batch).__name__} holds no tensor, so its rows cannot be counted")


def scores(module: nn.Module, batches: Sequence[Any], forward: Forward | None = None) -> NDArray[np.float32]:
    """float32 (n,): the module's output for each row of the batches, in evaluation mode.

    The first tensor of the output with one number a row is the score.

    Raises:
        ConfigError: the output has none.
    """
    found = []
    with evaluating(module), torch.no_grad():
        for batch in batches:
            rows = rows_in(batch)
            output = next((part for part in tensors_of(run(module, batch, forward)) if part.numel() == rows), None)
            if output is None:
                raise ConfigError(f"the module gives no tensor of one number for each of {rows} rows, so no AUC can be measured")
            found.append(output.detach().float().reshape(-1).cpu().numpy())
    return np.concatenate(found)


def logits_of(found: NDArray[np.float32], *, probabilities: bool) -> NDArray[np.float32]:
    """Scores (n,) as logits: log(p / (1 - p)) of probabilities, which are kept 1e-7 away from 0 and 1."""
    if not probabilities:
        return found
    kept = np.clip(found.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.log(kept / (1 - kept)).astype(np.float32)


def are_probabilities(found: NDArray[np.float32]) -> bool:
    """Whether all scores lie between 0 and 1."""
    return bool(found.min() >= 0 and found.max() <= 1)

"""Sensitivity: the accuracy that each layer alone loses at each rank. Loads without torch.

`measuring.sensitivity_probe` measures it; `plans.estimates` estimates its log loss from gradients. Variance is not importance: a
layer may lose half of its variance and no accuracy, or one percent and much; sensitivity is measured with the labels. As in
AIMET's per-layer compression evaluation and in LEMS, the losses of single layers add up well enough to choose between plans; one
forward pass of the chosen plan then checks it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ctrlab.errors import CompressionError

FORMAT_VERSION = 1
_FILE = "sensitivity.json"


@dataclass(frozen=True, kw_only=True)
class LayerSensitivity:
    """One layer truncated to each of `ranks` while all others stay dense.

    ranks: ascending. width: the rank at which nothing is lost.
    auc_dense: of the original. log_losses, aucs: at each rank, as measured.
    log_loss_increases, auc_losses: differences from the original, fitted so that no rank is better than a larger one and the
        full rank loses nothing: on few rows the measured differences are noisy.

    Where the losses are estimated instead of measured, nothing is said of AUC: `aucs` and `auc_losses` are empty.
    """

    layer_name: str
    width: int
    auc_dense: float
    ranks: tuple[int, ...]
    log_losses: tuple[float, ...]
    aucs: tuple[float, ...]
    log_loss_increases: tuple[float, ...]
    auc_losses: tuple[float, ...]

    def log_loss_increase(self, rank: int) -> float:
        """Increase of log loss in nats with this layer alone at `rank`: at least 0, interpolated between measured ranks."""
        return self._between(self.log_loss_increases, rank)

    def auc_loss(self, rank: int) -> float:
        """Loss of AUC with this layer alone at `rank`: at least 0, interpolated between measured ranks; NaN if estimated."""
        return self._between(self.auc_losses, rank) if self.auc_losses or not self.ranks else float("nan")

    def measured_auc_losses(self) -> NDArray[np.float64]:
        """(ranks,) as measured, before the fit: noisy, and negative where the truncated layer did better."""
        return self.auc_dense - np.array(self.aucs)

    def _between(self, values: tuple[float, ...], rank: int) -> float:
        return float(np.interp(rank, self.grid, (*values, 0.0)))

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """The measured ranks, then the rank at which nothing is lost."""
        return (*self.ranks, max(self.width, self.ranks[-1] + 1 if self.ranks else 1))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`."""
        rows: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**rows)


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Sensitivity of every compressible layer of one model.

    log_loss, auc: of the original on the same rows. split, num_rows: which and how many they were; of an estimate none.
    layers: {layer_name: sensitivity}, every compressible layer.
    """

    log_loss: float
    auc: float
    split: str
    num_rows: int
    layers: dict[str, LayerSensitivity]

    @property
    def estimated(self) -> bool:
        """Whether the losses are estimates from gradients, which say nothing of AUC."""
        return self.num_rows == 0

    def predicted_log_loss(self, ranks: Mapping[str, int]) -> float:
        """Log loss of a plan: the original's plus the increases of its layers."""
        return self.log_loss + sum(self.layers[name].log_loss_increase(rank) for name, rank in ranks.items())

    def predicted_auc(self, ranks: Mapping[str, int]) -> float:
        """AUC of a plan: the original's minus the losses of its layers."""
        return self.auc - sum(self.layers[name].auc_loss(rank) for name, rank in ranks.items())


def save_sensitivity(folder: Path, sensitivity: Sensitivity) -> None:
    """Write it into `folder`, in one piece: a kill leaves the old file or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"version": FORMAT_VERSION, **asdict(sensitivity)}
    unfinished = folder / f".{_FILE}.part"
    unfinished.write_text(json.dumps(content, indent=1), encoding="utf-8")
    unfinished.replace(folder / _FILE)


def has_sensitivity(folder: Path) -> bool:
    """Whether `save_sensitivity` has written into `folder`."""
    return (folder / _FILE).exists()


def load_sensitivity(folder: Path) -> Sensitivity:
    """The inverse of `save_sensitivity`."""
    try:
        content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        if content.pop("version") != FORMAT_VERSION:
            raise CompressionError("the sensitivity was measured by another version of ctrlab; measure it again")
        layers = {name: LayerSensitivity.from_dict(row) for name, row in content.pop("layers").items()}
        return Sensitivity(**content, layers=layers)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CompressionError(f"the sensitivity in {folder.name} cannot be read ({error}); measure it again") from error

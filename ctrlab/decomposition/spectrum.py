"""The spectrum of a layer's outputs: what the pages draw and what ranks are chosen from. Loads without torch.

C = U diag(lambda) U^T is the covariance of a layer's output over calibration rows (Wx + b before its nonlinearity), or of
the rows of an embedding table weighted by how often each id occurs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ctrlab.decomposition.loss_weights import weighted_directions
from ctrlab.errors import SpectrumError

FloatArray = NDArray[np.float64]

FORMAT_VERSION = 1
_INDEX, _SPECTRA, _EIGENVECTORS = "spectra.json", "spectra.npz", "eigenvectors.npz"


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerSpectrum:
    """Principal components of one layer's output.

    layer_name: PyTorch's qualified name of a linear layer, or "embedding.<field>" for a table.
    eigenvalues: float64 (d,) of the output covariance (divisor n), descending, never negative.
    eigenvectors: float64 (d, d), one per column in the order of `eigenvalues`; None when loaded without them.
    mean: float64 (d,) of the output.
    num_samples: calibration rows; for a table, the total count of its ids.
    weight_singular_values: float64, descending, of the weight (out, in) or of the table (num_ids, d) as it stands.
    loss_eigenvalues: float64 (d,), descending, of the covariance weighted by gradients of the log loss, summed over a row's
        passes (`loss_weights`); None where no gradients were collected.
    direction_losses: float64 (d,), lambda_j u_j^T G u_j of the eigenvectors u_j: twice the nats that losing direction j is
        expected to cost; None likewise.
    gradients: float64 (d, d), E[g g^T] of these gradients; None likewise, or when loaded without eigenvectors.
    """

    layer_name: str
    kind: Literal["linear", "embedding"]
    eigenvalues: FloatArray
    eigenvectors: FloatArray | None
    mean: FloatArray
    num_samples: int
    weight_singular_values: FloatArray = field(default_factory=lambda: np.zeros(0))
    loss_eigenvalues: FloatArray | None = None
    direction_losses: FloatArray | None = None
    gradients: FloatArray | None = None

    @property
    def width(self) -> int:
        """d, the number of output features, hence the highest rank."""
        return len(self.eigenvalues)

    @property
    def total_variance(self) -> float:
        return float(self.eigenvalues.sum())

    @property
    def singular_values(self) -> FloatArray:
        """Square roots of the eigenvalues: the standard deviation along each principal direction."""
        return np.sqrt(self.eigenvalues)

    @cached_property
    def explained_variance_ratio(self) -> FloatArray:
        """(d,) each direction's share of the variance; all zero for an output that never varies."""
        total = self.total_variance
        shares: FloatArray = self.eigenvalues / total if total > 0 else np.zeros_like(self.eigenvalues)
        return shares

    @cached_property
    def cumulative(self) -> FloatArray:
        """(d,) the share of the variance that ranks 1..d keep; its last entry is exactly 1 (also where nothing varies)."""
        if self.total_variance <= 0:
            return np.ones_like(self.eigenvalues)
        # Summed from the small end: 1 - lost keeps the tail's digits where a running sum from the front would lose them.
        return 1.0 - self._lost_shares[1:]

    @cached_property
    def _lost_shares(self) -> FloatArray:
        """(d + 1,) the share of the variance that rank k = 0..d discards."""
        tail = np.append(np.cumsum(self.explained_variance_ratio[::-1])[::-1], 0.0)
        lost: FloatArray = np.minimum(tail, 1.0)
        return lost

    @property
    def effective_rank(self) -> float:
        """exp of the entropy of the explained variance ratios (Roy and Vetterli, 2007): 1 for one direction, d for all alike."""
        shares = self.explained_variance_ratio[self.explained_variance_ratio > 0]
        return float(np.exp(-(shares * np.log(shares)).sum()))

    def rank_for(self, variance: float) -> int:
        """The smallest rank that keeps at least the share `variance` (0..1) of the variance."""
        if not 0 <= variance <= 1:
            raise SpectrumError(f"variance {variance} for layer {self.layer_name} must lie between 0 and 1; 0.95 keeps 95 %")
        # A share that differs from `variance` by rounding alone counts as reached.
        return min(int(np.searchsorted(self.cumulative, variance - 1e-12)) + 1, self.width)

    def variance_lost(self, rank: int) -> float:
        """The share of the output variance that `rank` directions discard."""
        return float(self._lost_shares[min(max(rank, 0), self.width)])

    def discarded(self, rank: int) -> float:
        """The expected squared error of rank `rank` per calibration row: the sum of the discarded eigenvalues."""
        return float(self.eigenvalues[rank:][::-1].sum())

    def loss_terms(self, *, weighted: bool = True) -> FloatArray | None:
        """(d,) twice the nats of log loss that each direction is expected to carry, to second order.

        weighted: the directions of loss-weighted AFM; AFM's otherwise. None where no gradients were collected.
        """
        return self.loss_eigenvalues if weighted else self.direction_losses

    def loss_increase(self, rank: int, *, weighted: bool = True) -> float | None:
        """Nats of log loss that rank `rank` of this layer alone is expected to cost, by loss-weighted AFM or by AFM.

        Half the sum of the discarded `loss_terms`; None where no gradients were collected.
        """
        terms = self.loss_terms(weighted=weighted)
        return None if terms is None else float(terms[rank:][::-1].sum()) / 2

    @property
    def covariance(self) -> FloatArray:
        """C (d, d).

        Raises:
            SpectrumError: the spectrum was loaded without eigenvectors.
        """
        if self.eigenvectors is None:
            raise SpectrumError(f"the spectrum of {self.layer_name} was loaded without eigenvectors")
        covariance: FloatArray = self.eigenvectors * self.eigenvalues @ self.eigenvectors.T
        return covariance

    def weighted_by(self, gradients: FloatArray) -> "LayerSpectrum":
        """This spectrum with the second moments (d, d) of the loss's gradients by the output."""
        losses = weighted_directions(self.covariance, gradients).losses
        assert self.eigenvectors is not None  # `covariance` has read them
        own = self.eigenvalues * np.einsum("dj,de,ej->j", self.eigenvectors, gradients, self.eigenvectors, optimize=True)
        return replace(self, gradients=gradients, loss_eigenvalues=losses, direction_losses=np.maximum(own, 0.0))


def save_spectra(folder: Path, spectra: Mapping[str, LayerSpectrum]) -> None:
    """Write `spectra` into `folder`: a JSON index, and NumPy archives with the eigenvectors apart."""
    folder.mkdir(parents=True, exist_ok=True)
    small: dict[str, FloatArray] = {}
    large: dict[str, FloatArray] = {}
    index: list[dict[str, Any]] = []
    for number, spectrum in enumerate(spectra.values()):
        if spectrum.eigenvectors is None:
            raise SpectrumError(f"the spectrum of {spectrum.layer_name} has no eigenvectors; load it with them before saving")
        # Field names may hold any character, so archive members are numbered and the index keeps the names.
        small[f"{number}.eigenvalues"] = spectrum.eigenvalues
        small[f"{number}.mean"] = spectrum.mean
        small[f"{number}.weight_singular_values"] = spectrum.weight_singular_values
        # Those of tables are few numbers, and a shared basis is predicted from them.
        (small if spectrum.kind == "embedding" else large)[f"{number}.eigenvectors"] = spectrum.eigenvectors
        if spectrum.loss_eigenvalues is not None and spectrum.gradients is not None and spectrum.direction_losses is not None:
            small[f"{number}.loss_eigenvalues"] = spectrum.loss_eigenvalues
            small[f"{number}.direction_losses"] = spectrum.direction_losses
            large[f"{number}.gradients"] = spectrum.gradients
        index.append({"layer_name": spectrum.layer_name, "kind": spectrum.kind, "num_samples": spectrum.num_samples})
    np.savez(folder / _SPECTRA, **small)  # type: ignore[arg-type]
    np.savez(folder / _EIGENVECTORS, **large)  # type: ignore[arg-type]
    (folder / _INDEX).write_text(json.dumps({"version": FORMAT_VERSION, "layers": index}, indent=1), encoding="utf-8")


def load_spectra(folder: Path, eigenvectors: bool = False) -> dict[str, LayerSpectrum]:
    """The inverse of `save_spectra`, by layer name; eigenvectors of linear layers, most of the bytes, only when asked for."""
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        if index["version"] != FORMAT_VERSION:
            raise SpectrumError(f"spectra of version {index['version']}; this ctrlab reads {FORMAT_VERSION}: collect them again")
        small = _load_arrays(folder / _SPECTRA)
        large = _load_arrays(folder / _EIGENVECTORS) if eigenvectors else {}
        return {row["layer_name"]: _assemble(row, number, small, large) for number, row in enumerate(index["layers"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpectrumError(f"the spectra in {folder.name} cannot be read ({error}); collect them again") from error


def _load_arrays(path: Path) -> dict[str, FloatArray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def _assemble(row: dict[str, Any], number: int, small: dict[str, FloatArray], large: dict[str, FloatArray]) -> LayerSpectrum:
    return LayerSpectrum(
        layer_name=row["layer_name"],
        kind=row["kind"],
        num_samples=row["num_samples"],
        eigenvalues=small[f"{number}.eigenvalues"],
        mean=small[f"{number}.mean"],
        weight_singular_values=small[f"{number}.weight_singular_values"],
        eigenvectors=small.get(f"{number}.eigenvectors", large.get(f"{number}.eigenvectors")),
        loss_eigenvalues=small.get(f"{number}.loss_eigenvalues"),
        direction_losses=small.get(f"{number}.direction_losses"),
        gradients=large.get(f"{number}.gradients"),
    )

"""Least squares from streaming moments, and the logistic fit of a few terms, for `recovery.py`; all in float64."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from ctrlab.decomposition.covariance import Moments

#: Newton steps of the logistic fit at most, and halvings of one.
_STEPS, _HALVINGS = 25, 12
#: A new fit must lower the error by more than rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Fit:
    """y = W x + b: weight (o, i), bias (o,)."""

    weight: Tensor
    bias: Tensor


@dataclass(eq=False)
class LeastSquares:
    """Moments of inputs x (n, i) and targets y (n, o) side by side; where `narrow` is false, of nothing."""

    inputs: int
    narrow: bool
    moments: Moments

    @classmethod
    def empty(cls, x: Tensor, y: Tensor, *, by_channel: bool = False, widest: int = 1 << 30) -> Self:
        """For rows like these. by_channel: inputs and targets are matched one by one, so that any width will do."""
        narrow = by_channel or x.shape[1] <= widest
        return cls(x.shape[1], narrow, Moments(x.shape[1] + y.shape[1] if narrow else 0, x.device))

    def add(self, x: Tensor, y: Tensor) -> Self:
        """Count these rows."""
        if self.narrow:
            self.moments.update(torch.cat([x, y.to(x.dtype)], dim=1))
        return self

    def merge(self, other: "LeastSquares") -> Self:
        """Count all rows that `other` has counted."""
        self.moments.merge(other.moments)
        return self

    @property
    def mean_x(self) -> Tensor:
        """(i,)."""
        return self.moments.mean[: self.inputs]

    @property
    def mean_y(self) -> Tensor:
        """(o,)."""
        return self.moments.mean[self.inputs :]

    def _blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        """C_xx (i, i), C_yx (o, i) and C_yy (o, o)."""
        both, i = self.moments.covariance, self.inputs
        return both[:i, :i], both[i:, :i], both[i:, i:]

    def centred(self, fit: Fit) -> Fit | None:
        """The same weight with the bias of the least error."""
        return Fit(fit.weight, self.mean_y - fit.weight @ self.mean_x) if self.narrow else None

    def fit(self, anchor: Tensor, ridge: float, *, with_bias: bool = True) -> Fit | None:
        """W* = W0 + (C_yx - W0 C_xx)(C_xx + r I)^-1 and b = mu_y - W* mu_x; None where inputs are too wide or never vary.

        It minimises E|y - W x - b|^2 + r |W - W0|^2, so its error is at most that of W0 (anchor, (o, i)).
        ridge: r as a share of the mean variance of the inputs. with_bias: without, b = 0, and the moments are about zero.
        """
        if not self.narrow:
            return None
        c_xx, c_yx, _ = self._blocks()
        if not with_bias:
            c_xx, c_yx = c_xx + torch.outer(self.mean_x, self.mean_x), c_yx + torch.outer(self.mean_y, self.mean_x)
        scale = float(c_xx.diagonal().mean())
        if not scale > 0:
            return None
        damped = c_xx + ridge * scale * torch.eye(self.inputs, dtype=c_xx.dtype, device=c_xx.device)
        left = c_yx - anchor @ c_xx
        factor, failed = torch.linalg.cholesky_ex(damped)
        change = left @ torch.linalg.pinv(damped, hermitian=True) if int(failed) else torch.cholesky_solve(left.T, factor).T
        weight = anchor + change
        return Fit(weight, self.mean_y - weight @ self.mean_x if with_bias else torch.zeros_like(self.mean_y))

    def directions(self, fit: Fit, rank: int, root: Tensor | None, inverse: Tensor | None) -> tuple[Tensor, Tensor]:
        """S V_k and S^-1 V_k (o, k), V the eigenvectors of S W C_xx W^T S; S (o, o) is the identity where None."""
        c_xx, _, _ = self._blocks()
        outputs = fit.weight @ c_xx @ fit.weight.T
        vectors = torch.linalg.eigh(outputs if root is None else root @ outputs @ root).eigenvectors.flip(1)[:, :rank]
        if root is None or inverse is None:
            return vectors, vectors
        return root @ vectors, inverse @ vectors

    def error(self, fit: Fit, root: Tensor | None = None) -> float:
        """E|S (y - W x - b)|^2 over the rows counted."""
        c_xx, c_yx, c_yy = self._blocks()
        mixed = fit.weight @ c_yx.T
        rest = c_yy - mixed - mixed.T + fit.weight @ c_xx @ fit.weight.T
        offset = self.mean_y - fit.weight @ self.mean_x - fit.bias
        if root is not None:
            rest, offset = root @ rest @ root, root @ offset
        return float(rest.trace() + offset.square().sum())

    def best(self, present: Fit, candidates: Sequence[Fit | None], root: Tensor | None = None) -> Fit:
        """The one of least error; `present` unless another is better by more than rounding."""
        if not self.narrow:
            return present
        _, _, c_yy = self._blocks()
        best, least = present, self.error(present, root)
        rounding = _ROUNDING * float(c_yy.trace() if root is None else (root @ c_yy @ root).trace())
        for candidate in candidates:
            if candidate is not None and (error := self.error(candidate, root)) < least - rounding:
                best, least = candidate, error
        return best


def channel_fit(sums: LeastSquares, present: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """(slope, shift) (c,) of the least E(y_c - slope x_c - shift)^2 for every channel; the present slope where x never varies."""
    c_xx, c_yx, c_yy = sums._blocks()
    variance, shared = c_xx.diagonal(), c_yx.diagonal()
    slope = torch.where(variance > 0, shared / variance.clamp(min=1e-300), present[0])
    shift = sums.mean_y - slope * sums.mean_x

    def errors(slope: Tensor, shift: Tensor) -> Tensor:
        offset = sums.mean_y - slope * sums.mean_x - shift
        return c_yy.diagonal() - 2 * slope * shared + slope.square() * variance + offset.square()

    better = errors(slope, shift) < errors(*present) - _ROUNDING * c_yy.diagonal()
    return torch.where(better, slope, present[0]), torch.where(better, shift, present[1])


def logistic_fit(terms: Tensor, rest: Tensor, wanted: Tensor, *, with_intercept: bool = True) -> tuple[list[float], float]:
    """(scales, intercept) of the least mean log loss of `rest + terms @ scales + intercept` (n,) against probabilities `wanted`.

    By Newton's method from scales of 1 and intercept 0, which no result is worse than. terms: (n, t).
    """
    last = torch.ones_like(terms[:, :1]) if with_intercept else torch.zeros_like(terms[:, :1])
    design = torch.cat([terms, last], dim=1)
    theta = torch.cat([torch.ones_like(design[0, :-1]), torch.zeros_like(design[0, -1:])])

    def loss(theta: Tensor) -> float:
        return float(functional.binary_cross_entropy_with_logits(rest + design @ theta, wanted))

    least = loss(theta)
    for _ in range(_STEPS):
        p = torch.sigmoid(rest + design @ theta)
        gradient = design.T @ (p - wanted) / len(p)
        curvature = design.T @ (design * (p * (1 - p)).unsqueeze(1)) / len(p)
        curvature += 1e-12 * torch.eye(len(theta), dtype=theta.dtype, device=theta.device)
        step = torch.linalg.lstsq(curvature, gradient.unsqueeze(1)).solution.squeeze(1)
        for halving in range(_HALVINGS):
            tried = theta - step / 2**halving
            if (found := loss(tried)) < least:
                theta, gain, least = tried, least - found, found
                break
        else:
            break
        if gain < 1e-12:
            break
    return theta[:-1].tolist(), float(theta[-1])

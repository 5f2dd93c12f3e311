"""Rows in the shape of Criteo's, for contenders in separate environments: needs numpy only.

39 categorical fields: 13 of 100 ids, 26 of 10 to 350 k, 1.06 M ids in all. In each field the k-th most frequent id has a
probability in proportion to k^-1.05; a batch of 4096 rows then holds about 23 k distinct ids, as many as with real Criteo rows.
Labels are drawn from a logistic model of the ids' hashes, so that there is something to learn.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NUM_SMALL, NUM_LARGE, TOTAL_IDS = 13, 26, 1_060_000
EXPONENT = 1.05

Ids = NDArray[np.int32]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Rows:
    """ids: int32 (n, F), 0 .. field_dims[f] - 1 in field f. labels: uint8 (n,)."""

    ids: Ids
    labels: Labels
    field_dims: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)


def criteo_dims(total: int = TOTAL_IDS, num_fields: int = NUM_SMALL + NUM_LARGE) -> tuple[int, ...]:
    """Ids of each field: a third of the fields small, the others evenly apart on a logarithmic scale; `total` in all."""
    num_small = num_fields // 3
    small = min(100, max(2, total // (4 * num_fields)))
    shape = np.geomspace(10, 350_000, num_fields - num_small)
    rest = total - small * num_small
    large = np.maximum(2, shape * rest / shape.sum()).astype(int)
    large[-1] += rest - large.sum()
    return (*[small] * num_small, *large.tolist())


def draw(num_rows: int, field_dims: tuple[int, ...], seed: int = 0) -> Rows:
    """Rows drawn from the distribution above."""
    random = np.random.default_rng(seed)
    ids = np.empty((num_rows, len(field_dims)), np.int32)
    score = np.full(num_rows, -1.1, np.float32)
    for field, dim in enumerate(field_dims):
        cumulative = np.cumsum(np.arange(1, dim + 1, dtype=np.float64) ** -EXPONENT)
        rank = np.searchsorted(cumulative / cumulative[-1], random.random(num_rows, np.float64)).clip(max=dim - 1)
        ids[:, field] = rank
        score += np.random.default_rng(field).normal(0, 0.2, dim).astype(np.float32)[rank]
    labels = random.random(num_rows) < 1 / (1 + np.exp(-score))
    return Rows(ids, labels.astype(np.uint8), field_dims)


def save(rows: Rows, folder: Path) -> None:
    """Write files that every contender memory-maps."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "ids.npy", rows.ids)
    np.save(folder / "labels.npy", rows.labels)
    np.save(folder / "field_dims.npy", np.array(rows.field_dims))


def load(folder: Path) -> Rows:
    """Inverse of `save`; ids and labels are memory-mapped."""
    dims = tuple(np.load(folder / "field_dims.npy").tolist())
    return Rows(np.load(folder / "ids.npy", mmap_mode="r"), np.load(folder / "labels.npy", mmap_mode="r"), dims)


def stored(folder: Path, num_rows: int, field_dims: tuple[int, ...], seed: int = 0) -> Path:
    """A subfolder of `folder` with such rows, drawn on first use."""
    key = hashlib.sha256(repr((num_rows, field_dims, seed, EXPONENT)).encode()).hexdigest()[:12]
    place = folder / f"criteo-{key}"
    if not (place / "field_dims.npy").exists():
        save(draw(num_rows, field_dims, seed), place)
    return place

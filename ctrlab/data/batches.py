"""Batches of a memory-mapped split: block-wise shuffled, reproducible by seed, resumable at any batch."""

import mmap
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctrlab.data.dataset import Split
from ctrlab.data.schema import Fields

#: Rows per chunk, and chunks shuffled together: 262,144 rows, some 40 MB at 39 fields. Smaller splits are shuffled fully.
CHUNK_ROWS = 1024
BUFFER_CHUNKS = 256
#: Chunks of the mapped file that are resident at once.
_RELEASED_CHUNKS = 32

Batch = tuple[Fields, NDArray[np.float32]]


class _Run(NamedTuple):
    """A run of rows, in memory or mapped. order: in which they are emitted; None for the order of the file."""

    rows: Split
    order: NDArray[np.intp] | None

    def take(self, start: int, stop: int) -> Batch:
        rows = slice(start, stop) if self.order is None else self.order[start:stop]
        return self.rows.fields(rows), self.rows.targets(rows)


def num_batches(split: Split, batch_size: int, max_rows: int | None = None) -> int:
    """Number of batches that `iterate_batches` yields from the start."""
    return -(-_num_rows(split, max_rows) // batch_size)


def iterate_batches(
    split: Split, batch_size: int, *, shuffle: bool, seed: int = 0, start_batch: int = 0, max_rows: int | None = None
) -> Iterator[Batch]:
    """Yield each row of the split exactly once, `batch_size` at a time; the last batch may be shorter.

    Args:
        shuffle: random order determined by `seed`; use another seed for each epoch.
        start_batch: skip this many batches without reading them, to resume.
        max_rows: stop after this many rows (in the shuffled order, if shuffled).

    Yields:
        Fields of int32 ids (B, F), float32 values (B, V) and int32 lists (B, total length); float32 labels (B,), or (B, 2)
        weights of clicks and of non-clicks, see `Split.targets`.

    >>> split = Split("train", np.arange(5)[:, None], np.zeros((5, 0)), np.array([0, 1, 0, 1, 1]))
    >>> [(fields.ids.ravel().tolist(), labels.tolist()) for fields, labels in iterate_batches(split, 3, shuffle=False)]
    [([0, 1, 2], [0.0, 1.0, 0.0]), ([3, 4], [1.0, 1.0])]
    """
    total = _num_rows(split, max_rows)
    position = start_batch * batch_size
    pending: list[Batch] = []
    for start, run in _runs(split, shuffle, seed, position):
        stop = min(start + len(run.rows), total)
        while position < stop:
            # A batch may span two runs; `pending` holds its first part until the next run is read.
            end = min(stop, (position // batch_size + 1) * batch_size)
            pending.append(run.take(position - start, end - start))
            position = end
            if position % batch_size == 0 or position == total:
                yield _join(pending)
                pending = []
        if position >= total:
            return
        del run  # free its rows before the next run is read


def _num_rows(split: Split, max_rows: int | None) -> int:
    return len(split) if max_rows is None else min(max_rows, len(split))


def _runs(split: Split, shuffle: bool, seed: int, position: int) -> Iterator[tuple[int, _Run]]:
    """Runs of rows with their offsets in the emitted order, starting with the run that contains `position`."""
    if not shuffle:
        yield 0, _Run(split, None)
        return
    starts = np.random.default_rng(seed).permutation(np.arange(0, len(split), CHUNK_ROWS))
    offset = 0
    for first in range(0, len(starts), BUFFER_CHUNKS):
        chunks = [slice(start, min(start + CHUNK_ROWS, len(split))) for start in starts[first : first + BUFFER_CHUNKS].tolist()]
        size = sum(chunk.stop - chunk.start for chunk in chunks)
        if offset + size > position:
            # Seeded by the number of the run, so that skipped runs need no random numbers.
            order = np.random.default_rng((seed, first)).permutation(size)
            arrays = (split.ids, split.values, split.labels, split.lists, *(() if split.weights is None else (split.weights,)))
            gathered = Split(split.name, *(_gathered(array, chunks, size) for array in arrays))
            yield offset, _Run(gathered, order)
            del gathered
        offset += size


def _gathered(array: NDArray[Any], chunks: list[slice], size: int) -> NDArray[Any]:
    """The concatenated chunks, `size` rows; pages of a mapped file are released along the way."""
    out, end = np.empty((size, *array.shape[1:]), array.dtype), 0
    for number, chunk in enumerate(chunks):
        start, end = end, end + chunk.stop - chunk.start
        out[start:end] = array[chunk]
        if number % _RELEASED_CHUNKS == _RELEASED_CHUNKS - 1 or end == size:
            _release(array)
    return out


def _release(array: NDArray[Any]) -> None:
    """Release the resident pages of a mapped file (MADV_DONTNEED): they count as process memory; the page cache keeps them."""
    if isinstance(array, np.memmap) and array.mode == "r" and hasattr(array._mmap, "madvise"):  # type: ignore[attr-defined]
        array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def _join(parts: list[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    fields = Fields(*(np.concatenate(arrays) for arrays in zip(*(fields for fields, _ in parts), strict=True)))
    return fields, np.concatenate([labels for _, labels in parts])

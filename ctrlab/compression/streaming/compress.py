"""Compress an embedding table that lies in a file, however large: one pass for its moments, one for its projection."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ctrlab.compression.projection import project_rows_
from ctrlab.compression.streaming.tables import CountsReader, StoredTable, TableReader, open_stored_table
from ctrlab.compression.streaming.writing import LatentsFile, require_writable
from ctrlab.decomposition.covariance import Moments, decompose
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.engines.parallel_map import parallel_map
from ctrlab.errors import CompressionError, JobCancelled

#: Bytes read in one piece: long enough that a disk streams, and several of them are still little memory.
BLOCK_BYTES = 8 << 20

Progress = Callable[[float, str], None]
Block = tuple[int, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamedTable:
    """A compressed table: e = projection z + mean, with z (num_ids, rank) float32 in the first of `paths`.

    spectrum: of all d directions, weighted by the counts.
    projection: float32 (d, rank) U_k. mean: float32 (d,) mu.
    """

    table: StoredTable
    rank: int
    spectrum: LayerSpectrum
    projection: NDArray[np.float32]
    mean: NDArray[np.float32]
    paths: list[Path]
    duration_seconds: float

    def description(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "num_ids": self.table.num_ids, "embed_dim": self.table.width, "rank": self.rank,
            "parameters_before": self.table.num_ids * self.table.width,
            "parameters_after": self.table.num_ids * self.rank + self.table.width * (self.rank + 1),
            "variance_lost": self.spectrum.variance_lost(self.rank),
            "mean_squared_error": self.spectrum.discarded(self.rank),
            "eigenvalues": self.spectrum.eigenvalues.tolist(), "duration_seconds": self.duration_seconds,
            "files": [str(path) for path in self.paths],
        }  # fmt: skip


def compress_table(
    path: str | Path,
    counts: NDArray[Any] | str | Path | None,
    rank: int | None,
    out: str | Path,
    *,
    variance: float | None = None,
    tensor: str | None = None,
    threads: int | None = None,
    block_bytes: int = BLOCK_BYTES,
    on_progress: Progress = lambda fraction, message: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> StreamedTable:
    """AFM of an embedding table (paper, section 3.3) that may be larger than memory: read twice, written once.

    Args:
        path: `.npy` (float32, float16) or `.safetensors` (bfloat16 as well), rows by id.
        counts: (num_ids,) how often each id occurs in training, an array or a `.npy` file; None counts every id once.
        rank: k; None with `variance`, the share of the variance to keep.
        out: the `.safetensors` or `.npy` file to write (see `LatentsFile`).
        tensor: the table's name in a `.safetensors` file of several matrices.
        threads: half the blocks in memory at once; torch's number of threads by default.
        block_bytes: of the rows of a block, at least one row.

    Raises:
        DataError: the table or the counts cannot be read, or `out` cannot be written.
        SpectrumError: no id was ever counted, or the table holds values that are not finite.
        CompressionError: neither or both of rank and variance, or one out of its range.
        JobCancelled: `should_stop()` was true between two blocks; `out` is as it was.
    """
    started, out = time.perf_counter(), Path(out)
    require_writable(out)
    table = open_stored_table(path, tensor)
    _check_rank(table, rank, variance)
    # Two threads a core: some wait for the disk while the others sum.
    stream = _Stream(table, 2 * (threads or torch.get_num_threads()), block_bytes, on_progress, should_stop)
    spectrum = stream.spectrum(counts)
    rank = spectrum.rank_for(variance) if variance is not None else rank
    assert rank is not None and spectrum.eigenvectors is not None
    projection, mean = spectrum.eigenvectors[:, :rank], spectrum.mean
    small = {"projection": np.ascontiguousarray(projection, np.float32), "mean": mean.astype(np.float32)}
    with LatentsFile(out, table.num_ids, rank, small | {"eigenvalues": spectrum.eigenvalues}) as file:
        stream.project(projection, mean, file)
        paths = file.finish()
    return StreamedTable(
        table=table, rank=rank, spectrum=spectrum, paths=paths, duration_seconds=time.perf_counter() - started, **small
    )  # fmt: skip


def _check_rank(table: StoredTable, rank: int | None, variance: float | None) -> None:
    if (rank is None) == (variance is None):
        raise CompressionError("give either the rank of the table or the share of variance (variance) it keeps")
    if rank is not None and not 1 <= rank <= table.width:
        raise CompressionError(f"rank {rank} for a table of width {table.width} must be between 1 and {table.width}")
    if variance is not None and not 0 < variance <= 1:
        raise CompressionError(f"variance {variance} must lie between 0 and 1; 0.95 keeps 95 %")


class _Stream:
    """The two passes over one table."""

    def __init__(
        self, table: StoredTable, threads: int, block_bytes: int, on_progress: Progress, should_stop: Callable[[], bool]
    ) -> None:
        self.table, self.threads, self.block_bytes = table, threads, block_bytes
        self.on_progress, self.should_stop = on_progress, should_stop

    def spectrum(self, counts: NDArray[Any] | str | Path | None) -> LayerSpectrum:
        """The first pass. Blocks merge in their order: the result does not depend on the threads."""
        moments = Moments(self.table.width)
        with TableReader(self.table) as reader, CountsReader(counts, self.table.num_ids) as weights:
            reader.expect_all()

            def moments_of(block: Block) -> Moments:
                return Moments(self.table.width).update(reader.rows(*block), weights.read(*block))

            for part in parallel_map(moments_of, self._blocks(0.0, "moments"), threads=self.threads):
                moments.merge(part)
        return decompose(self.table.name, "embedding", moments, torch.zeros(0))

    def project(self, projection: NDArray[np.float64], mean: NDArray[np.float64], file: LatentsFile) -> None:
        """The second pass."""
        basis, centre = torch.tensor(projection), torch.tensor(mean)
        with TableReader(self.table) as reader:
            reader.expect_all()

            def write(block: Block) -> None:
                latents = torch.empty(block[1] - block[0], basis.shape[1])
                project_rows_(latents, reader.rows(*block), basis, centre)
                file.write(block[0], latents.numpy())

            for _ in parallel_map(write, self._blocks(0.5, "projection"), threads=self.threads):
                pass
        self.on_progress(1.0, "done")

    def _blocks(self, done: float, message: str) -> Iterator[Block]:
        size = max(1, self.block_bytes // self.table.row_bytes)
        for start in range(0, self.table.num_ids, size):
            if self.should_stop():
                raise JobCancelled("compressing the table was cancelled; nothing was kept")
            self.on_progress(done + 0.5 * start / self.table.num_ids, f"{message}: {start:,} of {self.table.num_ids:,} ids")
            yield start, min(start + size, self.table.num_ids)

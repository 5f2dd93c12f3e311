"""Third step of an encoding: transposes encoded columns into the row-major arrays of the splits."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrlab.data.configs import SPLIT_NAMES
from ctrlab.data.dataset import split_file
from ctrlab.data.encoding.column_cache import ColumnCache, encoded_dtype
from ctrlab.data.encoding.encoder import FieldEncoder
from ctrlab.data.encoding.fields import Field
from ctrlab.data.encoding.threads import map_in_threads

#: Rows that a thread transposes at once.
BLOCK_ROWS = 1 << 15
#: Blocks between two writes of the journal.
_ROUND_BLOCKS = 64


class SplitWriter:
    """Writes the .npy files of the splits. A block has fixed offsets, so blocks may be written in parallel and repeated.

    num_blocks: number of blocks of `BLOCK_ROWS` rows.
    """

    def __init__(self, encoder: FieldEncoder, cache: ColumnCache, folder: Path, targets: "dict[str, np.dtype[Any]]") -> None:
        """Args:
        targets: types of the arrays of one number a row, {"labels": uint8} or with "weights".
        """
        self._cache, self._folder, self._targets = cache, folder, targets
        numbers = {field.name: number for number, field in enumerate(encoder.fields)}
        self._groups: dict[str, list[tuple[int, Field]]] = {
            name: [(numbers[field.name], field) for field in fields]
            for name, fields in (("ids", encoder.id_fields), ("values", encoder.value_fields), ("lists", encoder.list_fields))
        }
        self._widths = {name: sum(field.width for _, field in group) for name, group in self._groups.items()}
        self._splits = cache.array("splits")
        starts = range(0, len(self._splits), BLOCK_ROWS)
        counts = np.array([np.bincount(self._splits[start : start + BLOCK_ROWS], minlength=len(SPLIT_NAMES)) for start in starts])
        self._totals, self._firsts = counts.sum(axis=0), np.cumsum(counts, axis=0) - counts
        self.num_blocks = len(counts)

    def write(self, first_block: int, on_blocks: Callable[[int], None], on_round: Callable[[int], None]) -> None:
        """Write the rows of all blocks from `first_block` on.

        Args:
            on_blocks: called several times a second with the number of blocks written; may raise to stop.
            on_round: called after each round with the number of blocks that a resumed run may skip.
        """
        with ExitStack() as stack:
            self._files = {
                (split, name): stack.enter_context(self._open(split, name, first_block == 0))
                for split in np.flatnonzero(self._totals).tolist()
                for name in ("ids", "values", "lists", *self._targets)
            }
            self._columns = {
                number: stack.enter_context((self._cache.folder / f"{number}.encoded").open("rb"))
                for group in self._groups.values()
                for number, _ in group
            }
            self._target_files = {name: stack.enter_context((self._cache.folder / name).open("rb")) for name in self._targets}
            for start in range(first_block, self.num_blocks, _ROUND_BLOCKS):
                blocks = range(start, min(start + _ROUND_BLOCKS, self.num_blocks))
                map_in_threads(self._write_block, blocks, lambda done, start=start: on_blocks(start + done))  # type: ignore[misc]
                on_round(blocks.stop)

    def _open(self, split: int, name: str, create: bool) -> Any:
        """A split's .npy file, positioned after its header."""
        path = split_file(self._folder, SPLIT_NAMES[split], name)
        file = path.open("w+b" if create else "r+b", buffering=0)
        dtype = self._targets.get(name, np.dtype(np.float32 if name == "values" else np.int32))
        width = () if name in self._targets else (self._widths[name],)
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, header | {"shape": (int(self._totals[split]), *width)})
        return file

    def _write_block(self, block: int) -> None:
        first = block * BLOCK_ROWS
        splits = self._splits[first : first + BLOCK_ROWS]
        order = np.argsort(splits, kind="stable")
        places = np.empty(len(splits), np.int64)
        places[order] = np.arange(len(splits))
        for name, dtype in self._targets.items():
            self._write(block, name, _read(self._target_files[name], dtype, first, len(splits), 1)[order], splits)
        for name in ("ids", "values"):
            self._write(block, name, self._rows(name, first, places), splits)
        self._write(block, "lists", self._list_rows(first, order), splits)

    def _rows(self, name: str, first: int, places: NDArray[np.int64]) -> NDArray[Any]:
        from ctrlab.data.encoding.compiled.rows import scatter_rows

        group, dtype = self._groups[name], np.float32 if name == "values" else np.int32
        columns = np.empty((len(group), len(places)), dtype)
        for column, (number, field) in zip(columns, group, strict=True):
            column[:] = _read(self._columns[number], encoded_dtype(field), first, len(places), 1)
        rows = np.empty((len(places), len(group)), dtype)
        scatter_rows(columns, places, rows)
        return rows

    def _list_rows(self, first: int, order: NDArray[np.intp]) -> NDArray[np.int32]:
        rows, start = np.empty((len(order), self._widths["lists"]), np.int32), 0
        for number, field in self._groups["lists"]:
            cells = _read(self._columns[number], np.int32, first, len(order), field.width)
            rows[:, start : start + field.width] = cells.reshape(len(order), field.width)[order]
            start += field.width
        return rows

    def _write(self, block: int, name: str, rows: NDArray[Any], splits: NDArray[np.uint8]) -> None:
        """Write a block's rows, sorted by split, to the files of the splits."""
        counts = np.bincount(splits, minlength=len(SPLIT_NAMES)).tolist()
        start, row_bytes = 0, rows.nbytes // max(1, len(rows))
        for split, count in enumerate(counts):
            if count and row_bytes:
                file = self._files[split, name]
                data = rows[start : start + count].data.cast("B")
                offset = _header_bytes(file) + int(self._firsts[block, split]) * row_bytes
                while data:
                    written = os.pwrite(file.fileno(), data, offset)
                    data, offset = data[written:], offset + written
            start += count


def _read(file: Any, dtype: Any, first: int, rows: int, width: int) -> NDArray[Any]:
    itemsize = np.dtype(dtype).itemsize * width
    return np.frombuffer(os.pread(file.fileno(), rows * itemsize, first * itemsize), dtype)


def _header_bytes(file: Any) -> int:
    # The position is where writing the header left it; data is written with pwrite, which does not move it.
    position: int = file.tell()
    return position

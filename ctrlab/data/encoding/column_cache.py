"""On-disk column cache between parsing and fitting, one file per field, and the journal of the encoding.

Layout of the folder, which is removed when the dataset is complete:
    journal.json        `EncodingJournal`
    splits, labels      uint8, split index and label of each row that is kept; soft labels are float32
    weights             float32, weight of each row that is kept, where rows have weights
    <i>.cells           parsed cells of field i, see `fields`
    <i>.<round>.texts   Arrow file of the texts whose key is a hash, of one round of blocks
    <i>.encoded         encoded cells of field i: int32 ids or float32 values
    <i>.json, <i>.counts.npy, <i>.vocabulary   fitted field i; the JSON file is written last

Files are append-only and the journal is written after them: on resuming, data beyond the journal is truncated.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.encoding.fields import Field, Mask, ParsedColumn
from ctrlab.data.encoding.journal import EncodingJournal

#: Rows per block when parsed cells are read back.
BLOCK_ROWS = 1 << 16
_JOURNAL = "journal.json"
_ENCODED_DTYPES = {"ids": np.int32, "lists": np.int32, "values": np.float32}


class ColumnCache:
    """The files of a cache folder; the module's docstring lists them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def read_journal(self) -> EncodingJournal | None:
        """The journal; None if there is none or it is damaged."""
        try:
            return EncodingJournal.from_dict(json.loads((self.folder / _JOURNAL).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write_journal(self, journal: EncodingJournal) -> None:
        write_atomic(self.folder / _JOURNAL, json.dumps(journal.to_dict()))

    def append(self, name: str, array: NDArray[Any]) -> None:
        """Append an array's bytes to a file."""
        with (self.folder / name).open("ab", buffering=0) as file:
            _write_all(file, np.ascontiguousarray(array))

    def append_cells(self, number: int, field: Field, columns: list[ParsedColumn], round_number: int) -> None:
        """Append field `number`'s parsed cells of a round of blocks."""
        for column in columns:
            self.append(f"{number}.cells", column.cells.astype(field.cell_dtype, copy=False))
        texts = [column.texts for column in columns if column.texts is not None]
        if texts:
            pl.concat(texts).write_ipc(self.folder / f"{number}.{round_number}.texts")

    def truncate(self, name: str, size: int) -> bool:
        """Truncate a file to `size` bytes; False if it is shorter."""
        path = self.folder / name
        if not path.exists():
            path.touch()
        if path.stat().st_size < size:
            return False
        with path.open("r+b") as file:
            file.truncate(size)
        return True

    def cells_size(self, field: Field, rows: int) -> int:
        """Size in bytes of `rows` rows of a field's parsed cells."""
        return rows * field.width * np.dtype(field.cell_dtype).itemsize

    def array(self, name: str) -> NDArray[np.uint8]:
        """The whole of `splits`."""
        return np.fromfile(self.folder / name, np.uint8)

    def remove(self, pattern: str) -> None:
        """Delete the files that match a glob pattern."""
        for path in self.folder.glob(pattern):
            path.unlink()

    def delete(self) -> None:
        """Delete the folder, the journal last: an interrupted deletion can be repeated."""
        for path in self.folder.iterdir():
            if path.name != _JOURNAL:
                path.unlink()
        self.remove(_JOURNAL)
        self.folder.rmdir()


class CachedCells:
    """One field's parsed cells on disk, as `fields.ParsedCells`.

    on_block: called before each block; may raise to stop.
    """

    def __init__(self, cache: ColumnCache, number: int, field: Field, on_block: Callable[[], None] = lambda: None) -> None:
        self._cache, self._number, self._field, self._on_block = cache, number, field, on_block

    def blocks(self) -> Iterator[tuple[NDArray[Any], Mask]]:
        for cells, splits in self.split_blocks():
            yield cells, splits == 0

    def split_blocks(self) -> Iterator[tuple[NDArray[Any], NDArray[np.uint8]]]:
        """As `blocks`, with the split of each row, uint8 (n,), in place of the mask."""
        dtype, width = np.dtype(self._field.cell_dtype), self._field.width
        step = max(1, BLOCK_ROWS // width)
        with (
            (self._cache.folder / f"{self._number}.cells").open("rb", buffering=0) as cells_file,
            (self._cache.folder / "splits").open("rb", buffering=0) as splits_file,
        ):
            while len(splits := np.fromfile(splits_file, np.uint8, step)):
                self._on_block()
                cells = np.fromfile(cells_file, dtype, len(splits) * width)
                yield cells.reshape(len(splits), width) if self._field.output == "lists" else cells, splits

    def texts(self) -> Iterator[pl.DataFrame]:
        files = self._cache.folder.glob(f"{self._number}.*.texts")
        for path in sorted(files, key=lambda path: int(path.name.split(".")[1])):
            yield pl.read_ipc(path)


def encoded_dtype(field: Field) -> type[np.generic]:
    """Data type of a field's encoded cells."""
    return _ENCODED_DTYPES[field.output]


def write_atomic(path: Path, text: str) -> None:
    """Replace a file's content atomically."""
    partial = path.with_name(path.name + ".new")
    partial.write_text(text)
    partial.replace(path)


def _write_all(file: Any, array: NDArray[Any]) -> None:
    left = memoryview(array.data).cast("B") if array.size else memoryview(b"")
    while left:
        left = left[file.write(left) :]

"""What was read of a table, a file a field, until its vocabularies are settled; and how far the work has come.

Layout of the folder, which is removed when the dataset is complete:
    journal.json        which rows are in the files below, and where in the raw files to go on
    parts, labels       uint8, each row's split and label
    <i>.kept            what field i keeps of its cells, see `fields`
    <i>.<round>.texts   texts whose key is a hash (Arrow), those of one round of blocks
    <i>.ids             what field i makes of its cells: int32 ids or float32 values
    <i>.json, <i>.counts.npy, <i>.vocabulary   field i, fitted; the first is written last

Files only grow, and the journal is written after them: what lies beyond it is cut off when the work goes on.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.encoding.fields import Field, Mask, Reading

#: Rows in hand at once when kept cells are gone through.
SPOOL_ROWS = 1 << 16
_RESULT_DTYPES = {"ids": np.int32, "lists": np.int32, "values": np.float32}


class Spool:
    """The folder; see the module."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def read_journal(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads((self.folder / "journal.json").read_text()))
        except (OSError, ValueError):
            return None

    def write_journal(self, entry: dict[str, Any]) -> None:
        write_whole(self.folder / "journal.json", json.dumps(entry))

    def append(self, name: str, array: NDArray[Any]) -> None:
        with (self.folder / name).open("ab", buffering=0) as file:
            _write_all(file, np.ascontiguousarray(array))

    def append_readings(self, number: int, field: Field, readings: list[Reading], round_number: int) -> None:
        """What field `number` keeps of the blocks of a round."""
        for reading in readings:
            self.append(f"{number}.kept", reading.kept.astype(field.kept_dtype, copy=False))
        texts = [reading.texts for reading in readings if reading.texts is not None]
        if texts:
            pl.concat(texts).write_ipc(self.folder / f"{number}.{round_number}.texts")

    def cut(self, name: str, size: int) -> bool:
        """Cut a file to `size` bytes; False if it is shorter."""
        path = self.folder / name
        if not path.exists():
            path.touch()
        if path.stat().st_size < size:
            return False
        with path.open("r+b") as file:
            file.truncate(size)
        return True

    def kept_size(self, field: Field, rows: int) -> int:
        """Bytes of `rows` rows of a field's kept cells."""
        return rows * field.width * np.dtype(field.kept_dtype).itemsize

    def array(self, name: str) -> NDArray[np.uint8]:
        """All of `parts` or `labels`."""
        return np.fromfile(self.folder / name, np.uint8)

    def remove(self, pattern: str) -> None:
        for path in self.folder.glob(pattern):
            path.unlink()


class SpooledCells:
    """One field's kept cells on disk, as `fields.Cells`."""

    def __init__(self, spool: Spool, number: int, field: Field, on_block: "Any" = lambda: None) -> None:
        self._spool, self._number, self._field, self._on_block = spool, number, field, on_block

    def blocks(self) -> Iterator[tuple[NDArray[Any], Mask]]:
        dtype, width = np.dtype(self._field.kept_dtype), self._field.width
        step = max(1, SPOOL_ROWS // width)
        with (
            (self._spool.folder / f"{self._number}.kept").open("rb", buffering=0) as cells,
            (self._spool.folder / "parts").open("rb", buffering=0) as parts,
        ):
            while len(part := np.fromfile(parts, np.uint8, step)):
                self._on_block()
                kept = np.fromfile(cells, dtype, len(part) * width)
                yield kept.reshape(len(part), width) if self._field.gives == "lists" else kept, part == 0

    def texts(self) -> Iterator[pl.DataFrame]:
        files = self._spool.folder.glob(f"{self._number}.*.texts")
        for path in sorted(files, key=lambda path: int(path.name.split(".")[1])):
            yield pl.read_ipc(path)


def result_dtype(field: Field) -> type[np.generic]:
    """Of what a field gives."""
    return _RESULT_DTYPES[field.gives]


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it holds all of the text, or what it held before."""
    partial = path.with_name(path.name + ".new")
    partial.write_text(text)
    partial.replace(path)


def _write_all(file: Any, array: NDArray[Any]) -> None:
    left = memoryview(array.data).cast("B") if array.size else memoryview(b"")
    while left:
        left = left[file.write(left) :]

"""Matrices in files that may be larger than memory: found without reading them, read and written a block of rows at a time.

Blocks are read into memory of our own rather than mapped: a mapped table costs a page fault for every 4 KB and fills the resident
memory as it is walked through.
"""

import json
import math
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctrlab.errors import DataError

#: {dtype as safetensors writes it: torch's}.
TABLE_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_COUNT_DTYPES = {"int64", "int32", "uint64", "uint32", "float64", "float32"}
_NPY_DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class StoredTable:
    """A table (num_ids, width) of float32, float16 or bfloat16 that lies row by row in `path`, from byte `offset` on."""

    path: Path
    name: str
    offset: int
    num_ids: int
    width: int
    dtype: torch.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.width * self.dtype.itemsize

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole table."""
        return self.num_ids * self.row_bytes


def open_stored_table(path: str | Path, tensor: str | None = None) -> StoredTable:
    """Find the table in a `.npy` file, or the tensor of that name in a `.safetensors` file (its only matrix by default).

    Raises:
        DataError: the file is missing, of another kind, cut short, or holds no such table.
    """
    path = Path(path)
    opener = {".npy": _npy_table, ".safetensors": _safetensors_table}.get(path.suffix)
    if opener is None:
        raise DataError(f"{path.name} is neither .npy nor .safetensors; save the table as one of these")
    try:
        with path.open("rb") as file:
            table = opener(file, path, tensor)
            end = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give the file that holds the table") from None
    if end < table.offset + table.size_bytes:
        raise DataError(f"{path.name} is cut short: {table.num_ids:,} x {table.width} do not fit into its bytes; copy it again")
    return table


def _npy_table(file: BinaryIO, path: Path, tensor: str | None) -> StoredTable:
    if tensor is not None:
        raise DataError(f"{path.name} holds one unnamed array; leave the tensor's name {tensor!r} out")
    shape, dtype, offset = npy_header(file, path)
    if dtype.name not in _NPY_DTYPES or len(shape) != 2:
        raise DataError(
            f"{path.name} holds {dtype.name} of shape {shape}; a table is float32 or float16 of two dimensions (num_ids, width)"
        )
    return _checked(path, "", offset, shape, _NPY_DTYPES[dtype.name])


def npy_header(file: BinaryIO, path: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """(shape, dtype, where the numbers begin) of an .npy file.

    Raises:
        DataError: it is none, or its numbers lie column by column or in foreign byte order.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(file)
    except ValueError as error:
        raise DataError(f"{path.name} is no .npy file ({error}); save it with numpy.save") from None
    if (by_columns and len(shape) > 1) or not dtype.isnative:
        raise DataError(f"{path.name} lies column by column or in foreign byte order; save numpy.ascontiguousarray of it")
    return shape, dtype, file.tell()


def _safetensors_table(file: BinaryIO, path: Path, tensor: str | None) -> StoredTable:
    try:
        size = int.from_bytes(file.read(8), "little")
        if size > 100_000_000:  # the format's own limit
            raise ValueError("its header is too long")
        entries = json.loads(file.read(size))
        entries.pop("__metadata__", None)
        matrices = [name for name, entry in entries.items() if len(entry["shape"]) == 2]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{path.name} is no .safetensors file ({error}); save it with safetensors") from None
    if tensor is None and len(matrices) == 1:
        tensor = matrices[0]
    if tensor not in matrices:
        asked = "is not named" if tensor is None else f"{tensor!r} is not there"
        raise DataError(f"{path.name}: the table {asked}; its matrices are {', '.join(sorted(matrices)) or 'none'}")
    entry = entries[tensor]
    if entry["dtype"] not in TABLE_DTYPES:
        raise DataError(f"{tensor} of {path.name} is {entry['dtype']}; a table is {', '.join(TABLE_DTYPES)}")
    return _checked(path, str(tensor), 8 + size + entry["data_offsets"][0], tuple(entry["shape"]), TABLE_DTYPES[entry["dtype"]])


def _checked(path: Path, name: str, offset: int, shape: tuple[int, ...], dtype: torch.dtype) -> StoredTable:
    if not math.prod(shape):
        raise DataError(f"{path.name}: a table of shape {shape} is empty; give one with rows and columns")
    return StoredTable(path=path, name=name or path.stem, offset=offset, num_ids=shape[0], width=shape[1], dtype=dtype)


class BlockReader:
    """Reads rows start..stop of a file of equal rows, from any thread; each thread has one buffer, which its next read reuses."""

    def __init__(self, path: Path, offset: int, row_bytes: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._offset, self._row_bytes = offset, row_bytes
        self._own = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def expect_all(self) -> None:
        """Tell the system that the file is about to be read from its first byte to its last."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), self._offset, 0, os.POSIX_FADV_SEQUENTIAL)

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """The rows' bytes, valid until this thread's next read."""
        wanted = (stop - start) * self._row_bytes
        buffer: NDArray[np.uint8] | None = getattr(self._own, "buffer", None)
        if buffer is None or len(buffer) < wanted:
            buffer = self._own.buffer = np.empty(wanted, np.uint8)
        view, done = buffer.data[:wanted], 0
        while done < wanted:
            got = os.preadv(self._file.fileno(), [view[done:]], self._offset + start * self._row_bytes + done)
            if not got:
                raise DataError(f"{Path(self._file.name).name} became shorter while it was read; leave it alone and start again")
            done += got
        return buffer[:wanted]


class TableReader(BlockReader):
    """Blocks of a stored table as tensors."""

    def __init__(self, table: StoredTable) -> None:
        super().__init__(table.path, table.offset, table.row_bytes)
        self.table = table

    def rows(self, start: int, stop: int) -> Tensor:
        """(stop - start, width) in float32, valid until this thread's next read."""
        block = torch.from_numpy(self.read(start, stop)).view(self.table.dtype).view(-1, self.table.width)
        return block.float()


class CountsReader:
    """How often each id occurs, block by block: from an array, from a `.npy` file, or once each where `counts` is None."""

    def __init__(self, counts: NDArray[Any] | str | Path | None, num_ids: int) -> None:
        self._array: NDArray[Any] | None = None
        self._file: BlockReader | None = None
        self._dtype: np.dtype[Any] = np.dtype(np.int64)
        shape: tuple[int, ...] = (num_ids,)
        if isinstance(counts, np.ndarray):
            self._array, self._dtype, shape = counts, counts.dtype, counts.shape
        elif counts is not None:
            shape, self._dtype, offset = self._open(Path(counts))
            self._file = BlockReader(Path(counts), offset, self._dtype.itemsize)
        if self._dtype.name not in _COUNT_DTYPES:
            self.close()
            raise DataError(f"counts are {self._dtype.name}; they are one of {', '.join(sorted(_COUNT_DTYPES))}")
        if shape != (num_ids,):
            self.close()
            raise DataError(f"counts of shape {shape} were given for a table of {num_ids:,} ids; give one count for each id")

    @staticmethod
    def _open(path: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
        try:
            with path.open("rb") as file:
                return npy_header(file, path)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}); give the .npy file of the counts") from None

    def read(self, start: int, stop: int) -> Tensor | None:
        """float64 (stop - start,), or None where every id counts once.

        Raises:
            DataError: a count is negative or no number.
        """
        if self._file is not None:
            part = self._file.read(start, stop).view(self._dtype)
        elif self._array is not None:
            part = self._array[start:stop]
        else:
            return None
        counts = np.asarray(part, np.float64)
        if not (counts >= 0).all():
            raise DataError(f"counts of ids {start:,} to {stop:,} are negative or no numbers; counts are 0 or more")
        return torch.from_numpy(counts)

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.__exit__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

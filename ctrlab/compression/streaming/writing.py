"""The compressed table's files: everything small first, then the latents in any order of their blocks."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrlab.errors import DataError

LATENTS = "latents"
_SAFETENSORS_DTYPES = {"float32": "F32", "float64": "F64"}


class LatentsFile:
    """The file `out`, while its latents (num_ids, rank) float32 are being written; it gets its name only when all is there.

    `.safetensors`: one file with the tensors `latents` and those of `small`. `.npy`: the latents there, and each array of
    `small` next to it as `<stem>.<name>.npy`.
    """

    def __init__(self, out: Path, num_ids: int, rank: int, small: Mapping[str, NDArray[Any]]) -> None:
        self._out, self._part = out, out.with_name(out.name + ".part")
        self._row_bytes = rank * 4
        self._small_files = dict(small) if out.suffix == ".npy" else {}
        header = _npy_header((num_ids, rank)) if out.suffix == ".npy" else _safetensors_header((num_ids, rank), small)
        try:
            self._file = self._part.open("wb", buffering=0)
        except OSError as error:
            raise DataError(f"{out} cannot be written ({error.strerror}); choose another place") from None
        self._file.write(header)
        self._start = len(header)

    def write(self, first_row: int, latents: NDArray[np.float32]) -> None:
        """Put rows from `first_row` on in their place; from any thread."""
        view, done = latents.data.cast("B"), 0
        while done < len(view):
            try:
                done += os.pwrite(self._file.fileno(), view[done:], self._start + first_row * self._row_bytes + done)
            except OSError as error:
                raise DataError(f"{self._out.name} cannot be written ({error.strerror}); make room and start again") from None

    def finish(self) -> list[Path]:
        """Give the file its name; all paths that were written."""
        self._file.close()
        paths = [self._out, *(self._out.with_name(f"{self._out.stem}.{name}.npy") for name in self._small_files)]
        for path, array in zip(paths[1:], self._small_files.values(), strict=True):
            np.save(path, array)
        self._part.replace(self._out)
        return paths

    def __enter__(self) -> "LatentsFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        with suppress(FileNotFoundError):  # finished
            self._part.unlink()


def require_writable(out: Path) -> None:
    """Refuse names of another kind of file and folders that are not there, before an hour is spent.

    Raises:
        DataError: `out` cannot become a file of latents.
    """
    if out.suffix not in (".npy", ".safetensors"):
        raise DataError(f"{out.name} is neither .npy nor .safetensors; name the file to write as one of these")
    if not out.parent.is_dir():
        raise DataError(f"the folder {out.parent} is not there; make it first")


def _npy_header(shape: tuple[int, int]) -> bytes:
    from io import BytesIO

    stream = BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _safetensors_header(shape: tuple[int, int], small: Mapping[str, NDArray[Any]]) -> bytes:
    """The JSON header and the small tensors; the latents come last, so that their bytes may still be unknown."""
    entries, values, end = {}, b"", 0
    for name, array in small.items():
        values += array.tobytes()
        entries[name] = _entry(array.dtype.name, array.shape, end, len(values))
        end = len(values)
    entries[LATENTS] = _entry("float32", shape, end, end + shape[0] * shape[1] * 4)
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + values


def _entry(dtype: str, shape: tuple[int, ...], start: int, end: int) -> dict[str, Any]:
    return {"dtype": _SAFETENSORS_DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}

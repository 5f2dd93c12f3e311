"""Opens files as streams of bytes: plain, compressed (gz, zst, bz2, xz), or a member of a zip or tar archive."""

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

import pyarrow as pa

from ctrlab.data.tables.faults import read_fault
from ctrlab.errors import DataError

#: First bytes of a compressed file, and what it is compressed by.
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
#: What decompressing damaged data raises.
STREAM_ERRORS = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, zipfile.BadZipFile, tarfile.TarError, RuntimeError)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_TAR_MAGIC, _TAR_PLACE = b"ustar", 257
#: Files beside the tables of an archive or folder.
_NO_TABLES = ("readme", "license", "licence", "copying", "changelog", "__macosx")
_NO_TABLE_ENDS = (
    ".md",
    ".pdf",
    ".html",
    ".htm",
    ".png",
    ".jpg",
    ".py",
    ".ipynb",
    ".crc",
    ".docx",
    ".sql",
    ".sh",
    ".yaml",
    ".yml",
)


class ByteStream(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes: ...


def compression_of(magic: bytes) -> str | None:
    """The compression that a file's first bytes announce."""
    return next((kind for start, kind in COMPRESSIONS.items() if magic.startswith(start)), None)


def is_table_name(name: str) -> bool:
    """Whether a file in a folder or archive may be a table: not hidden, no marker such as _SUCCESS, no readme.

    >>> is_table_name("day=1/part-0.csv"), is_table_name("_SUCCESS"), is_table_name(".part-0.csv.crc")
    (True, False, False)
    """
    parts = PurePosixPath(name).parts
    return bool(parts) and not (
        any(part.startswith((".", "_")) for part in parts)
        or any(part.lower().startswith(_NO_TABLES) for part in parts)
        or parts[-1].lower().endswith(_NO_TABLE_ENDS)
    )


def archive_members(path: Path) -> list[str] | None:
    """Names of the files in a zip or tar archive; None for a file that is no archive.

    Raises:
        DataError: the archive is damaged, or a spreadsheet.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    try:
        if magic in _ZIP:
            with zipfile.ZipFile(path) as archive:
                names = [info.filename for info in archive.infolist() if not info.is_dir()]
            return _no_document(path, names)
        if _is_tar(path, magic):
            with path.open("rb") as file, tarfile.open(fileobj=_decompressed(file, compression_of(magic)), mode="r|") as tar:
                return [member.name for member in tar if member.isfile()]
    except STREAM_ERRORS as error:
        raise read_fault(path, error) from None
    return None


def _no_document(path: Path, names: list[str]) -> list[str]:
    if any(name.startswith("xl/") for name in names):
        raise DataError(f"{path.name} is an Excel workbook; save its sheet as CSV, then give that file")
    if "content.xml" in names or "[Content_Types].xml" in names:
        raise DataError(f"{path.name} is an office document; save its table as CSV, then give that file")
    if names and all(name.endswith(".npy") for name in names):
        raise DataError(f"{path.name} is a NumPy archive; save it as CSV or Parquet, then give that file")
    return names


def _is_tar(path: Path, magic: bytes) -> bool:
    kind = compression_of(magic)
    try:
        with path.open("rb") as file:
            head = _decompressed(file, kind).read(_TAR_PLACE + len(_TAR_MAGIC))
    except (*STREAM_ERRORS, pa.ArrowInvalid):
        return False
    return bool(head[_TAR_PLACE:] == _TAR_MAGIC)


@contextmanager
def open_bytes(path: Path, member: str | None = None) -> Iterator[tuple[ByteStream, Any]]:
    """The uncompressed bytes of a file or of an archive's member, and the raw file, whose `tell` shows the progress."""
    if member is None:
        with pa.OSFile(str(path)) as raw:
            magic = raw.read(8)
            raw.seek(0)
            kind = compression_of(magic)
            if kind in ("gzip", "zstd"):
                yield pa.CompressedInputStream(raw, kind), raw
                return
            if kind is None:
                yield raw, raw
                return
        with path.open("rb") as file:
            yield _decompressed(file, kind), file
        return
    with path.open("rb") as file:
        magic = file.read(8)
        file.seek(0)
        if magic[:4] in _ZIP:
            with zipfile.ZipFile(file) as archive, archive.open(member) as inner:
                yield _unpacked(inner), file
        else:
            with tarfile.open(fileobj=_decompressed(file, compression_of(magic)), mode="r|") as tar:
                found = next((tar.extractfile(info) for info in tar if info.name == member), None)
                assert found is not None
                yield _unpacked(found), file


def _decompressed(file: IO[bytes], kind: str | None) -> Any:
    if kind == "gzip":
        return gzip.GzipFile(fileobj=file)
    if kind == "bz2":
        return bz2.BZ2File(file)
    if kind == "xz":
        return lzma.LZMAFile(file)
    if kind == "zstd":
        return pa.CompressedInputStream(pa.PythonFile(file), "zstd")
    return file


class _Rejoined:
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, stream: Any) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int = -1, /) -> bytes:
        if not self._head:
            return bytes(self._stream.read(size))
        piece, self._head = (self._head, b"") if size < 0 else (self._head[:size], self._head[size:])
        return piece

    def readable(self) -> bool:
        return True

    closed = False


def _unpacked(inner: Any) -> Any:
    """A member's bytes, decompressed if it is compressed itself."""
    head = inner.read(8)
    stream = _Rejoined(head, inner)
    return _decompressed(stream, compression_of(head))  # type: ignore[arg-type]

"""Errors about raw files, in one sentence each: what is wrong and what to do. Cells are never quoted."""

import os
import re
from pathlib import Path

from ctrlab.errors import DataError, FileReadError

FORMATS_HINT = "give a CSV, TSV, JSON lines, Parquet, Feather or ORC file, plain or compressed"
#: Longest line in bytes.
LONGEST_LINE = 4 << 20


def read_fault(path: Path, error: Exception) -> DataError:
    """The DataError for an exception raised while reading a file; FileReadError if the operating system failed to read it."""
    if isinstance(error, OSError) and error.errno:
        return FileReadError(f"{path.name} could not be read ({os.strerror(error.errno)}); check the drive and try again")
    if any(sign in str(error) for sign in ("runcated", "ended before the end-of-stream", "unexpected end of")):
        return DataError(f"{path.name} ends too early (its compressed data is cut off); copy or download it again")
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    reason = re.sub(r"(columns, got \d+).*", r"\1", reason)[:160]  # pyarrow quotes the row after it
    return DataError(f"{path.name} is damaged and cannot be read ({reason}); copy or download it again")


def plural(number: str | int, noun: str) -> str:
    """A number with its noun: 1 cell, 3 cells."""
    return f"{number} {noun}" if int(number) == 1 else f"{number} {noun}s"


def megabytes(size: int) -> str:
    """A file size in words."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size} bytes"

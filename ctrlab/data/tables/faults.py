"""Errors about raw files, in one sentence each: what is wrong and what to do. Cells are never quoted."""

import os
import re
from pathlib import Path

import pyarrow as pa

from ctrlab.errors import DataError, FileReadError

FORMATS_HINT = "give a CSV, TSV or Parquet file, plain, .gz or .zst"
#: Longest line in bytes.
LONGEST_LINE = 4 << 20


def parse_fault(path: Path, error: Exception) -> DataError:
    """The DataError for an exception that pyarrow raised while parsing a text file."""
    text, name = str(error), path.name
    if ragged := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", text):
        line, expected, got = ragged.groups()
        return DataError(
            f"{name}: row {line} has {plural(got, 'cell')} where {expected} are expected; "
            "every row needs one cell a column, so mend or remove that row, or set the delimiter"
        )
    if "UTF8" in text:
        row = re.search(r"Row #(\d+)", text)
        return not_utf8(name, f"row {row[1]}" if row else "a row")
    if "straddles" in text:
        return DataError(f"{name}: a line is longer than {LONGEST_LINE >> 20} MB; {FORMATS_HINT}")
    if isinstance(error, pa.ArrowInvalid) and "Empty CSV" in text:
        return DataError(f"{name} has column names and no rows; give a file with data")
    return read_fault(path, error)


def read_fault(path: Path, error: Exception) -> DataError:
    """The DataError for an exception raised while reading a file; FileReadError if the operating system failed to read it."""
    if isinstance(error, OSError) and error.errno:
        return FileReadError(f"{path.name} could not be read ({os.strerror(error.errno)}); check the drive and try again")
    if "runcated" in str(error):
        return DataError(f"{path.name} ends too early (its compressed data is cut off); copy or download it again")
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    reason = re.sub(r"(columns, got \d+).*", r"\1", reason)  # pyarrow quotes the row after it
    return DataError(f"{path.name} is damaged and cannot be read ({reason}); copy or download it again")


def not_utf8(name: str, where: str) -> DataError:
    """The DataError for text that is not UTF-8."""
    return DataError(f"{name}: {where} is not UTF-8 text; save the file as UTF-8 and try again")


def plural(number: str | int, noun: str) -> str:
    """A number with its noun: 1 cell, 3 cells."""
    return f"{number} {noun}" if int(number) == 1 else f"{number} {noun}s"


def megabytes(size: int) -> str:
    """A file size in words."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size} bytes"

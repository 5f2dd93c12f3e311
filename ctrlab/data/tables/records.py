"""Reads records that name their values: JSON lines, a JSON array of objects, libsvm and libffm. All cells become text.

libsvm (`label index:value ...`): an index whose value is always 1 is an element of the list `features`, any other a numeric
column `f<index>`, 0 where a row lacks it. libffm (`label field:feature:value ...`): a column for each field with the feature,
several as a list, or the value if the field has one feature only.
"""

import io
import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import polars as pl

from ctrlab.data.tables.columnar import LIST_SEPARATOR
from ctrlab.data.tables.faults import LONGEST_LINE
from ctrlab.data.tables.lines import LineCounts
from ctrlab.errors import DataError

RecordFormat = Literal["jsonl", "json", "libsvm", "libffm"]
Described = tuple[tuple[str, ...], tuple[str, ...], dict[str, str], dict[str, Any]]
#: Most numeric columns of a libsvm file.
MAX_VALUES = 500
_CHUNK_BYTES = 1 << 20
_VALUE = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_SVM = re.compile(rf"^\s*{_VALUE}(?:\s+qid:\d+)?(?:\s+\d+:{_VALUE})*\s*(?:#.*)?$")
_FFM = re.compile(rf"^\s*{_VALUE}(?:\s+\d+:\d+:{_VALUE})*\s*(?:#.*)?$")
_ONE = {"1", "1.0", "1.", "+1"}


def format_of(text: bytes) -> RecordFormat | None:
    """The format of records that a text's first lines are in; None for delimited text.

    >>> format_of(b'{"click": 1}'), format_of(b'[{"click": 1}]'), format_of(b"0 3:1 9:0.5"), format_of(b"click,site")
    ('jsonl', 'json', 'libsvm', None)
    """
    begin = text.lstrip()[:200]
    if re.match(rb"\[\s*(\{|\])", begin):
        return "json"
    lines = [line.strip() for line in text[: 1 << 16].decode("utf-8", "replace").split("\n")]
    lines = [line for line in lines if line][:50]
    if begin.startswith(b"{"):
        objects = sum(isinstance(_parsed(line), dict) for line in lines[: max(1, len(lines) - 1)])
        return "jsonl" if objects >= 0.5 * max(1, len(lines) - 1) else "json"
    kinds: tuple[tuple[RecordFormat, re.Pattern[str]], ...] = (("libsvm", _SVM), ("libffm", _FFM))
    for kind, pattern in kinds:
        fitting = [line for line in lines if ":" in line and pattern.match(line)]
        if len(fitting) >= max(1, 0.9 * len(lines)):
            return kind
    return None


def describe(name: str, text: bytes, kind: RecordFormat, *, whole: bool) -> Described:
    """Names of the columns, those of lists, those that cannot be read with the reason, and details for `frames`.

    Args:
        text: whole lines of UTF-8 text, the beginning of the file.

    Raises:
        DataError: no record can be read.
    """
    if kind in ("jsonl", "json"):
        return _describe_objects(name, text, kind, whole)
    rows = [row for line in text.decode("utf-8", "replace").split("\n") if (row := _sparse(line, kind)) is not None]
    if not rows:
        raise DataError(f"{name} holds no row that can be read as {kind}; give a file with rows, or set its format")
    return _describe_svm(name, rows) if kind == "libsvm" else _describe_ffm(rows)


def frames(
    name: str, stream: Any, kind: RecordFormat, columns: tuple[str, ...], details: dict[str, Any], lists: tuple[str, ...]
) -> Iterator[tuple[pl.DataFrame, LineCounts]]:
    """Blocks of String columns, and how the lines (of a JSON array: the records) of each were read."""
    if kind == "json":
        yield from _array_frames(name, stream, columns)
        return
    for chunk in _line_chunks(name, stream):
        lines = chunk.decode("utf-8", "replace").split("\n")
        lines = lines[:-1] if lines[-1] == "" else lines
        yield _lines_frame(lines, kind, columns, details, lists)


def _line_chunks(name: str, stream: Any) -> Iterator[bytes]:
    rest = b""
    while piece := stream.read(_CHUNK_BYTES):
        end = piece.rfind(b"\n") + 1
        if end:
            yield rest + piece[:end]
            rest = piece[end:]
        else:
            rest += piece
            if len(rest) > LONGEST_LINE:
                raise DataError(f"{name}: a line is longer than {LONGEST_LINE >> 20} MB; give a file with one record a line")
    if rest:
        yield rest


def _lines_frame(
    lines: list[str], kind: RecordFormat, columns: tuple[str, ...], details: dict[str, Any], lists: tuple[str, ...]
) -> tuple[pl.DataFrame, LineCounts]:
    counts: dict[str, int] = {}
    first: dict[str, int] = {}
    rows: list[list[str | None]] = []
    known = set(columns)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            counts["blank"] = counts.get("blank", 0) + 1
            continue
        record = _parsed(line) if kind == "jsonl" else _sparse(line, kind)
        if kind == "jsonl" and isinstance(record, dict):
            rows.append([_text(record.get(column)) for column in columns])
            if not known.issuperset(map(_name, record)):
                _count(counts, first, "new column", number)
        elif kind != "jsonl" and record is not None:
            row, lost = _sparse_row(record, kind, columns, details, lists)
            rows.append(row)
            if lost:
                _count(counts, first, "value left out", number)
        else:
            _count(counts, first, "unreadable", number)
    frame = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
    return frame, LineCounts(len(lines), len(rows), len(rows), counts, first)


def _count(counts: dict[str, int], first: dict[str, int], kind: str, number: int) -> None:
    counts[kind] = counts.get(kind, 0) + 1
    first.setdefault(kind, number)


def _name(key: str) -> str:
    return key.strip()


def _parsed(text: str) -> Any:
    """The value of a JSON text, numbers as they are written; None if it is not JSON."""
    try:
        value = _DECODER.decode(text.strip())
    except (ValueError, RecursionError):
        return None
    return {_name(key): one for key, one in value.items()} if isinstance(value, dict) else value


_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)


def _text(value: Any) -> str | None:
    """A JSON value as the text of a cell."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list) and not any(isinstance(one, (list, dict)) for one in value):
        return LIST_SEPARATOR.join(text for one in value if (text := _text(one)) is not None) or None
    return json.dumps(value)


def _describe_objects(name: str, text: bytes, kind: RecordFormat, whole: bool) -> Described:
    if kind == "jsonl":
        found = (_parsed(line) for line in text.decode("utf-8", "replace").split("\n") if line.strip())
        objects = [one for one in found if isinstance(one, dict)]
        if len(objects) == 1 and whole and any(isinstance(value, (list, dict)) for value in objects[0].values()):
            raise DataError(f"{name} is one JSON object that holds the rows; give an array of objects, or one object a line")
    else:
        objects = _first_objects(name, text, whole)
    columns: dict[str, str | None] = {}
    lists: set[str] = set()
    for record in objects:
        for key, value in record.items():
            reason = columns.setdefault(key, None)
            if reason is None and isinstance(value, dict):
                columns[key] = "holds records; flatten it to values or lists of them to use it"
            elif reason is None and isinstance(value, list):
                lists.add(key)
                if any(isinstance(one, (list, dict)) for one in value):
                    columns[key] = "holds lists of lists or records; flatten it to values or lists of them to use it"
    if not columns:
        raise DataError(f"{name} is JSON without objects in it; give an array of objects, or one object a line")
    ignored = {key: reason for key, reason in columns.items() if reason}
    if len(ignored) == len(columns):
        first = next(iter(ignored))
        raise DataError(f"{name}: {first} {ignored[first]}, and no other value can be read")
    return tuple(columns), tuple(key for key in columns if key in lists and key not in ignored), ignored, {}


def _first_objects(name: str, text: bytes, whole: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    try:
        for batch, _ in _objects(name, io.BytesIO(text)):
            found += batch
    except DataError:
        if whole and not found:
            raise
    if (
        len(found) == 1
        and whole
        and any(isinstance(value, list) for value in found[0].values())
        and not text.lstrip().startswith(b"[")
    ):
        raise DataError(f"{name} is one JSON object that holds lists; give an array of objects, or one object a line")
    return found


def _objects(name: str, stream: Any) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Objects of a JSON array, or of objects one after the other; and the number of other values."""
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    buffer, place, begun, done = "", 0, False, 0
    while True:
        piece = stream.read(_CHUNK_BYTES)
        buffer, place = buffer[place:] + decoder.decode(piece, final=not piece), 0
        found: list[dict[str, Any]] = []
        others = 0
        while True:
            while place < len(buffer) and (buffer[place] in " \t\r\n," or (not begun and buffer[place] == "[")):
                begun = begun or buffer[place] == "["
                place += 1
            if place >= len(buffer) or buffer[place] == "]":
                break
            try:
                value, place = _DECODER.raw_decode(buffer, place)
            except (ValueError, RecursionError):
                break
            begun = True
            if isinstance(value, dict):
                found.append({_name(key): one for key, one in value.items()})
            else:
                others += 1
        done += len(found) + others
        if found or others:
            yield found, others
        if not piece:
            left = buffer[place:].strip()
            if left and left != "]":
                raise DataError(f"{name} is damaged JSON after record {done:,}; mend or download it again")
            return
        if len(buffer) - place > LONGEST_LINE:
            raise DataError(f"{name} is damaged JSON after record {done:,}, or a record is longer than {LONGEST_LINE >> 20} MB")


def _array_frames(name: str, stream: Any, columns: tuple[str, ...]) -> Iterator[tuple[pl.DataFrame, LineCounts]]:
    known = set(columns)
    for objects, others in _objects(name, stream):
        rows = [[_text(record.get(column)) for column in columns] for record in objects]
        counts: dict[str, int] = {"unreadable": others} if others else {}
        first: dict[str, int] = {"unreadable": 1} if others else {}
        for number, record in enumerate(objects, 1):
            if not known.issuperset(record):
                _count(counts, first, "new column", number)
        frame = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
        yield frame, LineCounts(len(rows) + others, len(rows), len(rows), counts, first)


def _sparse(line: str, kind: str) -> list[tuple[str, ...]] | None:
    """Label, then (index, value) or (field, feature, value) of a line; None if it cannot be read."""
    if not (_SVM if kind == "libsvm" else _FFM).match(line) or not line.strip():
        return None
    label, *cells = line.split("#")[0].split()
    return [(label,), *(tuple(cell.split(":")) for cell in cells if not cell.startswith("qid:"))]


def _describe_svm(name: str, rows: list[list[tuple[str, ...]]]) -> Described:
    ones: dict[str, bool] = {}
    for row in rows:
        for index, value in row[1:]:
            ones[index] = ones.get(index, True) and value in _ONE
    values = sorted((index for index, one in ones.items() if not one), key=int)
    if len(values) > MAX_VALUES:
        raise DataError(
            f"{name} is a libsvm file of {len(values):,} or more numeric features, and at most {MAX_VALUES} are read; save the "
            "columns that it was made from as CSV or Parquet"
        )
    lists = ("features",) if len(values) < len(ones) else ()
    names = ("label", *lists, *(f"f{index}" for index in values))
    return names, lists, {}, {"values": {index: f"f{index}" for index in values}}


def _describe_ffm(rows: list[list[tuple[str, ...]]]) -> Described:
    features: dict[str, set[str]] = {}
    plain: dict[str, bool] = {}
    several: dict[str, bool] = {}
    for row in rows:
        seen: set[str] = set()
        for field, feature, value in row[1:]:
            features.setdefault(field, set()).add(feature)
            plain[field] = plain.get(field, True) and value in _ONE
            several[field] = several.get(field, False) or field in seen
            seen.add(field)
    fields = sorted(features, key=int)
    values = [field for field in fields if not plain[field] and len(features[field]) == 1]
    lists = tuple(f"field_{field}" for field in fields if several[field] and field not in values)
    return ("label", *(f"field_{field}" for field in fields)), lists, {}, {"fields": fields, "values": values}


def _sparse_row(
    row: list[tuple[str, ...]], kind: str, columns: tuple[str, ...], details: dict[str, Any], lists: tuple[str, ...]
) -> tuple[list[str | None], bool]:
    """The cells of a row, and whether a value was left out."""
    cells: dict[str, str] = {"label": row[0][0]}
    lost = False
    for one in row[1:]:
        if kind == "libsvm":
            index, value = one
            name = details["values"].get(index, "features")
            text = value if name != "features" else index
            lost |= name == "features" and (value not in _ONE or "features" not in lists)
        else:
            field, feature, value = one
            name = f"field_{field}"
            is_value = field in details["values"]
            text = value if is_value else feature
            lost |= name not in columns or (not is_value and value not in _ONE) or (name in cells and name not in lists)
        cells[name] = f"{cells[name]}{LIST_SEPARATOR}{text}" if name in cells and name in lists else text
    absent = "0" if kind == "libsvm" else None
    return [
        cells.get(name, absent if name.startswith("f") and name not in lists and kind == "libsvm" else None) for name in columns
    ], lost

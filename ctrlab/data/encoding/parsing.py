"""Raw files to what fields keep of their cells, in rounds of blocks that are parsed side by side.

Delimited text is cut at line ends and split by a compiled loop, straight to keys and numbers: no string is made of a cell that
needs none. Whatever that loop does not know, in a block of any file (quotes, ragged rows, text that is not UTF-8), is left to
Arrow, block by block: both give the same cells, and a fault gets Arrow's diagnosis. Files with line feeds in quotes and Parquet
files go through Arrow altogether.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.encoding.encoder import FieldEncoder
from ctrlab.data.encoding.fields import Field, NumericField, Reading, read_numbers
from ctrlab.data.encoding.fields.vocabulary import LongSeen, arrow_texts, long_texts
from ctrlab.data.encoding.threads import in_threads, num_threads
from ctrlab.data.tables.reader import TableReader

#: Bytes of text split in one piece, and pieces of a round for each thread.
CHUNK_BYTES = 4 << 20
CHUNKS_PER_THREAD = 2


class ParsedBlock(NamedTuple):
    """Rows of a file: what each field keeps of them, in the order of the fields, and the columns wanted as text."""

    rows: int
    readings: list[Reading]
    texts: dict[str, pl.Series]


class Round(NamedTuple):
    """Blocks in the order of the file; `position`: where the next round begins, see `Rounds`."""

    blocks: list[ParsedBlock]
    position: int


class _Pieces(NamedTuple):
    """Unparsed pieces, and the position after them."""

    pieces: list[Any]
    position: int


class _Parser(Protocol):
    def pieces(self, start: int) -> Iterator[_Pieces]: ...

    def parse(self, piece: Any) -> ParsedBlock: ...


def open_rounds(reader: TableReader, encoder: FieldEncoder, as_text: Sequence[str], start: int = 0) -> Iterator[Round]:
    """The rest of a file from `start`, the position of an earlier round or 0.

    Args:
        as_text: columns whose texts are wanted besides the fields.

    Raises:
        DataError: as `TableReader.blocks`.
    """
    plain = reader.layout.format != "parquet" and not reader.layout.multiline and reader.layout.plain_lines
    parser: _Parser = _TextParser(reader, encoder, as_text) if plain else _ArrowParser(reader, encoder, as_text)
    for pieces, position in parser.pieces(start):
        yield Round(in_threads(parser.parse, pieces), position)


@dataclass
class _ArrowParser:
    """Positions are numbers of rows."""

    reader: TableReader
    encoder: FieldEncoder
    as_text: Sequence[str]

    def pieces(self, start: int) -> Iterator[_Pieces]:
        names = dict.fromkeys([*self.as_text, *(own.column for own in self.encoder.fields)])
        frames, rows = [], start
        for frame in self.reader.blocks(list(names), start_row=start):
            frames.append(frame)
            rows += len(frame)
            # One block first: formats are found in it, whatever the threads do.
            if start == 0 or len(frames) == num_threads():
                yield _Pieces(frames, rows)
                frames, start = [], rows
        if frames:
            yield _Pieces(frames, rows)

    def parse(self, piece: pl.DataFrame) -> ParsedBlock:
        readings = [own.read(piece[own.column]) for own in self.encoder.fields]
        return ParsedBlock(len(piece), readings, {name: piece[name] for name in self.as_text})


@dataclass
class _TextParser:
    """Positions are bytes of the text, unpacked and without its first line if that holds names."""

    reader: TableReader
    encoder: FieldEncoder
    as_text: Sequence[str]
    _kinds: "_Kinds" = field(init=False)
    _seen: dict[str, LongSeen] = field(init=False)

    def __post_init__(self) -> None:
        self._kinds = _Kinds(self.reader.column_names, self.encoder.fields, self.as_text)
        self._seen = {name: LongSeen() for name in self._kinds.keys}

    def pieces(self, start: int) -> Iterator[_Pieces]:
        position, chunks = start, []
        for chunk in self.reader.lines(CHUNK_BYTES, start):
            chunks.append(chunk)
            position += len(chunk)
            if start == 0 or len(chunks) == CHUNKS_PER_THREAD * num_threads():
                yield _Pieces(chunks, position)
                chunks, start = [], position
        if chunks:
            yield _Pieces(chunks, position)

    def parse(self, piece: bytes) -> ParsedBlock:
        return self._split(piece) or self._by_arrow(piece)

    def _by_arrow(self, chunk: bytes) -> ParsedBlock:
        return _ArrowParser(self.reader, self.encoder, self.as_text).parse(self.reader.frame_of(chunk))

    def _split(self, chunk: bytes) -> ParsedBlock | None:
        """The chunk by the compiled loop; None if there is anything in it the loop does not know."""
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n")
        if not chunk.endswith(b"\n"):
            chunk += b"\n"
        if b"\r" in chunk or b"\0" in chunk or (self.reader.layout.quoted and b'"' in chunk) or not _is_utf8(chunk):
            return None
        cells = self._kinds.split(np.frombuffer(chunk, np.uint8), ord(self.reader.layout.delimiter), chunk.count(b"\n"))
        if cells is None:
            return None
        long = {name: self._long_texts(name, keys, cells) for name, keys in cells.keys.items()}
        readings = [self._reading(own, cells, long) for own in self.encoder.fields]
        return ParsedBlock(cells.rows, readings, {name: cells.text_of(name) for name in self.as_text})

    def _reading(self, own: Field, cells: "_CellColumns", long: dict[str, pl.DataFrame | None]) -> Reading:
        if own.column in cells.keys:
            return Reading(cells.keys[own.column], 0, long[own.column])
        if own.column in cells.numbers and isinstance(own, NumericField):
            return Reading(own.keep(cells.numbers[own.column]), cells.unreadable[own.column])
        return own.read(cells.text_of(own.column))

    def _long_texts(self, name: str, keys: NDArray[np.uint64], cells: "_CellColumns") -> pl.DataFrame | None:
        new = self._seen[name].unseen(keys)
        if not len(new):
            return None
        texts = _Kinds((*self.reader.column_names,), (), [name]).split(cells.chunk, cells.delimiter, cells.rows)
        assert texts is not None
        return long_texts(keys[new], texts.text_of(name).gather(new))


@dataclass
class _CellColumns:
    """What the compiled loop made of a chunk."""

    chunk: NDArray[np.uint8]
    delimiter: int
    rows: int
    keys: dict[str, NDArray[np.uint64]]
    numbers: dict[str, NDArray[np.float64]]
    unreadable: dict[str, int]
    spans: dict[str, NDArray[np.int64]]

    def text_of(self, name: str) -> pl.Series:
        """A column's texts; null where empty."""
        from ctrlab.data.encoding.compiled.rows import gather_spans

        offsets, text = gather_spans(self.chunk, self.spans[name], self.rows)
        return arrow_texts(offsets, text).replace("", None).alias(name)


class _Kinds:
    """What becomes of each column of a text: key, number, or the text itself."""

    def __init__(self, columns: tuple[str, ...], fields: Sequence[Field], as_text: Sequence[str]) -> None:
        wanted: dict[str, set[str]] = {name: {"texts"} for name in as_text}
        for own in fields:
            wanted.setdefault(own.column, set()).add(own.reads)
        # A column that is wanted in two ways is read as text, which serves any.
        kinds = {name: next(iter(ways)) if len(ways) == 1 else "texts" for name, ways in wanted.items()}
        self.columns = columns
        self.keys, self.numbers, self.spans = (
            [name for name in columns if kinds.get(name) == kind] for kind in ("keys", "numbers", "texts")
        )

    def split(self, chunk: NDArray[np.uint8], delimiter: int, lines: int) -> _CellColumns | None:
        """None where a row is ragged or more than a tenth of the numbers are no plain decimals."""
        from ctrlab.data.encoding.compiled import rows as compiled

        groups = ((compiled.AS_KEY, self.keys), (compiled.AS_NUMBER, self.numbers), (compiled.AS_SPAN, self.spans))
        places = {name: (kind, slot) for kind, names in groups for slot, name in enumerate(names)}
        kinds, slots = np.array([places.get(name, (compiled.SKIPPED, 0)) for name in self.columns], np.int64).T.copy()
        keys = np.empty((len(self.keys), lines), np.uint64)
        numbers, spans = np.empty((len(self.numbers), lines)), np.empty((len(self.spans), lines, 2), np.int64)
        odd = np.empty((16 + numbers.size // 10, 4), np.int64)
        rows, num_odd = compiled.split_rows(chunk, delimiter, kinds, slots, keys, numbers, spans, odd)
        if rows < 0:
            return None
        unreadable = _read_odd_numbers(chunk, odd[:num_odd], numbers)
        return _CellColumns(
            chunk, delimiter, rows,
            keys={name: own[:rows] for name, own in zip(self.keys, keys, strict=True)},
            numbers={name: own[:rows] for name, own in zip(self.numbers, numbers, strict=True)},
            unreadable=dict(zip(self.numbers, unreadable, strict=True)),
            spans=dict(zip(self.spans, spans, strict=True)),
        )  # fmt: skip


def _read_odd_numbers(chunk: NDArray[np.uint8], odd: NDArray[np.int64], numbers: NDArray[np.float64]) -> list[int]:
    """Fill in the numbers that are no plain decimals, as `read_numbers` reads them; how many of each column are unreadable."""
    unreadable = [0] * len(numbers)
    for slot in np.unique(odd[:, 0]).tolist():
        own = odd[odd[:, 0] == slot]
        texts = pl.Series([bytes(chunk[start:stop]).decode() for start, stop in own[:, 2:].tolist()], dtype=pl.String)
        numbers[slot, own[:, 1]], unreadable[slot] = read_numbers(texts)
    return unreadable


def _is_utf8(chunk: bytes) -> bool:
    if chunk.isascii():
        return True
    try:
        chunk.decode()
    except UnicodeDecodeError:
        return False
    return True

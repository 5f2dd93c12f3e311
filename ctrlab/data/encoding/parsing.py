"""Parses raw files into the fields' parsed cells, in rounds of blocks that are parsed in parallel.

Delimited text is cut at the ends of rows and split by a compiled loop directly into keys and numbers, without making strings:
plain text as it stands, any other (quotes, ragged rows, invalid UTF-8, longer delimiters) after it was normalised. Other formats
come as frames of texts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.encoding.encoder import FieldEncoder
from ctrlab.data.encoding.fields import Field, NumericField, ParsedColumn
from ctrlab.data.encoding.fields.vocabulary import RecentHashes, arrow_texts, long_texts, words_of
from ctrlab.data.encoding.threads import map_in_threads, num_threads
from ctrlab.data.tables.cells import PLAIN_CELLS, CellRules
from ctrlab.data.tables.lines import LineCounts
from ctrlab.data.tables.numbers import read_numbers
from ctrlab.data.tables.reader import CHUNK_BYTES as CHUNK_BYTES
from ctrlab.data.tables.reader import Cells, TableReader, TextReader

#: Chunks of text of a round for each thread.
CHUNKS_PER_THREAD = 2


class ParsedBlock(NamedTuple):
    """A block of rows: the parsed cells of each field, in the order of the fields, and the columns requested as text.

    lines: how the lines of the block were read; of files that are no delimited text None.
    """

    rows: int
    columns: list[ParsedColumn]
    texts: dict[str, pl.Series]
    lines: LineCounts | None = None


class Round(NamedTuple):
    """Blocks in the order of the file.

    position: start of the next round, in the parser's unit (rows or bytes).
    lines: how the lines of the file were read so far; None if the blocks have it.
    """

    blocks: list[ParsedBlock]
    position: int
    lines: LineCounts | None = None


class _Pieces(NamedTuple):
    """Unparsed pieces of a round, and the position after them."""

    pieces: list[Any]
    position: int


class _Parser(Protocol):
    def pieces(self, start: int) -> Iterator[_Pieces]: ...

    def parse(self, piece: Any) -> ParsedBlock: ...


def parse_rounds(reader: TableReader, encoder: FieldEncoder, as_text: Sequence[str], start: int = 0) -> Iterator[Round]:
    """Parse a file from `start`, the position of an earlier round or 0.

    Args:
        as_text: columns to return as text, besides the fields.

    Raises:
        DataError: as `TableReader.blocks`.
    """
    parser: _Parser
    if isinstance(reader, TextReader):
        parser, lines = _TextParser(reader, encoder, as_text), None
    else:
        parser, lines = _FrameParser(reader, encoder, as_text), reader
    for pieces, position in parser.pieces(start):
        yield Round(map_in_threads(parser.parse, pieces), position, None if lines is None else lines.lines)


@dataclass
class _FrameParser:
    """Parses frames of texts. Positions are numbers of rows."""

    reader: TableReader
    encoder: FieldEncoder
    as_text: Sequence[str]

    def pieces(self, start: int) -> Iterator[_Pieces]:
        names = dict.fromkeys([*self.as_text, *(field.column for field in self.encoder.fields)])
        frames, rows = [], start
        for frame in self.reader.blocks(list(names), start_row=start):
            frames.append(frame)
            rows += len(frame)
            # The first round is one block: timestamp formats are detected in it, independent of the number of threads.
            if start == 0 or len(frames) == num_threads():
                yield _Pieces(frames, rows)
                frames, start = [], rows
        if frames:
            yield _Pieces(frames, rows)

    def parse(self, piece: pl.DataFrame) -> ParsedBlock:
        columns = [field.parse(piece[field.column]) for field in self.encoder.fields]
        return ParsedBlock(len(piece), columns, {name: piece[name] for name in self.as_text})


@dataclass
class _TextParser:
    """Parses delimited text with the compiled loop. Positions are bytes of the uncompressed text after the header line."""

    reader: TextReader
    encoder: FieldEncoder
    as_text: Sequence[str]
    _plan: "_ColumnPlan" = dataclass_field(init=False)
    _recent: dict[str, RecentHashes] = dataclass_field(init=False)

    def __post_init__(self) -> None:
        self._plan = _ColumnPlan(self.reader.layout.column_names, self.encoder.fields, self.as_text)
        self._recent = {name: RecentHashes() for name in self._plan.keys}

    def pieces(self, start: int) -> Iterator[_Pieces]:
        position, chunks = start, []
        for chunk in self.reader.chunks(CHUNK_BYTES, start):
            chunks.append(chunk)
            position += len(chunk)
            if start == 0 or len(chunks) == CHUNKS_PER_THREAD * num_threads():
                yield _Pieces(chunks, position)
                chunks, start = [], position
        if chunks:
            yield _Pieces(chunks, position)

    def parse(self, piece: bytes) -> ParsedBlock:
        cells = self.reader.plain_cells(piece)
        if cells is not None and (block := self._split(cells, piece.count(b"\n") + 1)) is not None:
            return block._replace(lines=self.reader.plain_counts(piece, block.rows))
        cells, lines = self.reader.normalised_cells(piece)
        # Numbers in another notation are read from texts.
        block = self._split(cells, lines.rows) or self._from_texts(piece)
        return block._replace(lines=lines)

    def _from_texts(self, chunk: bytes) -> ParsedBlock:
        return _FrameParser(self.reader, self.encoder, self.as_text).parse(self.reader.frame_of(chunk)[0])

    def _split(self, chunk: Cells, most_rows: int) -> ParsedBlock | None:
        """The chunk split by the compiled loop; None if a row is ragged or many numbers are not plain decimals."""
        cells = self._plan.split(chunk, most_rows)
        if cells is None:
            return None
        long = {name: self._long_texts(name, keys, cells) for name, keys in cells.keys.items()}
        columns = [self._column(field, cells, long) for field in self.encoder.fields]
        return ParsedBlock(cells.rows, columns, {name: self._texts(name, cells) for name in self.as_text})

    def _texts(self, name: str, cells: "_CellColumns") -> pl.Series:
        constant = self.reader.constant(name, cells.rows)
        return cells.text_of(name) if constant is None else constant

    def _column(self, field: Field, cells: "_CellColumns", long: dict[str, pl.DataFrame | None]) -> ParsedColumn:
        if field.column in cells.keys:
            return ParsedColumn(cells.keys[field.column], 0, long[field.column])
        if field.column in cells.numbers and isinstance(field, NumericField):
            return ParsedColumn(field.parse_numbers(cells.numbers[field.column]), cells.unreadable[field.column])
        return field.parse(self._texts(field.column, cells))

    def _long_texts(self, name: str, keys: NDArray[np.uint64], cells: "_CellColumns") -> pl.DataFrame | None:
        new = self._recent[name].unseen(keys)
        if not len(new):
            return None
        texts = _ColumnPlan(self.reader.layout.column_names, (), [name]).split(cells.chunk, cells.rows)
        assert texts is not None
        return long_texts(keys[new], texts.text_of(name).gather(new), self._plan.rules[name])


@dataclass
class _CellColumns:
    """Columns of a chunk as the compiled loop returns them; spans are start and stop offsets int64 (n, 2) of texts in `chunk`."""

    chunk: Cells
    rows: int
    keys: dict[str, NDArray[np.uint64]]
    numbers: dict[str, NDArray[np.float64]]
    unreadable: dict[str, int]
    spans: dict[str, NDArray[np.int64]]

    def text_of(self, name: str) -> pl.Series:
        """A column as texts; null where empty."""
        from ctrlab.data.encoding.compiled.rows import gather_spans

        offsets, text = gather_spans(self.chunk.text, self.spans[name], self.rows)
        return arrow_texts(offsets, text).replace("", None).alias(name)


class _ColumnPlan:
    """How the compiled loop parses each column: as key, as number, as text span, or not at all."""

    def __init__(self, columns: tuple[str, ...], fields: Sequence[Field], as_text: Sequence[str]) -> None:
        wanted: dict[str, set[str]] = {name: {"texts"} for name in as_text}
        for field in fields:
            wanted.setdefault(field.column, set()).add(field.input)
        # A column that is needed in two forms is read as text, from which both are made.
        kinds = {name: next(iter(ways)) if len(ways) == 1 else "texts" for name, ways in wanted.items()}
        self.columns = columns
        self.rules: dict[str, CellRules] = {field.column: field.rules for field in fields}
        self._words = words_of(fields[0].rules if fields else PLAIN_CELLS)
        self._trim = np.array([name not in self.rules or self.rules[name].trim for name in columns])
        self.keys, self.numbers, self.spans = (
            [name for name in columns if kinds.get(name) == kind] for kind in ("keys", "numbers", "texts")
        )

    def split(self, chunk: Cells, lines: int) -> _CellColumns | None:
        """Split whole lines; None if a row is ragged or more than a tenth of the numbers are not plain decimals."""
        from ctrlab.data.encoding.compiled import rows as compiled

        groups = ((compiled.AS_KEY, self.keys), (compiled.AS_NUMBER, self.numbers), (compiled.AS_SPAN, self.spans))
        places = {name: (kind, slot) for kind, names in groups for slot, name in enumerate(names)}
        kinds, slots = np.array([places.get(name, (compiled.SKIPPED, 0)) for name in self.columns], np.int64).T.copy()
        keys = np.empty((len(self.keys), lines), np.uint64)
        numbers, spans = np.empty((len(self.numbers), lines)), np.empty((len(self.spans), lines, 2), np.int64)
        irregular = np.empty((16 + numbers.size // 10, 4), np.int64)
        rows, num_irregular = compiled.split_rows(*chunk, kinds, slots, self._trim, self._words, keys, numbers, spans, irregular)
        if rows < 0:
            return None
        unreadable = _read_irregular_numbers(chunk.text, irregular[:num_irregular], numbers)
        return _CellColumns(
            chunk, rows,
            keys={name: column[:rows] for name, column in zip(self.keys, keys, strict=True)},
            numbers={name: column[:rows] for name, column in zip(self.numbers, numbers, strict=True)},
            unreadable=dict(zip(self.numbers, unreadable, strict=True)),
            spans=dict(zip(self.spans, spans, strict=True)),
        )  # fmt: skip


def _read_irregular_numbers(chunk: NDArray[np.uint8], irregular: NDArray[np.int64], numbers: NDArray[np.float64]) -> list[int]:
    """Fill in the numbers that are not plain decimals, with `read_numbers`; returns the unreadable cells of each column."""
    unreadable = [0] * len(numbers)
    for slot in np.unique(irregular[:, 0]).tolist():
        cells = irregular[irregular[:, 0] == slot]
        texts = pl.Series([bytes(chunk[start:stop]).decode() for start, stop in cells[:, 2:].tolist()], dtype=pl.String)
        numbers[slot, cells[:, 1]], unreadable[slot] = read_numbers(texts)
    return unreadable

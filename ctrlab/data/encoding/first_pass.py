"""First step of an encoding: one pass over the raw files, to labels, splits and parsed cells in the column cache."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrlab.data.configs import SPLIT_NAMES, DatasetConfig
from ctrlab.data.encoding.column_cache import ColumnCache
from ctrlab.data.encoding.encoder import FieldEncoder
from ctrlab.data.encoding.fields.buckets import ClockField
from ctrlab.data.encoding.journal import EncodingJournal
from ctrlab.data.encoding.parsing import ParsedBlock, Round, parse_rounds
from ctrlab.data.encoding.splits import SplitAssigner
from ctrlab.data.encoding.threads import map_in_threads
from ctrlab.data.encoding.time_split import TimeReader
from ctrlab.data.tables.labels import LabelEncoder
from ctrlab.data.tables.lines import LineCounts
from ctrlab.data.tables.reader import Table, TableReader, above
from ctrlab.errors import DataError

Report = Callable[[float, str], None]
#: Share of the progress of this step taken by the pass over the time column, for a split by time.
_TIMES = 0.3
#: The type of stored weights.
WEIGHT_DTYPE = np.dtype(np.float32)
#: Splits that training needs clicks and non-clicks in. Without both, test rows have a log loss but no AUC.
NEED_BOTH_CLASSES = ("train", "valid")


class FirstPass:
    """The pass over the text. `journal` is updated and written after every round of blocks."""

    def __init__(
        self,
        config: DatasetConfig,
        readers: list[TableReader],
        encoder: FieldEncoder,
        cache: ColumnCache,
        journal: EncodingJournal,
    ) -> None:
        self.config, self.readers, self.encoder, self.cache, self.journal = config, readers, encoder, cache, journal
        self._labels = LabelEncoder(config.label_column, config.weight, config.source.missing_words)
        self._times = TimeReader(config) if config.split.method == "time" else None
        self._clocks = [field for field in encoder.fields if isinstance(field, ClockField)]

    def run(self, report: Report) -> EncodingJournal:
        """Parse the rows that are not in the cache yet, then check that every split has rows of both classes.

        Returns:
            the journal, with `parsed` set.
        """
        self._resume()
        if not self.journal.parsed:
            self._find_time_borders(report)
            self._parse(report)
            self._check_splits()
            self.journal.parsed = True
            self.cache.write_journal(self.journal)
        for field in self.encoder.fields:
            field.unreadable = self.journal.unreadable.get(field.name, 0)
        return self.journal

    def _resume(self) -> None:
        """Restore the state of the journal and truncate the cache to it; start from the beginning if the cache is incomplete."""
        journal = self.journal
        for clock in self._clocks:
            clock.timestamp_format = journal.timestamp_formats.get(clock.name, clock.timestamp_format)
        if journal.parsed:
            return
        rows = journal.num_rows
        sizes = {f"{number}.cells": self.cache.cells_size(field, rows) for number, field in enumerate(self.encoder.fields)}
        sizes |= {"splits": rows, "labels": rows * label_dtype(self.config).itemsize}
        if self.config.weight:
            sizes["weights"] = rows * WEIGHT_DTYPE.itemsize
        whole = [self.cache.truncate(name, size) for name, size in sizes.items()]
        if not all(whole):
            self.journal = EncodingJournal(journal.task)
            self._resume()
        else:
            self._labels.restore(journal.labels)

    def _find_time_borders(self, report: Report) -> None:
        journal = self.journal
        if self._times is None:
            self._assigner = SplitAssigner(self.config.split)
        else:
            if journal.time_borders is None:
                borders = self._times.borders(
                    Table(self.readers), lambda share: report(_TIMES * share, "reading the time column")
                )
                journal.time_format, journal.time_borders = self._times.timestamp_format, borders.tolist()
                self.cache.write_journal(journal)
            self._times.resume(journal.time_format, journal.num_rows)
            self._assigner = SplitAssigner(self.config.split, np.array(journal.time_borders, np.int64))
        self._assigner.resume(journal.num_rows, journal.class_rows)

    def _parse(self, report: Report) -> None:
        start = _TIMES if self._times else 0.0
        total, before = sum(reader.total_bytes for reader in self.readers), 0
        for number, reader in enumerate(self.readers):
            if number >= self.journal.file:
                as_text = [*self._labels.columns, *([self._times.column] if self._times else [])]
                for parsed in parse_rounds(reader, self.encoder, as_text, self.journal.position):
                    self._add_round(parsed, number)
                    self._count_lines(parsed, number)
                    self.cache.write_journal(self.journal)
                    share = start + (1 - start) * (before + reader.bytes_read) / total
                    report(share, f"read {self.journal.num_rows:,} rows")
                self.journal.file, self.journal.position = number + 1, 0
            before += reader.total_bytes

    def _add_round(self, parsed: Round, file_number: int) -> None:
        """Append a round of blocks to the cache and record it in the journal."""
        journal = self.journal
        blocks = [self._assign_splits(block, self.readers[file_number].part.number) for block in parsed.blocks if block.rows]
        numbered = list(enumerate(self.encoder.fields))
        columns = {number: [block.columns[number] for block in blocks] for number, _ in numbered}
        map_in_threads(lambda one: self.cache.append_cells(*one, columns[one[0]], journal.round), numbered)
        for number, field in numbered:
            unreadable = sum(column.unreadable for column in columns[number])
            journal.unreadable[field.name] = journal.unreadable.get(field.name, 0) + unreadable
        journal.position, journal.round = parsed.position, journal.round + 1
        journal.labels, journal.class_rows = self._labels.seen, self._assigner.class_rows
        journal.timestamp_formats = {clock.name: clock.timestamp_format for clock in self._clocks}

    def _count_lines(self, parsed: Round, file_number: int) -> None:
        """Add the lines of a round to the journal, and refuse a file of which too many cannot be read."""
        reader = self.readers[file_number]
        while len(self.journal.lines) <= file_number:
            self.journal.lines.append(above(self.readers[len(self.journal.lines)].layout).to_dict())
        lines = LineCounts.from_dict(self.journal.lines[file_number])
        lines = parsed.lines or sum((block.lines for block in parsed.blocks if block.lines), lines)
        lines.check(reader.name, len(reader.layout.column_names))
        self.journal.lines[file_number] = lines.to_dict()

    def _assign_splits(self, block: ParsedBlock, path_number: int) -> ParsedBlock:
        """Write the labels, weights and splits of a block; returns the block without the rows that have no label."""
        journal = self.journal
        read = self._labels.encode(block.texts, journal.rows_read)
        times = self._times.read(block.texts[self._times.column]) if self._times else None
        if read.kept is not None:
            block = _kept_rows(block, read.kept)
            times = None if times is None else times[read.kept]
            journal.dropped += int(np.count_nonzero(~read.kept))
        labels = read.labels
        splits = self._assigner.assign((labels > 0).astype(np.uint8), times, file_number=path_number)
        self.cache.append("labels", labels)
        self.cache.append("splits", splits)
        if read.weights is not None:
            self.cache.append("weights", read.weights)
        plain = read.weights is None and labels.dtype == np.uint8
        for split in range(len(SPLIT_NAMES)):
            in_split = splits == split
            rows = int(np.count_nonzero(in_split))
            journal.rows[split] += rows
            if plain:
                journal.weights[split] += rows
                journal.clicks[split] += int(np.count_nonzero(in_split & (labels == 1)))
            else:
                weights = in_split * np.float64(1.0) if read.weights is None else in_split * read.weights.astype(np.float64)
                journal.weights[split] += float(weights.sum())
                journal.clicks[split] += float(weights @ labels.astype(np.float64))
        return block

    def _check_splits(self) -> None:
        rows, clicks, total = self.journal.rows, self.journal.clicks, self.journal.num_rows
        weights = self.journal.weights
        if not total:
            dropped = f"; {self.journal.dropped:,} rows were left out for want of a label" if self.journal.dropped else ""
            raise DataError(f"{self.readers[0].name} has no rows; give a file with data{dropped}")
        if sum(clicks) in (0, sum(weights)):
            raise DataError(
                f"label {self.config.label!r} has one class only, {int(sum(clicks) > 0)} in all {total} rows; "
                "a CTR model needs clicks and non-clicks, so give a file with both or choose another label"
            )
        for split in self._wanted_splits():
            name = SPLIT_NAMES[split]
            if not rows[split]:
                raise DataError(f"the {name} split got none of the {total} rows; give it a larger share or use a larger file")
            if name in NEED_BOTH_CLASSES and clicks[split] in (0, weights[split]):
                raise DataError(
                    f"the {name} split has one class only, {int(clicks[split] > 0)} in all {rows[split]} rows; "
                    "use a stratified split, a larger share, or a larger file"
                )

    def _wanted_splits(self) -> list[int]:
        split = self.config.split
        if split.method == "files":
            return list(range(len(self.config.source.paths)))
        return [number for number, name in enumerate(SPLIT_NAMES) if split.share(name) > 0]


def label_dtype(config: DatasetConfig) -> np.dtype[Any]:
    """The type of stored labels: clicks are uint8, shares of clicks float32."""
    return np.dtype(np.float32 if config.label_column.is_soft else np.uint8)


def _kept_rows(block: ParsedBlock, kept: NDArray[np.bool_]) -> ParsedBlock:
    """The block without the rows that are not kept; texts of long values stay, for they are found by their key."""
    columns = [column._replace(cells=column.cells[kept]) for column in block.columns]
    return block._replace(rows=int(np.count_nonzero(kept)), columns=columns)

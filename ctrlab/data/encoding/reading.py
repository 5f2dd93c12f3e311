"""First step of an encoding: the pass over the raw files, to labels, splits and kept cells."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrlab.data.configs import SPLIT_NAMES, DatasetConfig
from ctrlab.data.encoding.column_cache import Spool
from ctrlab.data.encoding.encoder import FieldEncoder
from ctrlab.data.encoding.fields.keys import ClockField
from ctrlab.data.encoding.parsing import ParsedBlock, Round, open_rounds
from ctrlab.data.encoding.splits import SplitAssigner
from ctrlab.data.encoding.threads import in_threads
from ctrlab.data.encoding.time_split import TimeReader
from ctrlab.data.tables.labels import LabelEncoder
from ctrlab.data.tables.reader import TableReader
from ctrlab.errors import DataError

Report = Callable[[float, str], None]
#: Share of the reading that a look at the times takes first, where the split is by time.
_TIMES = 0.3


def new_progress(task: Any) -> dict[str, Any]:
    """The journal of an encoding that has not begun.

    task: what is encoded. file, position, round: where reading goes on. rows, clicks: of each split. unreadable: of each field.
    labels, class_rows, formats, times: what the encoder of labels, the splits, the clocks and the reader of times have learnt.
    read: whether all rows are in the spool. dealt: blocks of rows that are in the splits' arrays.
    """
    return {
        "task": task, "file": 0, "position": 0, "round": 0, "rows": [0] * len(SPLIT_NAMES), "clicks": [0] * len(SPLIT_NAMES),
        "unreadable": {}, "labels": [], "class_rows": [0, 0], "formats": {}, "times": None, "read": False, "dealt": 0,
    }  # fmt: skip


class TableReading:
    """The pass over the text; `progress` is kept up to date and written after every round of blocks."""

    def __init__(
        self, config: DatasetConfig, readers: list[TableReader], encoder: FieldEncoder, spool: Spool, progress: dict[str, Any]
    ) -> None:
        self.config, self.readers, self.encoder, self.spool, self.progress = config, readers, encoder, spool, progress
        self._labels = LabelEncoder(config.label)
        self._times = TimeReader(config) if config.split.method == "time" else None
        self._clocks = [field for field in encoder.fields if isinstance(field, ClockField)]

    def run(self, report: Report) -> None:
        """Read what is not read yet, then check that every split has rows of both classes."""
        self._take_up()
        if not self.progress["read"]:
            self._find_borders(report)
            self._read(report)
            self._check_parts()
            self.progress["read"] = True
            self.spool.write_journal(self.progress)
        for field in self.encoder.fields:
            field.unreadable = self.progress["unreadable"].get(field.name, 0)

    def _take_up(self) -> None:
        """Go on from `progress`: what is in the spool beyond it is cut off; if something is missing, begin anew."""
        progress, rows = self.progress, sum(self.progress["rows"])
        for clock in self._clocks:
            clock.timestamp_format = progress["formats"].get(clock.name, clock.timestamp_format)
        if progress["read"]:
            return None
        sizes = {f"{number}.kept": self.spool.kept_size(field, rows) for number, field in enumerate(self.encoder.fields)}
        cut = [self.spool.cut(name, size) for name, size in (sizes | {"parts": rows, "labels": rows}).items()]
        if not all(cut):
            progress.update(new_progress(progress["task"]))
            return self._take_up()
        self._labels.learn(progress["labels"])
        return None

    def _find_borders(self, report: Report) -> None:
        if self._times is None:
            self._assigner = SplitAssigner(self.config.split)
        else:
            if self.progress["times"] is None:
                borders = self._times.borders(self.readers[0], lambda share: report(_TIMES * share, "looking at the times"))
                self.progress["times"] = [self._times.timestamp_format, borders.tolist()]
                self.spool.write_journal(self.progress)
            self._times.take_up(self.progress["times"][0], sum(self.progress["rows"]))
            self._assigner = SplitAssigner(self.config.split, np.array(self.progress["times"][1], np.int64))
        self._assigner.take_up(sum(self.progress["rows"]), self.progress["class_rows"])

    def _read(self, report: Report) -> None:
        start = _TIMES if self._times else 0.0
        total, before = sum(reader.total_bytes for reader in self.readers), 0
        for number, reader in enumerate(self.readers):
            if number >= self.progress["file"]:
                as_text = [self.config.label, *([self._times.column] if self._times else [])]
                for parsed in open_rounds(reader, self.encoder, as_text, self.progress["position"]):
                    self._add(parsed, number)
                    share = start + (1 - start) * (before + reader.bytes_read) / total
                    report(share, f"read {sum(self.progress['rows']):,} rows")
                self.progress.update(file=number + 1, position=0)
            before += reader.total_bytes

    def _add(self, parsed: Round, file_number: int) -> None:
        """File a round of blocks, and say so in the journal."""
        progress = self.progress
        for block in parsed.blocks:
            self._deal(block, file_number)
        numbered = list(enumerate(self.encoder.fields))
        readings = {number: [block.readings[number] for block in parsed.blocks] for number, _ in numbered}
        in_threads(lambda one: self.spool.append_readings(*one, readings[one[0]], progress["round"]), numbered)
        for number, field in numbered:
            unreadable = sum(reading.unreadable for reading in readings[number])
            progress["unreadable"][field.name] = progress["unreadable"].get(field.name, 0) + unreadable
        progress.update(
            position=parsed.position,
            round=progress["round"] + 1,
            labels=self._labels.learnt,
            class_rows=self._assigner.class_rows,
        )
        progress["formats"] = {clock.name: clock.timestamp_format for clock in self._clocks}
        self.spool.write_journal(progress)

    def _deal(self, block: ParsedBlock, file_number: int) -> None:
        labels = self._labels.encode(block.texts[self.config.label], sum(self.progress["rows"]))
        times = self._times.read(block.texts[self._times.column]) if self._times else None
        parts = self._assigner.assign(labels, times, file_number=file_number)
        self.spool.append("labels", labels)
        self.spool.append("parts", parts)
        for part in range(len(SPLIT_NAMES)):
            mine: NDArray[np.bool_] = parts == part
            self.progress["rows"][part] += int(np.count_nonzero(mine))
            self.progress["clicks"][part] += int(np.count_nonzero(mine & (labels == 1)))

    def _check_parts(self) -> None:
        rows, clicks = self.progress["rows"], self.progress["clicks"]
        total = sum(rows)
        if not total:
            raise DataError(f"{self.readers[0].path.name} has no rows; give a file with data")
        if sum(clicks) in (0, total):
            raise DataError(
                f"label {self.config.label!r} has one class only, {int(sum(clicks) > 0)} in all {total} rows; "
                "a CTR model needs clicks and non-clicks, so give a file with both or choose another label"
            )
        for part in self._wanted_parts():
            name = SPLIT_NAMES[part]
            if not rows[part]:
                raise DataError(f"the {name} part got none of the {total} rows; give it a larger share or use a larger file")
            if clicks[part] in (0, rows[part]):
                raise DataError(
                    f"the {name} part has one class only, {int(clicks[part] > 0)} in all {rows[part]} rows; "
                    "use a stratified split, a larger share, or a larger file"
                )

    def _wanted_parts(self) -> list[int]:
        split = self.config.split
        if split.method == "files":
            return list(range(len(self.readers)))
        return [part for part, name in enumerate(SPLIT_NAMES) if split.share(name) > 0]

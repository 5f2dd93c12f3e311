"""A raw file to an encoded dataset on disk, block by block: memory holds some blocks and the vocabularies, never the table.

The text is read once. While it is read, rows are dealt to their splits, fields learn from the training rows, and provisional
integer codes go to temporary files; then the codes are turned into ids by a second pass over those. Everything happens in a
folder beside the target that is renamed at the very end: whatever kills the process, the target is whole or absent.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ctrlab.data.configs import SPLIT_NAMES, ColumnConfig, DatasetConfig
from ctrlab.data.dataset import COUNTS, FORMAT_VERSION, MANIFEST, DatasetSummary, EncodedDataset, split_file
from ctrlab.data.encoder import FieldEncoder, ProvisionalBlock
from ctrlab.data.labels import LabelEncoder
from ctrlab.data.readers import TableReader, open_table
from ctrlab.data.splits import SplitAssigner
from ctrlab.data.tally import Tally
from ctrlab.data.time_split import TimeReader
from ctrlab.errors import DataError, JobCancelled

OnProgress = Callable[[float, str], None]
ShouldStop = Callable[[], bool]

_FINALIZE_ROWS = 1 << 16
#: Share of the progress bar that reading takes; turning codes into ids is the rest.
_READING = 0.85


def encode_dataset(
    config: DatasetConfig,
    out_dir: str | Path,
    *,
    on_progress: OnProgress = lambda fraction, message: None,
    should_stop: ShouldStop = lambda: False,
    max_bytes: int | None = None,
) -> EncodedDataset:
    """Encode a raw table into `out_dir`.

    Args:
        out_dir: a folder that does not exist yet, or one that an earlier, identical call has finished.
        on_progress: called with a fraction 0..1 and a sentence, some times a second.
        should_stop: asked after each block of rows.
        max_bytes: refuse larger raw files.

    Raises:
        DataError: the file cannot be used as the config says; nothing is left behind.
        JobCancelled: `should_stop` said so; nothing is left behind.
    """
    out_dir = Path(out_dir)
    if out_dir.exists():
        return _finished_before(out_dir, config)
    readers = [open_table(config.source, part=part, max_bytes=max_bytes) for part in range(len(config.source.paths))]
    for reader in readers:
        _check_columns(reader, config)
    work_dir = out_dir.with_name(out_dir.name + ".partial")
    shutil.rmtree(work_dir, ignore_errors=True)  # left by a process that was killed
    work_dir.mkdir(parents=True)
    try:
        _Encoding(config, readers, work_dir, on_progress, should_stop).run()
        work_dir.replace(out_dir)
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)
    return EncodedDataset.open(out_dir)


def _finished_before(out_dir: Path, config: DatasetConfig) -> EncodedDataset:
    dataset = EncodedDataset.open(out_dir)
    if dataset.config != config:
        raise DataError(f"{out_dir} already holds the dataset {dataset.config.name!r} with other settings; choose another folder")
    return dataset


def _check_columns(reader: TableReader, config: DatasetConfig) -> None:
    present = set(reader.column_names)
    shown = ", ".join(reader.column_names[:10]) + (", ..." if len(reader.column_names) > 10 else "")
    if config.label not in present:
        raise DataError(f"{reader.path.name} has no label column {config.label!r}; choose one of its columns, {shown}")
    needed = [column.name for column in config.features] + [config.split.time_column or config.label]
    if missing := [name for name in dict.fromkeys(needed) if name not in present]:
        raise DataError(f"{reader.path.name} has no column {', '.join(missing)}; its columns are {shown}; leave that out")
    for column in config.features:
        if fault := _list_fault(column, column.name in reader.layout.list_columns):
            raise DataError(f"{reader.path.name}: column {column.name} {fault}")


def _list_fault(column: ColumnConfig, holds_lists: bool) -> str | None:
    """Why a column's role or separator does not fit what its cells are."""
    if column.role != "list":
        return f"holds lists and has the role {column.role}; make it a list or ignore it" if holds_lists else None
    if holds_lists and column.separator is not None:
        return f"holds lists, so nothing is split at {column.separator!r}; leave its separator empty"
    if not holds_lists and column.separator is None:
        return "holds text; say which separator stands between the elements of its lists, for example ^ or |"
    return None


@dataclass
class _SplitFiles:
    """The temporary files of one split, and what is counted as rows go in."""

    name: str
    folder: Path
    rows: int = 0
    clicks: int = 0
    _files: dict[str, IO[bytes]] = field(default_factory=dict)

    def append(self, block: ProvisionalBlock, labels: NDArray[np.uint8], mine: NDArray[np.bool_]) -> None:
        if not mine.any():
            return
        for part, array in (("codes", block.codes), ("numbers", block.numbers), ("clicks", labels)):
            if part not in self._files:
                self._files[part] = self.temporary(part).open("wb")
            self._files[part].write(np.ascontiguousarray(array[mine]).data)
        self.rows += int(mine.sum())
        self.clicks += int(labels[mine].sum())

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def temporary(self, part: str) -> Path:
        return self.folder / f"{self.name}.{part}.tmp"

    def blocks(self, num_codes: int, num_numbers: int) -> Iterator[ProvisionalBlock]:
        """The appended rows again, `_FINALIZE_ROWS` at a time."""
        with self.temporary("codes").open("rb") as codes, self.temporary("numbers").open("rb") as numbers:
            for start in range(0, self.rows, _FINALIZE_ROWS):
                rows = min(_FINALIZE_ROWS, self.rows - start)
                yield ProvisionalBlock(
                    np.fromfile(codes, np.int32, rows * num_codes).reshape(rows, num_codes),
                    np.fromfile(numbers, np.float64, rows * num_numbers).reshape(rows, num_numbers),
                )

    def remove_temporaries(self) -> None:
        for part in ("codes", "numbers", "clicks"):
            self.temporary(part).unlink()


class _Encoding:
    """One run of `encode_dataset`, from opened readers to a complete folder."""

    def __init__(
        self, config: DatasetConfig, readers: list[TableReader], folder: Path, on_progress: OnProgress, should_stop: ShouldStop
    ) -> None:
        self.config, self.readers, self.folder = config, readers, folder
        self.on_progress, self.should_stop = on_progress, should_stop
        self.encoder = FieldEncoder.for_columns(config.features)
        self.labels = LabelEncoder(config.label)
        self.parts = [_SplitFiles(name, folder) for name in SPLIT_NAMES]

    def run(self) -> None:
        try:
            self._read()
        finally:
            for part in self.parts:
                part.close()
        self._check_parts()
        used = [part for part in self.parts if part.rows]
        self.encoder.finish(sum(part.rows for part in used), lambda: self._report(_READING, "settling vocabularies"))
        tally = self._finalize(used)
        self._report(1.0, "writing vocabularies")
        self.encoder.save(self.folder)
        summary = DatasetSummary(
            rows={part.name: part.rows for part in used},
            ctr={part.name: part.clicks / part.rows for part in used},
            fields=tally.field_summaries(),
            size_bytes=sum(file.stat().st_size for file in self.folder.iterdir()),
        )
        manifest = {"config": self.config.to_dict(), "schema": self.encoder.schema.to_dict(), "summary": summary.to_dict()}
        (self.folder / MANIFEST).write_text(json.dumps({"format_version": FORMAT_VERSION, **manifest}, indent=1))
        self.on_progress(1.0, "done")

    def _read(self) -> None:
        """The pass over the text: labels, splits, provisional codes."""
        split = self.config.split
        times = TimeReader(self.config) if split.method == "time" else None
        start = 0.0
        if times is not None:
            start = 0.3 * _READING
            borders = times.borders(self.readers[0], lambda share: self._report(start * share, "looking at the times"))
        assigner = SplitAssigner(split, borders if times else None)
        total = sum(reader.total_bytes for reader in self.readers)
        names = {self.config.label: None} | {column.name: None for column in self.config.features}
        names |= {times.column: None} if times else {}
        before, rows = 0, 0
        for number, reader in enumerate(self.readers):
            for block in reader.blocks(list(names)):
                labels = self.labels.encode(block[self.config.label], rows)
                assigned = assigner.assign(labels, times.read(block) if times else None, file_number=number)
                provisional = self.encoder.observe(block, assigned == 0)
                for index, part in enumerate(self.parts):
                    part.append(provisional, labels, assigned == index)
                rows += len(block)
                self._report(start + (_READING - start) * (before + reader.bytes_read) / total, f"read {rows:,} rows")
            before += reader.total_bytes

    def _check_parts(self) -> None:
        total, clicks = (sum(getattr(part, what) for part in self.parts) for what in ("rows", "clicks"))
        if not total:
            raise DataError(f"{self.readers[0].path.name} has no rows; give a file with data")
        if clicks in (0, total):
            raise DataError(
                f"label {self.config.label!r} has one class only, {int(clicks > 0)} in all {total} rows; "
                "a CTR model needs clicks and non-clicks, so give a file with both or choose another label"
            )
        for part in self._wanted_parts():
            if not part.rows:
                raise DataError(f"the {part.name} part got none of the {total} rows; give it a larger share or use a larger file")
            if part.clicks in (0, part.rows):
                raise DataError(
                    f"the {part.name} part has one class only, {int(part.clicks > 0)} in all {part.rows} rows; "
                    "use a stratified split, a larger share, or a larger file"
                )

    def _wanted_parts(self) -> list[_SplitFiles]:
        split = self.config.split
        if split.method == "files":
            return self.parts[: len(self.readers)]
        return [part for part in self.parts if split.share(part.name) > 0]

    def _finalize(self, used: list[_SplitFiles]) -> Tally:
        """The pass over the codes: arrays of ids, values and labels."""
        tally = Tally(self.encoder)
        num_codes, num_numbers = sum(field.width for field in self.encoder.coded_fields), len(self.encoder.number_fields)
        schema = self.encoder.schema
        total, done = sum(part.rows for part in used), 0
        for part in used:
            with (
                self._array(part, "ids", np.int32, len(schema.field_names)) as ids,
                self._array(part, "values", np.float32, len(schema.value_names)) as values,
                self._array(part, "lists", np.int32, schema.list_width) as lists,
            ):
                for block in part.blocks(num_codes, num_numbers):
                    encoded = self.encoder.finalize(block)
                    ids.write(encoded.ids.tobytes())
                    values.write(encoded.values.tobytes())
                    lists.write(encoded.lists.tobytes())
                    tally.add(encoded, block, is_train=part.name == "train")
                    done += len(encoded.ids)
                    self._report(_READING + (1 - _READING) * done / total, f"wrote {done:,} of {total:,} rows")
            with part.temporary("clicks").open("rb") as clicks, self._array(part, "labels", np.uint8) as labels:
                shutil.copyfileobj(clicks, labels)
            part.remove_temporaries()
        np.save(self.folder / COUNTS, tally.all_counts)
        return tally

    @contextmanager
    def _array(self, part: _SplitFiles, name: str, dtype: type, *width: int) -> Iterator[IO[bytes]]:
        """The .npy file of a split's array, whose rows the caller writes in order."""
        with split_file(self.folder, part.name, name).open("wb") as file:
            descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
            np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": (part.rows, *width)})
            yield file

    def _report(self, fraction: float, message: str) -> None:
        self.on_progress(min(1.0, fraction), message)
        if self.should_stop():
            raise JobCancelled("encoding was cancelled; nothing was kept")

"""A raw file to an encoded dataset on disk, block by block: memory holds some blocks and the vocabularies, never the table.

Three steps. The text is parsed once: rows are dealt to their splits, and what the fields keep of the cells goes to a file a field
(`parsing`, `spool`). Then each field is settled with its own file alone in hand: its vocabulary or statistics from the training
rows, its ids or values of all rows (`settling`). At last the columns become rows of the splits' arrays (`dealing`).

Everything happens in a folder beside the target that is renamed at the very end: whatever kills the process, the target is whole
or absent. An identical call goes on where a killed one was, and its dataset has the bytes of one made without a break.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ctrlab.data.configs import SPLIT_NAMES, ColumnConfig, DatasetConfig
from ctrlab.data.dataset import COUNTS, FORMAT_VERSION, MANIFEST, DatasetSummary, EncodedDataset
from ctrlab.data.encoding.column_cache import Spool
from ctrlab.data.encoding.encoder import FieldEncoder
from ctrlab.data.encoding.fit_fields import settle_fields
from ctrlab.data.encoding.reading import TableReading, new_progress
from ctrlab.data.encoding.write_splits import Dealer
from ctrlab.data.tables.reader import TableReader, open_table
from ctrlab.errors import DataError, JobCancelled

OnProgress = Callable[[float, str], None]
ShouldStop = Callable[[], bool]

#: Where on the progress bar reading and settling end; dealing is the rest.
_READ, _SETTLED = 0.6, 0.92
_SPOOL = "spool"


def encode_dataset(
    config: DatasetConfig,
    out_dir: str | Path,
    *,
    on_progress: OnProgress = lambda fraction, message: None,
    should_stop: ShouldStop = lambda: False,
    max_bytes: int | None = None,
) -> EncodedDataset:
    """Encode a raw table into `out_dir`.

    Besides the dataset it needs room beside `out_dir` for what is kept of the cells until the end: 8 bytes for a categorical cell
    or a list's element, 8 for a number, 2 for a bucket, and half of that for the ids.

    Args:
        out_dir: a folder that does not exist yet, or one that an earlier, identical call has finished. What a killed, identical
            call has left beside it is used: the table is not read anew from its beginning.
        on_progress: called with a fraction 0..1 and a sentence, some times a second.
        should_stop: asked several times a second.
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
    try:
        _Encoding(config, readers, work_dir, on_progress, should_stop).run()
        work_dir.replace(out_dir)
    except Exception:  # a fault or a cancel leaves nothing; a signal that ends the process leaves what the next call can use
        shutil.rmtree(work_dir, ignore_errors=True)
        raise
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


class _Encoding:
    """One run of `encode_dataset`, from opened readers to a complete folder."""

    def __init__(
        self, config: DatasetConfig, readers: list[TableReader], folder: Path, on_progress: OnProgress, should_stop: ShouldStop
    ) -> None:
        self.config, self.readers, self.folder = config, readers, folder
        self.on_progress, self.should_stop = on_progress, should_stop
        self._shown = 0.0

    def run(self) -> None:
        encoder = FieldEncoder.for_columns(self.config.features)
        progress = self._taken_up()
        self.spool = Spool(self.folder / _SPOOL)
        reading = TableReading(self.config, self.readers, encoder, self.spool, progress)
        reading.run(lambda share, message: self._report(_READ * share, message))
        encoder.check_readable(sum(progress["rows"]))
        encoder, tallies = settle_fields(encoder, self.spool, self._report_settling)
        self._deal(encoder, progress)
        self._report(1.0, "writing vocabularies")
        order = [*encoder.id_fields, *encoder.list_fields]
        np.save(self.folder / COUNTS, np.concatenate([np.empty(0, np.int64), *(tallies[field.name].counts for field in order)]))
        encoder.save(self.folder)
        shutil.rmtree(self.spool.folder)
        self._write_manifest(encoder, [tallies[field.name].summary() for field in encoder.fields], progress)
        self.on_progress(1.0, "done")

    def _taken_up(self) -> dict[str, Any]:
        """The journal of a killed, identical run; a new one, and an empty folder, where there is none."""
        files = [[str(reader.path), reader.total_bytes, reader.path.stat().st_mtime_ns] for reader in self.readers]
        task = json.loads(json.dumps([FORMAT_VERSION, self.config.to_dict(), files]))
        journal = Spool(self.folder / _SPOOL).read_journal()
        if journal is not None and journal["task"] == task:
            return journal
        shutil.rmtree(self.folder)
        return new_progress(task)

    def _report_settling(self, share: float) -> None:
        self._report(_READ + (_SETTLED - _READ) * share, f"settled {share:.0%} of the vocabularies and statistics")

    def _deal(self, encoder: FieldEncoder, progress: dict[str, Any]) -> None:
        dealer = Dealer(encoder, self.spool, self.folder)

        def on_blocks(done: int) -> None:
            share = done / dealer.num_blocks
            self._report(_SETTLED + (1 - _SETTLED) * share, f"wrote {share:.0%} of the rows")

        def on_round(done: int) -> None:
            progress["dealt"] = done
            self.spool.write_journal(progress)

        dealer.deal(progress["dealt"], on_blocks, on_round)

    def _write_manifest(self, encoder: FieldEncoder, fields: list[Any], progress: dict[str, Any]) -> None:
        parts = [
            (name, rows, clicks) for name, rows, clicks in zip(SPLIT_NAMES, progress["rows"], progress["clicks"], strict=True)
        ]
        summary = DatasetSummary(
            rows={name: rows for name, rows, _ in parts if rows},
            ctr={name: clicks / rows for name, rows, clicks in parts if rows},
            fields=tuple(fields),
            size_bytes=sum(file.stat().st_size for file in self.folder.iterdir()),
        )
        manifest = {"config": self.config.to_dict(), "schema": encoder.schema.to_dict(), "summary": summary.to_dict()}
        (self.folder / MANIFEST).write_text(json.dumps({"format_version": FORMAT_VERSION, **manifest}, indent=1))

    def _report(self, fraction: float, message: str) -> None:
        self._shown = max(self._shown, min(1.0, fraction))
        self.on_progress(self._shown, message)
        if self.should_stop():
            raise JobCancelled("encoding was cancelled; nothing was kept")

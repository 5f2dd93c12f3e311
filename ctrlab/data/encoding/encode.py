"""Encodes a raw table into a dataset on disk, block by block: memory holds some blocks and the vocabularies, never the table.

Three steps:
    first pass (`first_pass`, `parsing`)   text is parsed once; rows are assigned to splits, parsed cells go to the column cache
    fit (`fit_fields`)                     each field is fitted to its training cells and encodes all its cells, column by column
    write (`write_splits`)                 encoded columns are transposed into the row-major arrays of the splits

All work happens in a folder beside the target that is renamed at the very end, so the target is either whole or absent. An
identical call resumes an interrupted one, and the resulting files are byte-identical to those of an uninterrupted run.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ctrlab.data.configs import SPLIT_NAMES, ColumnConfig, DatasetConfig
from ctrlab.data.dataset import COUNTS, FORMAT_VERSION, MANIFEST, DatasetSummary, EncodedDataset, FieldSummary
from ctrlab.data.encoding.column_cache import ColumnCache
from ctrlab.data.encoding.encoder import FieldEncoder
from ctrlab.data.encoding.field_notes import field_notes
from ctrlab.data.encoding.first_pass import WEIGHT_DTYPE, FirstPass, label_dtype
from ctrlab.data.encoding.fit_fields import fit_fields
from ctrlab.data.encoding.journal import EncodingJournal
from ctrlab.data.encoding.write_splits import SplitWriter
from ctrlab.data.tables.labels import label_notes
from ctrlab.data.tables.lines import LineCounts
from ctrlab.data.tables.notes import Note
from ctrlab.data.tables.reader import TableReader, file_identity, open_readers
from ctrlab.errors import CtrlabError, DataError, FileReadError, JobCancelled, StorageError

OnProgress = Callable[[float, str], None]
ShouldStop = Callable[[], bool]
OpenCache = Callable[[Path], ColumnCache]

#: Fractions of the progress at which the first pass and the fitting end; writing takes the rest.
_PARSED, _FITTED = 0.6, 0.92
_CACHE = "columns"


def encode_dataset(
    config: DatasetConfig,
    out_dir: str | Path,
    *,
    on_progress: OnProgress = lambda fraction, message: None,
    should_stop: ShouldStop = lambda: False,
    max_bytes: int | None = None,
    open_cache: OpenCache = ColumnCache,
) -> EncodedDataset:
    """Encode a raw table into the folder `out_dir`.

    Needs temporary disk space beside `out_dir` for the column cache: 8 bytes per categorical cell, list element or number, 2 per
    bucket, and half of that for the encoded cells.

    After an interruption (a killed process, a full disk, an unexpected error) the work done so far stays in
    `<out_dir>.partial`, and an identical call resumes it. After a DataError or a cancellation it is deleted.

    Args:
        out_dir: a folder that does not exist yet, or the finished result of an identical call.
        on_progress: called with a fraction 0..1 and a sentence, several times a second.
        should_stop: called several times a second; True cancels.
        max_bytes: refuse larger raw files.
        open_cache: opens the column cache in a folder.

    Raises:
        DataError: the files do not fit the config; nothing is left behind.
        FileReadError: the operating system could not read a raw file; the work can be resumed.
        StorageError: the work could not be written, for example because the disk is full; it can be resumed.
        JobCancelled: `should_stop` returned True; nothing is left behind.

    >>> import tempfile
    >>> from ctrlab.data.configs import ColumnConfig, DatasetConfig, SourceConfig
    >>> folder = Path(tempfile.mkdtemp())
    >>> rows = [f"{i % 2},site{i % 3}" for i in range(100)]
    >>> _ = (folder / "log.csv").write_text("\\n".join(["click,site", *rows]))
    >>> columns = (ColumnConfig(name="click", role="label"), ColumnConfig(name="site", role="categorical"))
    >>> config = DatasetConfig(name="log", source=SourceConfig(paths=(str(folder / "log.csv"),)), columns=columns)
    >>> dataset = encode_dataset(config, folder / "log")
    >>> dataset.schema.field_dims, sum(dataset.summary.rows.values())
    ((5,), 100)
    """
    out_dir = Path(out_dir)
    if out_dir.exists():
        return _open_finished(out_dir, config)
    readers = open_readers(config.source, max_bytes=max_bytes)
    for reader in readers:
        _check_columns(reader, config)
    work_dir = out_dir.with_name(out_dir.name + ".partial")
    try:
        _Encoding(config, readers, work_dir, on_progress, should_stop, open_cache).run()
        work_dir.replace(out_dir)
    except FileReadError:
        raise
    except CtrlabError:  # bad data or a cancellation: an identical call could not succeed with the work done so far
        shutil.rmtree(work_dir, ignore_errors=True)
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageError(
            f"encoding stopped because {work_dir.parent} could not be written ({reason}); the work done so far is kept, "
            "so make room there and start it again"
        ) from error
    return EncodedDataset.open(out_dir)


def _open_finished(out_dir: Path, config: DatasetConfig) -> EncodedDataset:
    dataset = EncodedDataset.open(out_dir)
    if dataset.config != config:
        raise DataError(f"{out_dir} already holds the dataset {dataset.config.name!r} with other settings; choose another folder")
    return dataset


def _check_columns(reader: TableReader, config: DatasetConfig) -> None:
    present = set(reader.column_names)
    shown = ", ".join(reader.column_names[:10]) + (", ..." if len(reader.column_names) > 10 else "")
    if config.label not in present:
        raise DataError(f"{reader.name} has no label column {config.label!r}; choose one of its columns, {shown}")
    needed = [column.name for column in config.features]
    needed += [name for name in (config.split.time_column, config.weight) if name]
    if missing := [name for name in dict.fromkeys(needed) if name not in present]:
        raise DataError(f"{reader.name} has no column {', '.join(missing)}; its columns are {shown}; leave that out")
    for column in config.features:
        if column.name in reader.layout.ignored:
            raise DataError(f"{reader.name}: column {column.name} {reader.layout.ignored[column.name]}; ignore it")
        if fault := _list_fault(column, column.name in reader.layout.list_columns):
            raise DataError(f"{reader.name}: column {column.name} {fault}")


def _list_fault(column: ColumnConfig, holds_lists: bool) -> str | None:
    """Why a column's role or separator does not fit its cells; None if they fit."""
    if column.role != "list":
        return f"holds lists and has the role {column.role}; make it a list or ignore it" if holds_lists else None
    if holds_lists and (column.separator is not None or column.list_format is not None):
        return f"holds lists, so nothing is split at {column.separator or column.list_format!r}; leave its separator empty"
    if not holds_lists and column.separator is None and column.list_format is None:
        return "holds text; set the separator between the elements of its lists, for example ^ or |"
    return None


class _Encoding:
    """One run of `encode_dataset`, from opened readers to a complete folder."""

    def __init__(
        self,
        config: DatasetConfig,
        readers: list[TableReader],
        folder: Path,
        on_progress: OnProgress,
        should_stop: ShouldStop,
        open_cache: OpenCache,
    ) -> None:
        self.config, self.readers, self.folder = config, readers, folder
        self.on_progress, self.should_stop = on_progress, should_stop
        self._open_cache = open_cache
        self._shown = 0.0

    def run(self) -> None:
        journal = self._resume()
        self.cache = self._open_cache(self.folder / _CACHE)
        if not journal.complete:
            self._encode(journal)
        self.cache.delete()
        self.on_progress(1.0, "done")

    def _encode(self, journal: EncodingJournal) -> None:
        encoder = FieldEncoder.for_columns(self.config.features, self.config.source.missing_words)
        first_pass = FirstPass(self.config, self.readers, encoder, self.cache, journal)
        journal = first_pass.run(lambda share, message: self._report(_PARSED * share, message))
        encoder.check_readable(journal.num_rows)
        encoder, stats = fit_fields(encoder, self.cache, self._report_fitting)
        self._write_splits(encoder, journal)
        self._report(1.0, "writing vocabularies")
        order = [*encoder.id_fields, *encoder.list_fields]
        np.save(self.folder / COUNTS, np.concatenate([np.empty(0, np.int64), *(stats[field.name].counts for field in order)]))
        encoder.save(self.folder)
        self._write_manifest(encoder, [stats[field.name].summary() for field in encoder.fields], journal)
        journal.complete = True
        self.cache.write_journal(journal)

    def _resume(self) -> EncodingJournal:
        """The journal of an interrupted identical run; otherwise a new one, and an empty work folder."""
        files = [[*file_identity(reader.path), reader.part.member] for reader in self.readers]
        task = json.loads(json.dumps([FORMAT_VERSION, self.config.to_dict(), files]))
        journal = self._open_cache(self.folder / _CACHE).read_journal()
        if journal is not None and journal.task == task:
            return journal
        shutil.rmtree(self.folder)
        return EncodingJournal(task)

    def _report_fitting(self, share: float) -> None:
        self._report(_PARSED + (_FITTED - _PARSED) * share, f"fitted {share:.0%} of the vocabularies and statistics")

    def _write_splits(self, encoder: FieldEncoder, journal: EncodingJournal) -> None:
        targets = {"labels": label_dtype(self.config)} | ({"weights": WEIGHT_DTYPE} if self.config.weight else {})
        writer = SplitWriter(encoder, self.cache, self.folder, targets)

        def on_blocks(done: int) -> None:
            share = done / writer.num_blocks
            self._report(_FITTED + (1 - _FITTED) * share, f"wrote {share:.0%} of the rows")

        def on_round(done: int) -> None:
            journal.blocks_written = done
            self.cache.write_journal(journal)

        writer.write(journal.blocks_written, on_blocks, on_round)

    def _write_manifest(self, encoder: FieldEncoder, fields: list[FieldSummary], journal: EncodingJournal) -> None:
        splits = list(zip(SPLIT_NAMES, journal.rows, journal.clicks, journal.weights, strict=True))
        summary = DatasetSummary(
            rows={name: rows for name, rows, _, _ in splits if rows},
            ctr={name: clicks / weight for name, rows, clicks, weight in splits if rows},
            clicks={name: clicks for name, rows, clicks, _ in splits if rows},
            fields=tuple(fields),
            size_bytes=sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file() and path.name != MANIFEST),
            notes=(
                *label_notes(self.config, journal.dropped, journal.rows_read),
                *self._notes(journal),
                *field_notes(encoder.fields, fields),
            ),
        )
        manifest: dict[str, Any] = {
            "config": self.config.to_dict(),
            "schema": encoder.schema.to_dict(),
            "summary": summary.to_dict(),
        }
        (self.folder / MANIFEST).write_text(json.dumps({"format_version": FORMAT_VERSION, **manifest}, indent=1))

    def _notes(self, journal: EncodingJournal) -> tuple[Note, ...]:
        """What was found about the files' lines; the same finding of several files once."""
        lines = [LineCounts.from_dict(one) for one in journal.lines]
        found = [note for reader, counts in zip(self.readers, lines, strict=False) for note in reader.notes(counts)]
        return tuple(dict.fromkeys(found))

    def _report(self, fraction: float, message: str) -> None:
        self._shown = max(self._shown, min(1.0, fraction))
        self.on_progress(self._shown, message)
        if self.should_stop():
            raise JobCancelled("encoding was cancelled; nothing was kept")

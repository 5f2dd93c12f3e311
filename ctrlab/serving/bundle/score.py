"""Scores a table with a bundle, block by block: memory does not grow with the rows."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ctrlab.data.configs import SourceConfig
from ctrlab.data.encoding.parsing import ParsedBlock, parse_rounds
from ctrlab.data.encoding.threads import map_in_threads
from ctrlab.data.schema import OUT_OF_VOCABULARY_ID
from ctrlab.data.tables.notes import Note
from ctrlab.data.tables.reader import Table, above, open_table
from ctrlab.errors import ConfigError, DataError, JobCancelled, StorageError
from ctrlab.serving.bundle.read import Bundle

#: Of the scores, in a file or a table.
PROBABILITY = "probability"
_FORMATS = (".csv", ".parquet")
#: A field with so many more values out of vocabulary than when the model was measured, as a share of the rows, is named.
_MORE_UNSEEN = 0.2
#: Most fields that one note names.
_NAMED = 5
#: Seconds between two reports of progress.
_REPORT_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What was scored. rows: as many scores as the file has, in the order of the table. notes: what was found in the table."""

    rows: int
    mean: float
    seconds: float
    notes: tuple[Note, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"rows": self.rows, "mean": self.mean, "seconds": self.seconds, "notes": [note.to_dict() for note in self.notes]}


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """What to score, and where the scores go.

    source: the table; its label is not needed. keep: columns that are copied beside the scores.
    """

    source: SourceConfig
    out: Path
    keep: tuple[str, ...] = ()


def score_table(
    bundle: Bundle,
    task: ScoreTable,
    *,
    on_progress: Callable[[float, str], None] = lambda fraction, message: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Scored:
    """Write a file with the probability of every row of a table, in their order: `.csv` or `.parquet`, whole or not at all.

    Raises:
        DataError: the table cannot be read, or has no column that the model needs.
        ConfigError: the file is neither CSV nor Parquet. StorageError: it cannot be written. JobCancelled: `should_stop`.
    """
    if task.out.suffix not in _FORMATS:
        raise ConfigError(f"scores are written as {' or '.join(_FORMATS)}, got {task.out.name}; choose one of these endings")
    table = open_for(bundle, task.source)
    if absent := [name for name in task.keep if name not in table.column_names]:
        raise ConfigError(f"{table.name} has no column {', '.join(absent)} to keep; its columns are {_shown(table.column_names)}")
    if PROBABILITY in task.keep:
        raise ConfigError(f"a kept column would be called {PROBABILITY} like the scores; leave it out")
    started, reported, rows, total = time.monotonic(), 0.0, 0, 0.0
    unseen = np.zeros(len(bundle.fields.id_fields), np.int64)
    lines = []
    with _writer(task.out, task.keep) as write:
        for reader in table.readers:
            lines.append(above(reader.layout))
            for parsed in parse_rounds(reader, bundle.fields, task.keep):
                for kept, scores, unknown in map_in_threads(lambda block: _predicted(bundle, block), parsed.blocks):
                    write(pl.DataFrame([*kept, pl.Series(PROBABILITY, scores)]))
                    rows, total, unseen = rows + len(scores), total + float(scores.sum(dtype=np.float64)), unseen + unknown
                lines[-1] = parsed.lines or sum((block.lines for block in parsed.blocks if block.lines), lines[-1])
                lines[-1].check(reader.name, len(reader.layout.column_names))
                if should_stop():
                    raise JobCancelled("scoring was cancelled; nothing was written")
                if time.monotonic() - reported > _REPORT_SECONDS:
                    reported = time.monotonic()
                    rate = rows / (reported - started)
                    on_progress(table.bytes_read / max(1, table.total_bytes), f"{rows:,} rows, {rate / 1e3:.0f} k rows/s")
    found = [note for reader, own in zip(table.readers, lines, strict=True) for note in reader.notes(own)]
    notes = (*dict.fromkeys(note for note in found if note.severity != "info"), *_unseen_notes(bundle, unseen, rows))
    return Scored(rows=rows, mean=total / max(rows, 1), seconds=time.monotonic() - started, notes=notes)


def _predicted(bundle: Bundle, block: ParsedBlock) -> tuple[list[pl.Series], NDArray[np.float32], NDArray[np.int64]]:
    """The kept columns of a block, its scores, and its cells out of vocabulary by field."""
    encoded = bundle.fields.encode(block.columns)
    kept = [texts.alias(name) for name, texts in block.texts.items()]
    return kept, bundle.predict_encoded(encoded), (encoded.ids == OUT_OF_VOCABULARY_ID).sum(axis=0)


def _unseen_notes(bundle: Bundle, unseen: NDArray[np.int64], rows: int) -> list[Note]:
    """Which fields have far more values out of vocabulary than the rows that the model was measured on had."""
    known = bundle.manifest.get("unseen_shares", {})
    shares = {own.name: cells / max(rows, 1) for own, cells in zip(bundle.fields.id_fields, unseen.tolist(), strict=True)}
    more = {name: share for name, share in shares.items() if share > known.get(name, 0.0) + _MORE_UNSEEN}
    if not more:
        return []
    worst = sorted(more, key=more.__getitem__, reverse=True)
    named = ", ".join(f"{name} {more[name]:.0%} (then {known.get(name, 0.0):.0%})" for name in worst[:_NAMED])
    others = f" and {len(worst) - _NAMED} more" if len(worst) > _NAMED else ""
    text = f"far more cells hold values that training did not have than when the model was measured: {named}{others}"
    remedy = "check that these columns are written as in training, or train on newer rows"
    return [Note("out of vocabulary", worst[0] if len(worst) == 1 else None, text, "warning", remedy)]


def open_for(bundle: Bundle, source: SourceConfig) -> Table:
    """The table of a source with the columns that the bundle needs.

    A file without a header gets the names that the table of the training had, without the label's where a column less is there.

    Raises:
        DataError: a column is missing, with those that are there.
    """
    if len(source.paths) > 1:
        raise ConfigError("scores are of one table: give one file, folder or pattern")
    table = open_table(source)
    trained = bundle.manifest.get("source", {})
    names = tuple(trained.get("column_names", ()))
    if (
        not source.column_names
        and names
        and not trained.get("header", True)
        and not set(bundle.columns) <= set(table.column_names)
    ):
        own = len(table.column_names)
        without = tuple(name for name in names if name != trained.get("label"))
        fitting = next((one for one in (names, without) if len(one) == own), None)
        if fitting is not None:
            table = open_table(source.replace(column_names=fitting, header=False))
    if missing := [name for name in bundle.columns if name not in table.column_names]:
        there = _shown(table.column_names)
        raise DataError(f"{table.name} has no column {', '.join(missing)}, which the model reads; its columns are {there}")
    return table


def score_stream(bundle: Bundle, stream: IO[bytes], task: ScoreTable, **callbacks: Any) -> Scored:
    """`score_table` of a stream, such as standard input, by way of a temporary file: a layout is found by looking ahead."""
    with tempfile.TemporaryDirectory(prefix="ctrlab-") as folder:
        path = Path(folder) / "rows"
        with path.open("wb") as file:
            shutil.copyfileobj(stream, file)
        task = ScoreTable(source=task.source.replace(paths=(str(path),)), out=task.out, keep=task.keep)
        return score_table(bundle, task, **callbacks)


class _Write(Protocol):
    def __call__(self, frame: pl.DataFrame, /) -> None: ...


@contextmanager
def _writer(out: Path, keep: Sequence[str]) -> Iterator[_Write]:
    """A function that appends rows to the file, which gets its name at the end."""
    unfinished = out.with_name(f".{out.name}.part")
    try:
        if out.suffix == ".parquet":
            schema = pa.schema([*((name, pa.large_string()) for name in keep), (PROBABILITY, pa.float32())])
            with pq.ParquetWriter(unfinished, schema) as file:
                yield lambda frame: file.write_table(frame.to_arrow().cast(schema))
        else:
            with unfinished.open("wb") as csv:
                csv.write(pl.DataFrame(schema=[*keep, PROBABILITY]).write_csv().encode())
                yield lambda frame: frame.write_csv(csv, include_header=False)
        unfinished.replace(out)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageError(f"scores cannot be written to {out} ({reason}); give a file that can be written") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")

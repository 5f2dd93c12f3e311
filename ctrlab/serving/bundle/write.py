"""Writes a bundle, after its ONNX file has answered as the model does."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import polars as pl
from numpy.typing import NDArray

import ctrlab
from ctrlab.data.dataset import EncodedDataset, Split
from ctrlab.data.encoding.encoder import ENCODER_FILE, VOCABULARY_FILE, EncodedBlock, FieldEncoder
from ctrlab.data.encoding.fields import TextField
from ctrlab.errors import ServingError, StorageError
from ctrlab.serving.bundle.columns import Column, Feeds, columns_of, inputs_of_rows, joined
from ctrlab.serving.bundle.raw_graph import Calibration, raw_model
from ctrlab.serving.bundle.read import (
    BATCH_ROWS,
    EXAMPLES_FILE,
    FORMAT,
    IDS_FILE,
    MANIFEST,
    RAW_FILE,
    README_FILE,
    digest_of,
    load_bundle,
    probabilities,
)  # fmt: skip
from ctrlab.serving.bundle.readme import readme

#: Rows of the check, and of the examples in the bundle.
CHECK_ROWS, EXAMPLES = 4096, 20
#: How far a probability may be from the model's own.
TOLERANCE = 1e-5
_LONGEST = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class BundleSource:
    """What a bundle is made of.

    ids_file: the ONNX file that reads ids. tolerance: how far its probabilities may be from `logits`.
    logits: the model's own of the first rows of `check`, float32 (n,).
    facts: what the manifest says besides: name, form, AUC.
    """

    dataset: EncodedDataset
    ids_file: Path
    check: Split
    logits: NDArray[np.float32]
    calibration: Calibration | None = None
    tolerance: float = TOLERANCE
    facts: Mapping[str, Any] = field(default_factory=dict)


def write_bundle(source: BundleSource, folder: Path) -> dict[str, Any]:
    """Write the bundle into a new folder and open it once; returns its manifest.

    Raises:
        ServingError: the ONNX file does not answer as the model does, or is too large to be one file. Nothing is left behind.
        StorageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True)
        manifest = _write(source, folder)
        load_bundle(folder).check()
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        reason = error.strerror or type(error).__name__
        raise StorageError(
            f"the bundle cannot be written to {folder} ({reason}); give a new folder that can be written"
        ) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return manifest


def _write(source: BundleSource, folder: Path) -> dict[str, Any]:
    encoder = FieldEncoder.load(source.dataset.path)
    body = onnx.load(str(source.ids_file))
    columns = columns_of(encoder, lists=any(value.name == "lists" for value in body.graph.input))
    model = raw_model(body, columns, encoder, source.calibration)
    if model.ByteSize() > _LONGEST:
        raise ServingError(
            "the model with its vocabularies is larger than 2 GB, which one ONNX file cannot hold; compress its tables"
        )
    (folder / RAW_FILE).write_bytes(model.SerializeToString())
    shutil.copyfile(source.ids_file, folder / IDS_FILE)
    for name in (ENCODER_FILE, VOCABULARY_FILE):
        shutil.copyfile(source.dataset.path / name, folder / name)
    session = onnxruntime.InferenceSession(str(folder / RAW_FILE), providers=["CPUExecutionProvider"])
    feeds, expected = _checked(session, columns, encoder, source)
    _check_odd_rows(session, columns, encoder, source)
    examples = {name: own[:EXAMPLES] for name, own in feeds.items()}
    written = {"rows": {name: _json(own) for name, own in examples.items()}, "probability": expected[:EXAMPLES].tolist()}
    (folder / EXAMPLES_FILE).write_text(json.dumps(written, indent=1))
    files = {path.name: digest_of(path) for path in sorted(folder.iterdir())}
    manifest = {
        "format": FORMAT, "version": digest_of_digests(files), "ctrlab": ctrlab.__version__,
        "made_with": {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
        "columns": [column.to_dict() for column in columns], "output": session.get_outputs()[0].name,
        "calibration": asdict(source.calibration) if source.calibration else None, "tolerance": source.tolerance,
        "checked_rows": len(expected), **source.facts, "files": files,
    }  # fmt: skip
    (folder / README_FILE).write_text(readme(manifest))
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return manifest


def digest_of_digests(files: Mapping[str, str]) -> str:
    """A short name of the files' content."""
    return hashlib.sha256(json.dumps(dict(sorted(files.items()))).encode()).hexdigest()[:12]


def _checked(
    session: onnxruntime.InferenceSession, columns: Sequence[Column], encoder: FieldEncoder, source: BundleSource
) -> tuple[Feeds, NDArray[np.float32]]:
    """Raw values of rows of the check, and their probabilities, which are the model's own."""
    count = min(CHECK_ROWS, len(source.check), len(source.logits))
    fields = source.check.fields(slice(0, count))
    feeds = inputs_of_rows(columns, encoder, EncodedBlock(*fields))
    expected = probabilities(source.logits[:count], asdict(source.calibration) if source.calibration else None)
    _compare(session.run(None, feeds)[0], expected, source.tolerance, "rows of the data")
    return feeds, expected


def _check_odd_rows(
    session: onnxruntime.InferenceSession, columns: Sequence[Column], encoder: FieldEncoder, source: BundleSource
) -> None:
    """One row with odd cells, a column and a cell at a time, against the encoder and the file that reads ids."""
    first = inputs_of_rows(columns, encoder, EncodedBlock(*source.check.fields(slice(0, 1))))
    # The encoder reads times from texts of one format, which seconds are not: missing ones alone are alike.
    first |= {column.name: np.array([np.nan]) for column in columns if column.kind == "time"}
    rows = [first]
    for column in columns:
        rows += [{**first, column.name: own} for own in _odd_cells(column)]
    feeds = joined(rows)
    ids = onnxruntime.InferenceSession(str(source.ids_file), providers=["CPUExecutionProvider"])
    encoded = encoder_of(columns).transform(_texts(columns, feeds))
    parts = {"ids": encoded.ids, "values": encoded.values, "lists": encoded.lists}
    logits = ids.run(["logits"], {value.name: parts[value.name] for value in ids.get_inputs()})[0]
    expected = probabilities(logits, asdict(source.calibration) if source.calibration else None)
    _compare(session.run(None, feeds)[0], expected, TOLERANCE, "rows with missing, unseen and odd cells")


def logits_of_file(ids_file: Path, rows: Split, count: int) -> NDArray[np.float32]:
    """The logits of the first rows of a split by an ONNX file that reads ids, float32 (count,)."""
    session = onnxruntime.InferenceSession(str(ids_file), providers=["CPUExecutionProvider"])
    wanted = [value.name for value in session.get_inputs()]

    def of_batch(start: int) -> NDArray[np.float32]:
        fields = rows.fields(slice(start, min(start + BATCH_ROWS, count)))._asdict()
        found: NDArray[np.float32] = session.run(["logits"], {name: fields[name] for name in wanted})[0]
        return found

    return np.concatenate([of_batch(start) for start in range(0, count, BATCH_ROWS)])


def encoder_of(columns: Sequence[Column]) -> FieldEncoder:
    """The encoder of these columns alone."""
    return FieldEncoder([own for column in columns for own in column.fields])


def _odd_cells(column: Column) -> list[NDArray[Any]]:
    if column.kind == "text":
        own = column.fields[0]
        assert isinstance(own, TextField)
        known = own.vocabulary[0] if len(own.vocabulary) else "x"
        cells = ["", "NA", "null", "never seen", "x" * 10_000, "12.0", "-0", "Ünïcödé", known, f"{known}.0"]
        return [np.array([cell], object) for cell in cells]
    if column.kind == "list":
        return [np.array([cells], object) for cells in ([""], ["never seen", "", "NA"], ["x"] * 70)]
    cells = [] if column.kind == "time" else [np.nan, np.inf, -np.inf, 0.0, -1.0, 1e30, -1e30, 0.5, 3.0]
    return [np.array([cell], np.float64) for cell in cells]


def _texts(columns: Sequence[Column], feeds: Feeds) -> pl.DataFrame:
    """Inputs of the ONNX file as String columns."""
    return pl.DataFrame([_text_column(column, feeds[column.name]) for column in columns])


def _text_column(column: Column, cells: NDArray[Any]) -> pl.Series:
    if column.kind == "text":
        texts = [cell or None for cell in cells]
    elif column.kind == "number":
        comma = column.fields[0].rules.number_format in ("1234,5", "1.234,5")
        plain = [np.format_float_positional(cell, trim="-").replace(".", "," if comma else ".") for cell in cells]
        texts = [text if np.isfinite(cell) else None for text, cell in zip(plain, cells, strict=True)]
    elif column.kind == "list":
        return _list_texts(column, cells)
    else:
        texts = [None] * len(cells)
    return pl.Series(column.name, texts, dtype=pl.String)


def _list_texts(column: Column, cells: NDArray[Any]) -> pl.Series:
    from ctrlab.data.encoding.fields import ListField
    from ctrlab.data.tables.reader import LIST_SEPARATOR

    own = column.fields[0]
    assert isinstance(own, ListField)
    rows = [[element for element in row if element] for row in cells]
    if own.notation.list_format is not None:
        return pl.Series(column.name, ["[" + ", ".join(map(json.dumps, row)) + "]" for row in rows], dtype=pl.String)
    return pl.Series(column.name, [(own.notation.separator or LIST_SEPARATOR).join(row) for row in rows], dtype=pl.String)


def _compare(found: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float, what: str) -> None:
    # A number so large that the model itself gives NaN is no fault of the file.
    same = np.isclose(found, expected, rtol=0, atol=tolerance, equal_nan=True)
    if not same.all():
        raise ServingError(
            f"no bundle was written: on {what} its ONNX file differs from the model by more than the {tolerance:g} allowed in "
            f"{int((~same).sum())} of {len(found)} rows; report this"
        )


def _json(cells: NDArray[Any]) -> list[Any]:
    if cells.dtype == object:
        return list(cells.tolist())
    return [None if np.isnan(cell) else float(cell) for cell in cells]

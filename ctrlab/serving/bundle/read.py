"""A bundle read back: raw rows to probabilities by ONNX Runtime, without torch."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.encoding.encoder import EncodedBlock, FieldEncoder
from ctrlab.data.encoding.fields.buckets import ClockField
from ctrlab.errors import DataError, ServingError
from ctrlab.serving.bundle.columns import Column, Feeds, columns_of
from ctrlab.serving.bundle.rows import inputs_of_cells

FORMAT = 1
MANIFEST, RAW_FILE, IDS_FILE, EXAMPLES_FILE, README_FILE = (
    "bundle.json", "model.onnx", "model.ids.onnx", "examples.json", "README.md",
)  # fmt: skip
#: Rows that one call of ONNX Runtime takes: more only take more memory.
BATCH_ROWS = 4096


@dataclass(frozen=True)
class Bundle:
    """A bundle that `load_bundle` opened. Any number of threads may predict with it.

    path: its folder. manifest: `bundle.json`.
    """

    path: Path
    manifest: dict[str, Any]
    encoder: FieldEncoder
    session: onnxruntime.InferenceSession

    @property
    def name(self) -> str:
        """Of the model."""
        return str(self.manifest["name"])

    @property
    def version(self) -> str:
        """A digest of the files: equal bundles have equal versions."""
        return str(self.manifest["version"])

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that a row needs."""
        return tuple(column["name"] for column in self.manifest["columns"])

    def predict(self, rows: Any) -> NDArray[np.float32]:
        """The probability of a click of each row, float32 (n,).

        Args:
            rows: a pandas or polars data frame, a pyarrow table, or a dictionary of columns. Cells are raw values, as a row of
                the table that the dataset was made from has them; other columns are ignored. Values that training did not have
                take the id for these, missing ones that for missing.

        Raises:
            DataError: a column is missing.
        """
        return self.predict_texts(self.texts(rows))

    def texts(self, rows: Any) -> pl.DataFrame:
        """Rows as String columns, as a text file has them."""
        frame = _frame(rows)
        if missing := [name for name in self.columns if name not in frame.columns]:
            raise DataError(f"the rows have no column {', '.join(missing)}; they need {', '.join(self.columns)}")
        formats = {field.column: field.timestamp_format for field in self.encoder.fields if isinstance(field, ClockField)}
        return pl.DataFrame([_as_texts(frame[name], formats.get(name)) for name in self.columns])

    def predict_texts(self, texts: pl.DataFrame) -> NDArray[np.float32]:
        """`predict` of String columns; an empty cell is missing, like null."""
        return self.predict_encoded(self.encode(texts))

    def encode(self, texts: pl.DataFrame) -> EncodedBlock:
        """Rows of String columns as the model's ids and values."""
        return self.fields.transform(texts)

    def predict_encoded(self, rows: EncodedBlock) -> NDArray[np.float32]:
        """The probabilities of encoded rows."""
        batches = [slice(start, start + BATCH_ROWS) for start in range(0, len(rows.ids), BATCH_ROWS)]
        parts = {"ids": rows.ids, "values": rows.values, "lists": rows.lists}
        wanted = [value.name for value in self.session.get_inputs()]

        def logits(rows: slice) -> NDArray[np.float32]:
            found: NDArray[np.float32] = self.session.run(["logits"], {name: parts[name][rows] for name in wanted})[0]
            return found

        found = np.concatenate([np.empty(0, np.float32), *map(logits, batches)])
        return probabilities(found, self.manifest["calibration"])

    def predict_cells(self, cells: Mapping[str, Sequence[Any]]) -> NDArray[np.float32]:
        """`predict` of columns of JSON values by the file that reads raw values: the fastest for few rows, strict about cells.

        Raises:
            DataError: a column is missing, or a cell is none of its column; with the column and the number of the row.
        """
        return self.predict_inputs(self.inputs(cells))

    def inputs(self, cells: Mapping[str, Sequence[Any]]) -> Feeds:
        """Columns of JSON values as inputs of the file that reads raw values; raises as `predict_cells`."""
        return inputs_of_cells(self._columns, cells)

    def predict_inputs(self, inputs: Feeds) -> NDArray[np.float32]:
        """The probabilities of such inputs."""
        found: NDArray[np.float32] = self._raw.run(None, inputs)[0]
        return found

    @cached_property
    def _raw(self) -> onnxruntime.InferenceSession:
        return _session(self.path / RAW_FILE, 1)

    @cached_property
    def _columns(self) -> list[Column]:
        return columns_of(self.fields, lists=True)

    def check(self) -> None:
        """Predict the examples; ServingError where a probability is another than the bundle says."""
        examples = json.loads((self.path / EXAMPLES_FILE).read_text())
        session = self._raw
        kinds = {value.name: value.type for value in session.get_inputs()}
        found = session.run(None, {name: as_input(examples["rows"][name], kinds[name]) for name in kinds})[0]
        furthest = float(np.abs(found - np.array(examples["probability"], np.float32)).max())
        if not furthest <= self.manifest["tolerance"]:
            raise ServingError(
                f"{self.path} gives other probabilities on this machine than where it was made: an example differs by "
                f"{furthest:.2g}, allowed are {self.manifest['tolerance']:g}; make the bundle again here"
            )

    @cached_property
    def fields(self) -> FieldEncoder:
        """The encoder of the columns that the model reads: without lists where it reads none."""
        names = set(self.columns)
        return FieldEncoder([field for field in self.encoder.fields if field.column in names])


def load_bundle(path: str | Path, *, threads: int | None = None) -> Bundle:
    """Open a bundle that `export` wrote, after its files were compared with their checksums.

    Args:
        path: the folder.
        threads: of ONNX Runtime for one call; all cores by default.

    Raises:
        ServingError: no bundle, one of another format, or a file is missing or was changed.

    `load_bundle("out").predict(frame)` gives the probability of every row of a data frame.

    >>> load_bundle("no-such-folder")
    Traceback (most recent call last):
        ...
    ctrlab.errors.ServingError: no-such-folder holds no bundle, or a damaged one; `ctrlab export MODEL no-such-folder` writes one
    """
    path = Path(path)
    manifest = read_manifest(path)
    for name, digest in manifest["files"].items():
        if not (path / name).is_file():
            raise ServingError(f"{name} of the bundle {path} is missing; export the model again")
        if digest_of(path / name) != digest:
            raise ServingError(f"{name} of the bundle {path} was changed or is damaged; export the model again")
    encoder = FieldEncoder.load(path)
    bundle = Bundle(path, manifest, encoder, _session(path / IDS_FILE, threads))
    lists = any(value.name == "lists" for value in bundle.session.get_inputs())
    if [column.name for column in columns_of(encoder, lists=lists)] != list(bundle.columns):
        raise ServingError(f"the encoder of the bundle {path} is not the model's; export the model again")
    return bundle


def read_manifest(path: Path) -> dict[str, Any]:
    """`bundle.json`, checked for what is read of it."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError, RecursionError):
        raise ServingError(f"{path} holds no bundle, or a damaged one; `ctrlab export MODEL {path}` writes one") from None
    wanted = {"format": int, "name": str, "version": str, "columns": list, "files": dict, "tolerance": float}
    if not isinstance(manifest, dict) or any(not isinstance(manifest.get(name), kind) for name, kind in wanted.items()):
        raise ServingError(f"{MANIFEST} of {path} is damaged; export the model again")
    if manifest["format"] != FORMAT:
        raise ServingError(f"{path} has bundle format {manifest['format']}, this ctrlab reads {FORMAT}; export the model again")
    return manifest


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def probabilities(logits: NDArray[np.float32], calibration: Mapping[str, float] | None) -> NDArray[np.float32]:
    """The probabilities of logits, calibrated where the bundle is."""
    if calibration is not None:
        logits = np.float32(calibration["slope"]) * logits + np.float32(calibration["intercept"])
    with np.errstate(over="ignore"):
        found: NDArray[np.float32] = np.asarray(1 / (1 + np.exp(-logits)), np.float32)
    return found


def as_input(values: Sequence[Any], kind: str) -> NDArray[Any]:
    """Cells of a JSON document as an input of the ONNX file; null is a missing number."""
    if kind == "tensor(string)":
        return np.array(values, object)
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _session(path: Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = threads or 0
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _frame(rows: Any) -> pl.DataFrame:
    if isinstance(rows, pl.DataFrame):
        return rows
    try:
        if isinstance(rows, Mapping):
            return pl.DataFrame({name: pl.Series(values, strict=False) for name, values in rows.items()}, strict=False)
        if hasattr(rows, "iloc"):  # pandas
            return pl.from_pandas(rows, nan_to_null=True)
        found = pl.from_arrow(rows)
    except (TypeError, ValueError, pl.exceptions.PolarsError, ImportError) as error:
        raise DataError(f"the rows cannot be read as a table ({error}); give a data frame or a dictionary of columns") from None
    assert isinstance(found, pl.DataFrame)
    return found


def _as_texts(cells: pl.Series, timestamp_format: str | None) -> pl.Series:
    if isinstance(cells.dtype, pl.List | pl.Array):
        from ctrlab.data.tables.reader import LIST_SEPARATOR

        return cells.cast(pl.List(pl.String)).list.join(LIST_SEPARATOR)
    if cells.dtype in (pl.Datetime, pl.Date) and timestamp_format and "%" in timestamp_format:
        return cells.dt.strftime(timestamp_format)
    return cells.cast(pl.String, strict=False)

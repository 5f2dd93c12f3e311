"""The encoded dataset on disk: integer ids, float values and labels as memory-mapped arrays, one set per split.

Layout of the folder:
    dataset.json                 format version, config, schema, summary
    encoder.json, vocabulary.parquet  the fitted encoder, see `FieldEncoder.load`
    counts.npy                   int64, count of each id in the training rows: of each categorical field, then for each list of
                                 the ids of its vocabulary among its elements
    <split>.ids.npy              int32 (n, F)
    <split>.values.npy           float32 (n, V)
    <split>.lists.npy            int32 (n, total length of the lists)
    <split>.labels.npy           uint8 (n,), 1 = click; float32 (n,) shares of clicks where the label is soft
    <split>.weights.npy          float32 (n,), impressions of each row, only where rows have weights
"""

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ctrlab.data.configs import DatasetConfig
from ctrlab.data.schema import NO_LISTS, FeatureSchema, Fields
from ctrlab.data.tables.notes import Note, notes_from
from ctrlab.errors import DataError, UnknownNameError

FORMAT_VERSION = 2
MANIFEST = "dataset.json"
COUNTS = "counts.npy"


@dataclass(frozen=True)
class Split:
    """The rows of one split, as memory maps.

    ids: int32 (n, F).
    values: float32 (n, V), standardised; a missing number is 0, the training mean.
    labels: uint8 (n,), 1 = click; float32 (n,), a share of clicks 0..1, where the label is soft.
    lists: int32 (n, total length), see `Fields`.
    weights: float32 (n,), impressions of each row; None if every row counts once.
    """

    name: str
    ids: NDArray[np.int32]
    values: NDArray[np.float32]
    labels: "NDArray[np.uint8] | NDArray[np.float32]"
    lists: NDArray[np.int32] = field(default_factory=lambda: NO_LISTS)
    weights: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if not self.lists.shape[1]:
            object.__setattr__(self, "lists", np.empty((len(self.labels), 0), np.int32))

    def __len__(self) -> int:
        return len(self.labels)

    def targets(self, rows: "slice | NDArray[np.intp]" = slice(None)) -> NDArray[np.float32]:
        """What models learn and are measured by, of some rows: float32 (n,), 1 = click.

        Where labels are soft or rows have weights, float32 (n, 2): the weight of clicks w y and of non-clicks w (1 - y) of each
        row, so that a row counts as so many impressions with so many clicks.

        >>> Split("valid", np.zeros((2, 1)), np.zeros((2, 0)), np.array([0.25, 0]), weights=np.array([4, 2])).targets().tolist()
        [[1.0, 3.0], [0.0, 2.0]]
        """
        labels = np.asarray(self.labels[rows], np.float32)
        if self.weights is None and self.labels.dtype.kind != "f":
            return labels
        weights = np.float32(1.0) if self.weights is None else np.asarray(self.weights[rows], np.float32)
        return np.stack([weights * labels, weights * (1 - labels)], axis=1)

    def fields(self, rows: "slice | NDArray[np.intp]") -> Fields:
        """Copies of the features of some rows; views of the map would be read-only, which torch does not support."""
        return Fields(
            np.array(self.ids[rows], np.int32), np.array(self.values[rows], np.float32), np.array(self.lists[rows], np.int32)
        )


@dataclass(frozen=True)
class FieldSummary:
    """Statistics of one field over the training rows (`oov_share`: over all other rows).

    kind: "categorical", "numeric" or "list". Shares of a list are of its elements, but `missing_share` is that of empty lists.
    column: name of the raw column.
    cardinality: number of ids in use, without reserved ids; 0 for a numeric field.
    missing_share, oov_share: shares of rows, 0..1. oov_by_split: the share out of vocabulary in each split but train.
    oov_expected: the share out of vocabulary that a random split of the training rows would give.
    head_share: share of training rows held by the most frequent 1 % of the ids (at least one id).
    unreadable: cells of all rows that were not empty but could not be read as a number or time; they count as missing.
    """

    name: str
    column: str
    kind: str
    cardinality: int
    missing_share: float
    oov_share: float
    head_share: float
    unreadable: int
    oov_by_split: dict[str, float] = field(default_factory=dict)
    oov_expected: float = 0.0


@dataclass(frozen=True)
class DatasetSummary:
    """Rows, click-through rate and clicks of each split, the statistics of each field, and findings of the encoding to show.

    Clicks and rates are by weight where rows have weights, and sums of shares where the label is soft.
    """

    rows: dict[str, int]
    ctr: dict[str, float]
    fields: tuple[FieldSummary, ...]
    size_bytes: int
    notes: tuple[Note, ...] = ()
    clicks: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        lists = {"fields": [asdict(field) for field in self.fields], "notes": [note.to_dict() for note in self.notes]}
        return asdict(self) | lists

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        fields = tuple(FieldSummary(**field) for field in values["fields"])
        return cls(
            rows=values["rows"],
            ctr=values["ctr"],
            fields=fields,
            size_bytes=values["size_bytes"],
            notes=notes_from(values.get("notes", ())),
            clicks=values.get("clicks", {}),
        )


@dataclass(frozen=True)
class EncodedDataset:
    """An encoded dataset; arrays are memory-mapped on access.

    `encode_dataset` has an example.
    """

    path: Path
    config: DatasetConfig
    schema: FeatureSchema
    summary: DatasetSummary

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a folder that `encode_dataset` wrote.

        Raises:
            DataError: the folder holds no encoded dataset, or one of another format version.
        """
        path = Path(path)
        try:
            manifest = json.loads((path / MANIFEST).read_text())
        except (OSError, ValueError):
            raise DataError(f"{path} holds no encoded dataset, or a damaged one; encode the raw file again") from None
        version = manifest.get("format_version")
        if version != FORMAT_VERSION:
            raise DataError(f"{path} has dataset format {version}, this ctrlab reads {FORMAT_VERSION}; encode the raw file again")
        return cls(
            path=path,
            config=DatasetConfig.from_dict(manifest["config"]),
            schema=FeatureSchema.from_dict(manifest["schema"]),
            summary=DatasetSummary.from_dict(manifest["summary"]),
        )

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have rows."""
        return tuple(self.summary.rows)

    def num_rows(self, split: str) -> int:
        self._check(split)
        return self.summary.rows[split]

    def split(self, name: str) -> Split:
        """The rows of one split, memory-mapped read-only."""
        self._check(name)
        parts = ("ids", "values", "labels", "lists", *(("weights",) if self.config.weight else ()))
        return Split(name, *(_map(split_file(self.path, name, part)) for part in parts))

    def counts(self, field: int) -> NDArray[np.int64]:
        """Count of each id of categorical field number `field` in the training rows, int64 (field_dim,)."""
        offset = sum(self.schema.field_dims[:field])
        return self._counts[offset : offset + self.schema.field_dims[field]]

    def list_counts(self, number: int) -> NDArray[np.int64]:
        """Count of each id of its vocabulary among the elements of list number `number` in the training rows, without padding."""
        dims = [self.schema.table_dims[self.schema.table_of(feature)] for feature in self.schema.lists]
        offset = sum(self.schema.field_dims) + sum(dims[:number])
        return self._counts[offset : offset + dims[number]]

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = _map(self.path / COUNTS)
        return counts

    def _check(self, split: str) -> None:
        if split not in self.summary.rows:
            raise UnknownNameError(f"dataset {self.config.name!r} has no split {split!r}; it has {', '.join(self.splits)}")


def split_file(folder: Path, split: str, part: str) -> Path:
    """Path of the array `part` ("ids", "values", "lists", "labels" or "weights") of a split."""
    return folder / f"{split}.{part}.npy"


def _map(path: Path) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} of the dataset is missing or damaged ({error}); encode the raw file again") from None
    return array  # type: ignore[no-any-return]

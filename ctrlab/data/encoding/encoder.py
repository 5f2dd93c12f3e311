"""The encoder of all fields of a dataset: fitted on training rows, applied to any rows, stored without pickle."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ctrlab.data.configs import ColumnConfig
from ctrlab.data.encoding.fields import Field, ListField, Mask, ParsedColumn, TextField, field_state, make_fields, restore_field
from ctrlab.data.encoding.threads import map_in_threads
from ctrlab.data.schema import FeatureSchema, ListFeature, fingerprint_of
from ctrlab.errors import DataError

ENCODER_FILE, VOCABULARY_FILE = "encoder.json", "vocabulary.parquet"
_VERSION = 1
#: A numeric or time column with a larger share of unreadable cells is refused.
MAX_UNREADABLE_SHARE = 0.01


@dataclass(frozen=True)
class EncodedBlock:
    """Encoded rows, a model's input: ids int32 (n, F), values float32 (n, V), lists int32 (n, total length)."""

    ids: NDArray[np.int32]
    values: NDArray[np.float32]
    lists: NDArray[np.int32]


class CellsInMemory:
    """Parsed cells of one field in memory, as `fields.ParsedCells`.

    train: mask of the training rows of each block; by default all rows are training rows.
    """

    def __init__(self, columns: Sequence[ParsedColumn], train: Sequence[Mask] | None = None) -> None:
        self._columns, self._train = columns, train

    def blocks(self) -> Iterator[tuple[NDArray[Any], Mask]]:
        for number, column in enumerate(self._columns):
            yield column.cells, np.ones(len(column.cells), np.bool_) if self._train is None else self._train[number]

    def texts(self) -> Iterator[pl.DataFrame]:
        yield from (column.texts for column in self._columns if column.texts is not None)


class FieldEncoder:
    """Encodes raw columns as ids and values.

    id_fields, value_fields, list_fields: the fields of the F columns of ids, of the V columns of values, and of the lists.

    >>> rows = pl.DataFrame({"site": ["a", "b", "a"], "price": ["1", "3", None]})
    >>> columns = [ColumnConfig(name="site", role="categorical"), ColumnConfig(name="price", role="numeric")]
    >>> block = FieldEncoder.fit([rows], columns).transform(rows)
    >>> block.ids.ravel().tolist(), block.values.ravel().tolist()
    ([2, 3, 2], [-1.0, 1.0, 0.0])
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        names = [field.name for field in self.fields]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"two fields would be called {', '.join(twice)}; rename a column or ignore one")
        self.id_fields = [field for field in self.fields if field.output == "ids"]
        self.value_fields = [field for field in self.fields if field.output == "values"]
        self.list_fields = [field for field in self.fields if isinstance(field, ListField)]
        self._link()

    @classmethod
    def for_columns(cls, columns: Iterable[ColumnConfig], missing_words: tuple[str, ...] = ()) -> Self:
        """An unfitted encoder for the columns whose role makes them features.

        Args:
            missing_words: words of the source that mean "missing", besides the usual ones.
        """
        return cls([field for column in columns for field in make_fields(column, missing_words)])

    @classmethod
    def fit(cls, blocks: Iterable[pl.DataFrame], columns: Iterable[ColumnConfig], missing_words: tuple[str, ...] = ()) -> Self:
        """Fit on blocks of String columns; all rows are training rows."""
        encoder = cls.for_columns(columns, missing_words)
        parsed: list[list[ParsedColumn]] = [[] for _ in encoder.fields]
        for block in blocks:
            for blocks_of_field, field in zip(parsed, encoder.fields, strict=True):
                blocks_of_field.append(field.parse(block[field.column]))
        for blocks_of_field, field in zip(parsed, encoder.fields, strict=True):
            field.unreadable = sum(column.unreadable for column in blocks_of_field)
            field.fit(CellsInMemory(blocks_of_field))
        encoder.check_readable(sum(len(column.cells) for column in parsed[0]))
        return encoder

    def check_readable(self, num_rows: int) -> None:
        """Raise DataError if too many cells of a numeric or timestamp column could not be read."""
        for field in self.fields:
            if field.unreadable > MAX_UNREADABLE_SHARE * num_rows:
                raise DataError(
                    f"column {field.column!r} has {field.unreadable} cells of {num_rows} that cannot be read in its role; "
                    "make it categorical, ignore it, or mend the file"
                )

    def sharers(self, field: Field) -> list[ListField]:
        """The list fields that share this field's vocabulary."""
        return [other for other in self.list_fields if other.shares == field.name]

    def transform(self, block: pl.DataFrame) -> EncodedBlock:
        """Encode rows of String columns with the fitted vocabularies and statistics; an empty text counts as missing, like null.

        Raises:
            DataError: a column is missing.
        """
        needed = list(dict.fromkeys(field.column for field in self.fields))
        if missing := [name for name in needed if name not in block.columns]:
            raise DataError(f"column {', '.join(missing)} is missing; the rows must have the columns the dataset was made from")
        texts = block.select(pl.col(needed).replace("", None))
        return self._assemble(lambda field: field.transform(texts[field.column]), len(block))

    def encode(self, columns: Sequence[ParsedColumn]) -> EncodedBlock:
        """Encode the parsed cells of a block, in the order of the fields; ids are found by key, which is faster for many rows."""
        cells = {id(field): column.cells for field, column in zip(self.fields, columns, strict=True)}
        rows = len(columns[0].cells) if columns else 0
        return self._assemble(lambda field: field.encode(cells[id(field)]), rows, threads=False)

    @cached_property
    def schema(self) -> FeatureSchema:
        """Names and sizes of the fitted fields, with the fingerprint of their vocabularies and statistics."""
        return FeatureSchema(
            field_names=tuple(field.name for field in self.id_fields),
            field_dims=tuple(field.field_dim for field in self.id_fields),
            value_names=tuple(field.name for field in self.value_fields),
            lists=tuple(self._list_feature(field) for field in self.list_fields),
            fingerprint=fingerprint_of([self._states(), self._digests()]),
        )

    def save(self, folder: Path) -> None:
        """Write `encoder.json` and `vocabulary.parquet` into a folder."""
        (folder / ENCODER_FILE).write_text(json.dumps({"version": _VERSION, "fields": self._states()}, indent=1))
        # One row group per field, so that only one vocabulary is converted at a time. Texts are distinct: no dictionary encoding.
        schema = pa.schema([("field", pa.large_string()), ("text", pa.large_list(pa.large_string()))])
        with pq.ParquetWriter(folder / VOCABULARY_FILE, schema, compression="zstd", use_dictionary=False) as file:
            for name, texts in self._vocabularies().items():
                array = texts.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_string())
                row = pa.LargeListArray.from_arrays(pa.array([0, len(array)], pa.int64()), array)
                file.write_table(pa.table([pa.array([name], pa.large_string()), row], schema=schema))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load an encoder that `save` wrote.

        Raises:
            DataError: the files are missing, damaged or of another version.
        """
        try:
            stored = json.loads((folder / ENCODER_FILE).read_text())
            texts = dict(pl.read_parquet(folder / VOCABULARY_FILE).iter_rows())
        except (OSError, ValueError, pl.exceptions.PolarsError):
            raise DataError(f"{folder} holds no field encoder, or a damaged one; encode the raw file again") from None
        if (version := stored.get("version")) != _VERSION:
            raise DataError(f"{folder} has encoder version {version}, this ctrlab reads {_VERSION}; encode the raw file again")
        vocabularies = {state["name"]: pl.Series(texts.get(state["name"], []), dtype=pl.String) for state in stored["fields"]}
        return cls([restore_field(state, vocabularies[state["name"]]) for state in stored["fields"]])

    def _assemble(self, encode: Callable[[Field], NDArray[Any]], num_rows: int, *, threads: bool = True) -> EncodedBlock:
        fields = [*self.id_fields, *self.value_fields, *self.list_fields]
        columns = map_in_threads(encode, fields) if threads else [encode(field) for field in fields]
        ids, lists = len(self.id_fields), len(self.id_fields) + len(self.value_fields)
        return EncodedBlock(
            _stack(columns[:ids], num_rows, np.int32),
            _stack(columns[ids:lists], num_rows, np.float32),
            _stack(columns[lists:], num_rows, np.int32),
        )

    def _link(self) -> None:
        """Connect list fields to the fields whose vocabulary they share."""
        by_name = {field.name: field for field in self.fields}
        for field in self.list_fields:
            if field.shares is not None:
                shared = by_name.get(field.shares)
                if not isinstance(shared, TextField):
                    raise DataError(f"list {field.name!r} shares the ids of {field.shares!r}, which is not a categorical field")
                field.share_with(shared)

    @staticmethod
    def _list_feature(field: ListField) -> ListFeature:
        return ListFeature(
            name=field.name, length=field.max_length, shares=field.shares, dim=0 if field.shares else field.field_dim
        )

    def _digests(self) -> dict[str, str]:
        vocabularies = self._vocabularies()
        return dict(zip(vocabularies, map_in_threads(_digest, vocabularies.values()), strict=True))

    def _states(self) -> list[dict[str, Any]]:
        return [field_state(field) for field in self.fields]

    def _vocabularies(self) -> dict[str, pl.Series]:
        return {
            field.name: field.vocabulary
            for field in self.fields
            if isinstance(field, TextField) or (isinstance(field, ListField) and field.shares is None)
        }


def _digest(texts: pl.Series) -> str:
    """SHA-256 of a vocabulary, independent of library versions."""
    digest = hashlib.sha256()
    for start in range(0, len(texts), 1 << 16):
        digest.update(texts[start : start + (1 << 16)].str.join("\0")[0].encode())
        digest.update(b"\1")
    return digest.hexdigest()


def _stack(columns: list[Any], num_rows: int, dtype: type) -> NDArray[Any]:
    """Columns (n,) and (n, width) concatenated along the second axis."""
    parts = [column[:, None] if column.ndim == 1 else column for column in columns]
    stacked: NDArray[Any] = np.empty((num_rows, sum(part.shape[1] for part in parts)), dtype)
    start = 0
    for part in parts:
        stacked[:, start : start + part.shape[1]] = part
        start += part.shape[1]
    return stacked

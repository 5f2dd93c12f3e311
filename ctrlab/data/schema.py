"""The schema of a dataset, which a model is built for: fields, their sizes, and a fingerprint of the encoding."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np

#: Reserved ids of every categorical field.
OUT_OF_VOCABULARY_ID = 0
MISSING_ID = 1
#: Id of unused positions of a list: the missing id, so that lists and fields can share a table.
PADDING_ID = MISSING_ID

#: `Fields.lists` of a dataset without list fields, for any number of rows.
NO_LISTS = np.empty((0, 0), np.int32)


class Fields(NamedTuple):
    """One batch of features, as arrays or tensors: the input of every model's `forward`.

    ids: int32 (B, F), the id of each categorical field, each within its own field's range.
    values: float32 (B, V), the numeric fields.
    lists: int32 (B, total length), the concatenated list fields: elements, the most recent last, then `PADDING_ID`.
    """

    ids: Any
    values: Any
    lists: Any = NO_LISTS


@dataclass(frozen=True, kw_only=True)
class ListFeature:
    """A list-valued field.

    length: positions per row; shorter lists are padded.
    shares: the categorical field whose ids, and hence embedding table, the elements use; None if the list has its own ids.
    dim: number of its own ids, including reserved ones; 0 if it shares.
    """

    name: str
    length: int
    shares: str | None = None
    dim: int = 0


@dataclass(frozen=True, kw_only=True)
class FeatureSchema:
    """The fields a model is built for.

    field_names, field_dims: the F categorical fields and the number of ids of each, including reserved ids.
    value_names: the V numeric fields that stay numbers.
    lists: the list fields, in the order of `Fields.lists`; dropped for architectures that do not read lists.
    fingerprint: hash of the vocabularies and numeric statistics; models refuse data of another fingerprint.

    >>> schema = FeatureSchema(field_names=("site", "ad"), field_dims=(12, 300), value_names=("price",))
    >>> schema.num_fields, schema.table_names
    (3, ('site', 'ad'))
    """

    field_names: tuple[str, ...]
    field_dims: tuple[int, ...]
    value_names: tuple[str, ...] = ()
    lists: tuple[ListFeature, ...] = ()
    fingerprint: str = ""

    @property
    def num_fields(self) -> int:
        """Number of categorical and numeric fields: the number of embedding vectors per row."""
        return len(self.field_names) + len(self.value_names)

    @property
    def names(self) -> tuple[str, ...]:
        """Every field's name in the order of the embedding's second axis."""
        return self.field_names + self.value_names

    @property
    def table_names(self) -> tuple[str, ...]:
        """Names of the vocabularies: of the categorical fields, then of lists with ids of their own."""
        return self.field_names + tuple(own.name for own in self.lists if own.shares is None)

    @property
    def table_dims(self) -> tuple[int, ...]:
        """The number of ids of each of `table_names`."""
        return self.field_dims + tuple(own.dim for own in self.lists if own.shares is None)

    @property
    def list_width(self) -> int:
        """Width of `Fields.lists`."""
        return sum(feature.length for feature in self.lists)

    def table_of(self, feature: ListFeature) -> int:
        """Index in `table_names` of the vocabulary of a list's elements."""
        return self.table_names.index(feature.shares or feature.name)

    def uses_of(self, table: int) -> int:
        """Look-ups per row in one of `table_names`, if all lists are full."""
        in_lists = sum(feature.length for feature in self.lists if self.table_of(feature) == table)
        return in_lists + (1 if table < len(self.field_names) else 0)

    def without_lists(self) -> Self:
        """The schema without list fields, for an architecture that does not read lists."""
        return replace(self, lists=())

    def places_of(self, feature: ListFeature) -> slice:
        """The columns of `Fields.lists` that hold a list."""
        start = sum(other.length for other in self.lists[: self.lists.index(feature)])
        return slice(start, start + feature.length)

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        return values if self.lists else {name: value for name, value in values.items() if name != "lists"}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(
            field_names=tuple(values["field_names"]),
            field_dims=tuple(values["field_dims"]),
            value_names=tuple(values["value_names"]),
            lists=tuple(ListFeature(**feature) for feature in values.get("lists", ())),
            fingerprint=values["fingerprint"],
        )


def fingerprint_of(parts: Any) -> str:
    """A short, stable hash of a JSON-serialisable value."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

"""What a model must know of a dataset: its fields, their sizes, and a fingerprint that ties the two together."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

#: Reserved ids of every categorical field.
OUT_OF_VOCABULARY_ID = 0
MISSING_ID = 1


class Fields(NamedTuple):
    """One batch of features, as arrays or tensors: what every model's `forward` takes.

    ids: int32 (B, F), the id of each categorical field, each within its own field's range.
    values: float32 (B, V), the numeric fields.
    """

    ids: Any
    values: Any


@dataclass(frozen=True, kw_only=True)
class FeatureSchema:
    """The fields a model is built for.

    field_names, field_dims: the F categorical fields and the number of ids of each, reserved ids included.
    value_names: the V numeric fields that stay numbers.
    fingerprint: hash of the vocabularies and numeric statistics; models refuse data of another fingerprint.
    """

    field_names: tuple[str, ...]
    field_dims: tuple[int, ...]
    value_names: tuple[str, ...] = ()
    fingerprint: str = ""

    @property
    def num_fields(self) -> int:
        """Categorical and numeric fields together: the number of embedding vectors a model sees."""
        return len(self.field_names) + len(self.value_names)

    @property
    def names(self) -> tuple[str, ...]:
        """Every field's name in the order of the embedding's second axis."""
        return self.field_names + self.value_names

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(
            field_names=tuple(values["field_names"]),
            field_dims=tuple(values["field_dims"]),
            value_names=tuple(values["value_names"]),
            fingerprint=values["fingerprint"],
        )


def fingerprint_of(parts: Any) -> str:
    """A short, stable hash of anything JSON can write."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

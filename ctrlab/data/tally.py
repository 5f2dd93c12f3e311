"""What the summary of a dataset counts while its blocks pass by."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ctrlab.data.dataset import FieldSummary
from ctrlab.data.encoder import EncodedBlock, FieldEncoder, ProvisionalBlock
from ctrlab.data.fields import NUM_RESERVED_IDS, ListField
from ctrlab.data.schema import MISSING_ID, OUT_OF_VOCABULARY_ID, PADDING_ID, FeatureSchema

#: The most frequent ids whose share of the traffic is reported.
HEAD_SHARE = 0.01


class Tally:
    """Training counts of every id, and shares of missing and unknown cells."""

    def __init__(self, encoder: FieldEncoder) -> None:
        self._encoder = encoder
        self._counts = [np.zeros(field.field_dim, np.int64) for field in encoder.id_fields]
        self._lists = [_ListTally(field) for field in encoder.list_fields]
        self._train_rows = self._other_rows = 0
        self._unknown = np.zeros(len(encoder.id_fields), np.int64)
        self._nan = np.zeros(len(encoder.number_fields), np.int64)

    def add(self, encoded: EncodedBlock, block: ProvisionalBlock, *, is_train: bool) -> None:
        """Count one block, in its final and its provisional form."""
        for tally in self._lists:
            tally.add(encoded.lists[:, tally.places(self._encoder.schema)], is_train=is_train)
        if not is_train:
            self._other_rows += len(encoded.ids)
            self._unknown += (encoded.ids == OUT_OF_VOCABULARY_ID).sum(axis=0)
            return
        self._train_rows += len(encoded.ids)
        self._nan += np.isnan(block.numbers).sum(axis=0)
        for counts, ids in zip(self._counts, encoded.ids.T, strict=True):
            np.add.at(counts, ids, 1)

    @property
    def all_counts(self) -> NDArray[np.int64]:
        """Training counts of all ids, field after field, then list after list."""
        return np.concatenate([np.empty(0, np.int64), *self._counts, *(tally.counts for tally in self._lists)])

    def field_summaries(self) -> tuple[FieldSummary, ...]:
        """One summary a field, in the order of the columns."""
        by_name = {
            field.name: _id_summary(field.name, field.column, counts, unknown / max(1, self._other_rows), field.unreadable)
            for field, counts, unknown in zip(self._encoder.id_fields, self._counts, self._unknown.tolist(), strict=True)
        }
        for field, nan in zip(self._encoder.number_fields, self._nan.tolist(), strict=True):
            if field.gives == "values":
                missing = nan / max(1, self._train_rows)
                by_name[field.name] = FieldSummary(field.name, field.column, "numeric", 0, missing, 0.0, 0.0, field.unreadable)
        by_name |= {tally.field.name: tally.summary() for tally in self._lists}
        return tuple(by_name[field.name] for field in self._encoder.fields)


class _ListTally:
    """What is counted of one list: its elements, padding left out, and the rows without any."""

    def __init__(self, field: ListField) -> None:
        self.field = field
        self.counts = np.zeros(field.field_dim, np.int64)
        self._train_rows = self._empty = self._unknown = self._others = 0

    def places(self, schema: FeatureSchema) -> slice:
        return schema.places_of(next(feature for feature in schema.lists if feature.name == self.field.name))

    def add(self, ids: NDArray[np.int32], *, is_train: bool) -> None:
        elements = ids[ids != PADDING_ID]
        if not is_train:
            self._others += len(elements)
            self._unknown += int((elements == OUT_OF_VOCABULARY_ID).sum())
            return
        self._train_rows += len(ids)
        self._empty += int((ids[:, 0] == PADDING_ID).sum())
        np.add.at(self.counts, elements, 1)

    def summary(self) -> FieldSummary:
        unknown, empty = self._unknown / max(1, self._others), self._empty / max(1, self._train_rows)
        return replace(_id_summary(self.field.name, self.field.column, self.counts, unknown, 0), kind="list", missing_share=empty)


def _id_summary(name: str, column: str, counts: NDArray[np.int64], unknown_share: float, unreadable: int) -> FieldSummary:
    rows = max(1, int(counts.sum()))
    # Buckets that no training row fell into are not in use.
    used = np.sort(counts[NUM_RESERVED_IDS:])[::-1]
    used = used[used > 0]
    head = int(used[: max(1, round(HEAD_SHARE * len(used)))].sum())
    return FieldSummary(
        name, column, "categorical", len(used), int(counts[MISSING_ID]) / rows, unknown_share, head / rows, unreadable
    )  # fmt: skip

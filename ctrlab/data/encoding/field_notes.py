"""Notes on the fields of an encoded dataset: values that training never saw, ids that were lost, cells that could not be read."""

from collections.abc import Iterable, Sequence

import polars as pl

from ctrlab.data.dataset import FieldSummary
from ctrlab.data.encoding.fields import Field, ListField, TextField
from ctrlab.data.tables.notes import Note

#: Share of a split's rows out of vocabulary from which on it is noted, if it is also well above that of a random split.
OOV_SHARE = 0.2
_TIMES_EXPECTED, _MORE_THAN_EXPECTED = 1.5, 0.05
#: Share of a vocabulary's texts that are whole numbers above 2^53 written as floats, from which on it is noted.
_FLOAT_SHARE = 0.5
_HEAD_TEXTS = 1000
_INEXACT = 2.0**53


def field_notes(fields: Sequence[Field], summaries: Iterable[FieldSummary]) -> tuple[Note, ...]:
    """The notes of all fields, in their order."""
    by_name = {field.name: field for field in fields}
    found = (note for one in summaries for note in (*_unseen(one), *_unreadable(one), *_float_ids(by_name[one.name])))
    return tuple(found)


def _unseen(field: FieldSummary) -> tuple[Note, ...]:
    least = max(OOV_SHARE, _TIMES_EXPECTED * field.oov_expected + _MORE_THAN_EXPECTED)
    high = {split: share for split, share in field.oov_by_split.items() if share > least}
    if not high:
        return ()
    shares = ", ".join(f"{share:.0%} of the {split} rows" for split, share in high.items())
    what = "elements" if field.kind == "list" else "values"
    expected = f"rows like the training rows would have {field.oov_expected:.0%}"
    text = f"{field.name}: {what} in {shares} are out of vocabulary, where {expected}"
    remedy = (
        f"compare how {field.column} is written in the rows of each split; if new values are to be expected, nothing is wrong"
    )
    return (Note("out_of_vocabulary", field.column, text, "warning", remedy),)


def _unreadable(field: FieldSummary) -> tuple[Note, ...]:
    if not field.unreadable:
        return ()
    text = f"{field.name}: {field.unreadable:,} cells could not be read in the role of {field.column} and count as missing"
    remedy = f"if a word in them means missing, add it to missing_words; else correct the notation or role of {field.column}"
    return (Note("unreadable", field.column, text, "warning", remedy),)


def _float_ids(field: Field) -> tuple[Note, ...]:
    if not isinstance(field, TextField | ListField):
        return ()
    texts = field.vocabulary.head(_HEAD_TEXTS)
    floats = texts.filter(texts.str.contains(r"^[+-]?\d(\.\d+)?[eE]\+?\d+$"))
    lost = floats.filter((floats.cast(pl.Float64, strict=False).abs() >= _INEXACT).fill_null(False))
    if not len(lost) or len(lost) < _FLOAT_SHARE * len(texts):
        return ()
    text = f"{field.name} holds whole numbers above 2^53 as floats ({lost[0]}): different ids have become one"
    return (Note("float_ids", field.column, text, "warning", f"save {field.column} as int64 or text"),)

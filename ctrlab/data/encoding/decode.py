"""Ids of an encoded dataset as the texts that they were made from."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from ctrlab.data.encoding.encoder import VOCABULARY_FILE
from ctrlab.data.schema import MISSING_ID, OUT_OF_VOCABULARY_ID

_RESERVED = {OUT_OF_VOCABULARY_ID: "not in training", MISSING_ID: "missing"}


def texts_of_ids(dataset: Path, wanted: Mapping[str, Sequence[int]]) -> dict[tuple[str, int], str]:
    """{(field, id): text} of some ids of some fields; ids of fields of buckets are numbered from 1.

    Only the texts asked for are read: a vocabulary may have millions.
    """
    found: dict[tuple[str, int], str] = {}
    stored = pl.scan_parquet(dataset / VOCABULARY_FILE)
    for field, ids in wanted.items():
        places = [value - len(_RESERVED) for value in ids if value >= len(_RESERVED)]
        row = stored.filter(pl.col("field") == field).select(pl.col("text").list.gather(places, null_on_oob=True)).collect()
        texts = row["text"][0].to_list() if len(row) else [None] * len(places)
        named = dict(zip(places, texts, strict=True))
        for value in ids:
            place = value - len(_RESERVED)
            found[field, value] = _RESERVED.get(value) or named.get(place) or f"bucket {place + 1}"
    return found

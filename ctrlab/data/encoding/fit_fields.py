"""Second step of an encoding: each field is fitted to its parsed cells and encodes them, one field at a time per thread."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.encoding.column_cache import CachedCells, ColumnCache, encoded_dtype, write_atomic
from ctrlab.data.encoding.encoder import FieldEncoder
from ctrlab.data.encoding.field_stats import FieldStats
from ctrlab.data.encoding.fields import Field, ListField, TextField, field_state, restore_field
from ctrlab.data.encoding.threads import map_in_threads
from ctrlab.errors import JobCancelled

Report = Callable[[float], None]


def fit_fields(encoder: FieldEncoder, cache: ColumnCache, on_share: Report) -> tuple[FieldEncoder, dict[str, FieldStats]]:
    """Fit all fields and write their encoded cells to the cache; fields that an interrupted run has fitted are loaded.

    Args:
        on_share: called several times a second with the share that is done; may raise to stop.

    Returns:
        the fitted encoder, and the statistics of each field by name.
    """
    numbers = {field.name: number for number, field in enumerate(encoder.fields)}
    owners = [field for field in encoder.fields if not (isinstance(field, ListField) and field.shares)]
    stopped = False

    def on_block() -> None:
        if stopped:
            raise JobCancelled("encoding was cancelled")

    def fit(field: Field) -> None:
        group = [field, *encoder.sharers(field)]
        if not all(_is_fitted(cache, numbers[one.name]) for one in group):
            _fit_group(cache, [(numbers[one.name], one) for one in group], on_block)

    try:
        map_in_threads(fit, owners, lambda done: on_share(done / len(owners)))
    finally:
        stopped = True
    fitted = [_load(cache, number) for number in range(len(encoder.fields))]
    for field, (restored, _) in zip(encoder.fields, fitted, strict=True):
        field.unreadable = restored.unreadable
    return FieldEncoder([field for field, _ in fitted]), {field.name: stats for field, stats in fitted}


def _fit_group(cache: ColumnCache, group: list[tuple[int, Field]], on_block: Callable[[], None]) -> None:
    """Fit a field, then encode it and the lists that share its vocabulary while its hash table is in memory."""
    for number, field in group:
        parsed = CachedCells(cache, number, field, on_block)
        field.fit(parsed)
        stats = FieldStats(field)
        cache.remove(f"{number}.encoded")
        for cells, splits in parsed.split_blocks():
            encoded = field.encode(cells)
            stats.add(encoded, cells, splits)
            cache.append(f"{number}.encoded", encoded.astype(encoded_dtype(field), copy=False))
        _save(cache, number, field, stats)
    for number, field in group:
        if isinstance(field, TextField | ListField):
            field.release()  # loaded from its file again when all fields are fitted
        cache.remove(f"{number}.cells")
        cache.remove(f"{number}.*.texts")


def _is_fitted(cache: ColumnCache, number: int) -> bool:
    return (cache.folder / f"{number}.json").exists()


def _save(cache: ColumnCache, number: int, field: Field, stats: FieldStats) -> None:
    np.save(cache.folder / f"{number}.counts.npy", stats.counts)
    if isinstance(field, TextField | ListField):
        field.vocabulary.alias("text").to_frame().write_ipc(cache.folder / f"{number}.vocabulary")
    entry = {"field": field_state(field), "stats": stats.state(), "unreadable": field.unreadable}
    write_atomic(cache.folder / f"{number}.json", json.dumps(entry))


def _load(cache: ColumnCache, number: int) -> tuple[Field, FieldStats]:
    entry: dict[str, Any] = json.loads((cache.folder / f"{number}.json").read_text())
    path = cache.folder / f"{number}.vocabulary"
    vocabulary = pl.read_ipc(path)["text"] if path.exists() else pl.Series(dtype=pl.String)
    field = restore_field(entry["field"], vocabulary)
    field.unreadable = entry["unreadable"]
    counts: NDArray[np.int64] = np.load(cache.folder / f"{number}.counts.npy")
    return field, FieldStats.restore(field, counts, entry["stats"])

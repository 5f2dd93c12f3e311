"""Second step of an encoding: each field is fitted to its kept cells and turns them into ids or values, a field at a time."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.encoding.column_cache import Spool, SpooledCells, result_dtype, write_whole
from ctrlab.data.encoding.encoder import FieldEncoder
from ctrlab.data.encoding.field_stats import FieldTally
from ctrlab.data.encoding.fields import Field, ListField, TextField, field_state, restore_field
from ctrlab.data.encoding.threads import in_threads
from ctrlab.errors import JobCancelled

Report = Callable[[float], None]


def settle_fields(encoder: FieldEncoder, spool: Spool, on_share: Report) -> tuple[FieldEncoder, dict[str, FieldTally]]:
    """Fit all fields and write what each makes of its cells; fields of an earlier, broken run are taken as they are.

    Args:
        on_share: called several times a second with the share that is done; may raise to stop.

    Returns:
        the fitted encoder, and a tally of each field by its name.
    """
    numbers = {field.name: number for number, field in enumerate(encoder.fields)}
    alone = [field for field in encoder.fields if not (isinstance(field, ListField) and field.shares)]
    stopped = False

    def on_block() -> None:
        if stopped:
            raise JobCancelled("encoding was cancelled")

    def settle(field: Field) -> None:
        group = [field, *encoder.sharers(field)]
        if not all(_is_settled(spool, numbers[one.name]) for one in group):
            _settle_group(spool, [(numbers[one.name], one) for one in group], on_block)

    try:
        in_threads(settle, alone, lambda done: on_share(done / len(alone)))
    finally:
        stopped = True
    fitted = [_load(spool, number, field) for number, field in enumerate(encoder.fields)]
    for field, (_, _, unreadable) in zip(encoder.fields, fitted, strict=True):
        field.unreadable = unreadable
    return FieldEncoder([field for field, _, _ in fitted]), {field.name: tally for field, tally, _ in fitted}


def _settle_group(spool: Spool, group: list[tuple[int, Field]], on_block: Callable[[], None]) -> None:
    """A field, and the lists that share its vocabulary, which are encoded while its table of keys is in memory."""
    for number, field in group:
        cells = SpooledCells(spool, number, field, on_block)
        field.fit(cells)
        tally = FieldTally(field)
        spool.remove(f"{number}.ids")
        for kept, train in cells.blocks():
            result = field.encode(kept)
            tally.add(result, kept, train)
            spool.append(f"{number}.ids", result.astype(result_dtype(field), copy=False))
        _save(spool, number, field, tally)
    for number, field in group:
        if isinstance(field, TextField | ListField):
            field.forget()  # it comes back from its file when all are settled
        spool.remove(f"{number}.kept")
        spool.remove(f"{number}.*.texts")


def _is_settled(spool: Spool, number: int) -> bool:
    return (spool.folder / f"{number}.json").exists()


def _save(spool: Spool, number: int, field: Field, tally: FieldTally) -> None:
    np.save(spool.folder / f"{number}.counts.npy", tally.counts)
    if isinstance(field, TextField | ListField):
        field.vocabulary.alias("text").to_frame().write_ipc(spool.folder / f"{number}.vocabulary")
    entry = {"field": field_state(field), "tally": tally.state(), "unreadable": field.unreadable}
    write_whole(spool.folder / f"{number}.json", json.dumps(entry))


def _load(spool: Spool, number: int, field: Field) -> tuple[Field, FieldTally, int]:
    entry: dict[str, Any] = json.loads((spool.folder / f"{number}.json").read_text())
    path = spool.folder / f"{number}.vocabulary"
    vocabulary = pl.read_ipc(path)["text"] if path.exists() else pl.Series(dtype=pl.String)
    fitted = restore_field(entry["field"], vocabulary)
    fitted.unreadable = entry["unreadable"]
    counts: NDArray[np.int64] = np.load(spool.folder / f"{number}.counts.npy")
    return fitted, FieldTally.restore(fitted, counts, entry["tally"]), entry["unreadable"]

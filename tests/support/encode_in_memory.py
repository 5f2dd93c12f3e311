"""Encoding small tables in memory, block by block, as `encode_dataset` does on disk."""

import numpy as np
import polars as pl

from ctrlab.data.encoding.encoder import CellsInMemory, FieldEncoder


def encode_in_blocks(columns, frame: pl.DataFrame, train: list[bool], block_rows: int):
    """The fitted encoder, and the encoded rows of each field, by name."""
    encoder = FieldEncoder.for_columns(columns)
    starts, mask = range(0, len(frame), block_rows), np.array(train, bool)
    masks = [mask[start : start + block_rows] for start in starts]
    cells = {
        field.name: [field.parse(frame[start : start + block_rows][field.column]) for start in starts] for field in encoder.fields
    }
    for field in encoder.fields:
        field.fit(CellsInMemory(cells[field.name], masks))
    results = {
        field.name: np.concatenate([field.encode(column.cells) for column in cells[field.name]]) for field in encoder.fields
    }
    return encoder, results

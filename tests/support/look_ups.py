"""Batches of ids for the tests of look-ups."""

import numpy as np
from hypothesis import strategies as st

#: Rows, fields, width of a vector, seed.
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 5), st.integers(1, 19), st.integers(0, 2**31))


def batch(num_rows, fields, seed):
    rng = np.random.default_rng(seed)
    dims = rng.integers(1, 12, fields)
    offsets = np.concatenate([[0], np.cumsum(dims)[:-1]]).astype(np.int64)
    ids = np.stack([rng.integers(0, dim, num_rows) for dim in dims], axis=1)
    return ids, offsets, int(dims.sum()), rng

"""Where vectors were looked up: for those who can do better than to read them as B M vectors and to send back as many gradients.

Vectors carry it as a mark on the tensor, which whatever is made of them lacks: what reads them elsewhere, by hooks or by other
layers, sees plain vectors. But of those who do read the mark autograd knows nothing at the vectors themselves: their gradient
lacks that part. Hence marks are made only where somebody says that nobody will ask (`remembering_look_ups`).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ctrlab.kernels import rows
from ctrlab.kernels.groups import grouped
from ctrlab.kernels.rows import ByField, RowGroups


@dataclass
class OfVectors:
    """What those who read the vectors of a look-up leave there for each other.

    total: (B, d), the sum of a row's vectors. weight: the table that it is a sum of. by_field: one entry, once somebody asked.
    """

    total: Tensor | None = None
    weight: Tensor | None = None
    by_field: list[ByField | None] | None = None


class LookUp(NamedTuple):
    """A look-up of B rows in F fields of a table of width d, and V numeric fields beside it; M = F + V.

    of_pairs: (B, d), by which autograd knows a sum over the pairs of a row's vectors: that sum's gradient is to flow back to it.
    of_rows: (U, d), by which it knows the distinct table rows; both None where the table has no gradient.
    ids: (B, F). offsets: (F,). weight: (num_rows, d), detached. values (B, V), numeric (V, d): or None.
    """

    of_pairs: Tensor | None
    of_rows: Tensor | None
    of_vectors: OfVectors
    ids: Tensor
    offsets: Tensor
    weight: Tensor
    values: Tensor | None
    numeric: Tensor | None

    @property
    def groups(self) -> RowGroups:
        """Of the batch."""
        return grouped(self.ids, self.offsets, len(self.weight)).result()

    @property
    def by_field(self) -> ByField | None:
        """The groups by field, None where a table row is not of one field alone."""
        if self.of_vectors.by_field is None:
            self.of_vectors.by_field = [rows.by_field(self.groups, self.offsets.numpy())]
        return self.of_vectors.by_field[0]

    def distinct_vectors(self) -> Tensor:
        """(U, d), in the order of `groups.rows`."""
        table_rows = self.groups.rows
        found = self.weight.new_empty(len(table_rows), 1, self.weight.shape[1])
        rows.gather(table_rows[:, None], np.zeros(1, np.int64), self.weight.numpy(), found.numpy())
        return found[:, 0]


class _Remembering(threading.local):
    on = False


_remembering = _Remembering()


@contextmanager
def remembering_look_ups() -> Iterator[None]:
    """Within it, in this thread, looked-up vectors are marked.

    Not for forward passes that are recorded, for an exported graph must hold torch's own operations, nor where gradients of the
    vectors themselves are asked for.
    """
    before, _remembering.on = _remembering.on, True
    try:
        yield
    finally:
        _remembering.on = before


def remembers_look_ups() -> bool:
    """Whether this is within `remembering_look_ups`."""
    return _remembering.on and not torch.compiler.is_compiling()


def mark(vectors: Tensor, look_up: LookUp) -> None:
    """Remember where the vectors are from, as long as nobody changes them."""
    vectors.ctrlab_look_up = (look_up, vectors._version)  # type: ignore[attr-defined]


def look_up_of(vectors: Tensor) -> LookUp | None:
    """Of vectors just as they were looked up, (B, M, d), or laid `end_to_end`, (B, M d); None of all that was made of them."""
    look_up, version = getattr(vectors, "ctrlab_look_up", (None, 0))
    return look_up if look_up is not None and vectors._version == version else None


def end_to_end(vectors: Tensor) -> Tensor:
    """(B, M, d) -> (B, M d)."""
    flat, look_up = vectors.flatten(1), look_up_of(vectors)
    if look_up is not None:
        mark(flat, look_up)
    return flat

"""Which rows of which table a batch reads, and where: grouped once for all tables that are read by the same ids."""

import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ctrlab.kernels.rows import RowGroups, group_rows


class Grouping(Protocol):
    """Groups the ids of batches by table row."""

    def of(self, ids: Tensor, offsets: Tensor, num_rows: int) -> RowGroups:
        """`group_rows` of a batch's ids (B, F), in a table of `num_rows` rows where field f begins at offsets[f]."""
        ...


def whole_numbers(ids: Tensor) -> np.ndarray[Any, Any]:
    """As the compiled loops take them: contiguous, of 32 or 64 bits."""
    return (ids if ids.dtype in (torch.int32, torch.int64) else ids.long()).contiguous().numpy()


class GroupingOnDemand(threading.local):
    """Each grouping is computed by the thread that needs it: for predictions, whose batches run in parallel."""

    def __init__(self) -> None:
        self._marker: np.ndarray[Any, np.dtype[np.int32]] = np.empty(0, np.int32)

    def of(self, ids: Tensor, offsets: Tensor, num_rows: int) -> RowGroups:
        """See `Grouping`."""
        if len(self._marker) < num_rows:
            self._marker = np.zeros(num_rows, np.int32)
        return group_rows(whole_numbers(ids), offsets.numpy(), self._marker[:num_rows])


class _Known(NamedTuple):
    """A grouping, while the tensor of its ids is alive."""

    ids: "weakref.ref[Tensor]"
    offsets: Tensor
    of_fields: tuple[int, ...]
    num_rows: int
    groups: "Future[RowGroups]"


class GroupingAhead:
    """Groupings by a background thread, shared by all tables that read one ids tensor; the next batch's while this one trains.

    For one training thread. `close` ends the background thread.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ctrlab-grouping")
        self._known: list[_Known] = []
        self._marker: np.ndarray[Any, np.dtype[np.int32]] = np.empty(0, np.int32)

    def of(self, ids: Tensor, offsets: Tensor, num_rows: int) -> RowGroups:
        """See `Grouping`."""
        return self._begin(ids, offsets, num_rows).result()

    def prefetch(self, ids: Tensor, like: Tensor) -> None:
        """Begin to group `ids` in all ways in which `like` was grouped."""
        for each in self._of(like):
            self._begin(ids, each.offsets, each.num_rows)

    def close(self) -> None:
        """End the background thread."""
        self._pool.shutdown()
        self._known = []

    def _of(self, ids: Tensor) -> list[_Known]:
        """Groupings of the very tensor `ids`; forgets those of tensors that are gone."""
        self._known = [each for each in self._known if each.ids() is not None]
        return [each for each in self._known if each.ids() is ids]

    def _begin(self, ids: Tensor, offsets: Tensor, num_rows: int) -> "Future[RowGroups]":
        of_fields = tuple(offsets.tolist())
        for each in self._of(ids):
            if (each.of_fields, each.num_rows) == (of_fields, num_rows):
                return each.groups
        if len(self._marker) < num_rows:
            self._marker = np.zeros(num_rows, np.int32)
        # One thread computes all groupings one after the other, so they can share the marker.
        groups = self._pool.submit(group_rows, whole_numbers(ids), offsets.numpy(), self._marker[:num_rows])
        self._known.append(_Known(weakref.ref(ids), offsets, of_fields, num_rows, groups))
        return groups

"""Which rows of which table a batch reads and where: grouped once for all that read the same ids, beside other work."""

import os
import threading
import weakref
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ctrlab.kernels import rows
from ctrlab.kernels.rows import RowGroups
from ctrlab.kernels.threads import in_background


def whole_numbers(ids: Tensor) -> np.ndarray[Any, Any]:
    """As the compiled loops take them: one after the other in memory, of 32 or 64 bits."""
    return (ids if ids.dtype in (torch.int32, torch.int64) else ids.long()).contiguous().numpy()


class _Known(NamedTuple):
    """A grouping that was asked for, while its ids are in use."""

    ids: "weakref.ref[Tensor]"
    offsets: Tensor
    of_fields: tuple[int, ...]
    num_rows: int
    groups: "Future[RowGroups]"


class _Groups(threading.local):
    """What was grouped of ids in use: the tables of one model that are read by the same ids share the work."""

    def __init__(self) -> None:
        self.known: list[_Known] = []
        self.marker: np.ndarray[Any, np.dtype[np.int32]] = np.empty(0, np.int32)

    def of(self, ids: Tensor) -> list[_Known]:
        """Those of the very tensor `ids`; forgets those of tensors that are gone."""
        self.known = [each for each in self.known if each.ids() is not None]
        return [each for each in self.known if each.ids() is ids]


_groups = _Groups()


def _forget() -> None:
    _groups.known = []


# What another process groups never arrives.
os.register_at_fork(after_in_child=_forget)


def grouped(ids: Tensor, offsets: Tensor, num_rows: int) -> "Future[RowGroups]":
    """`rows.group_rows` of a batch's ids (B, F), beside what the caller does next; remembered while the tensor `ids` lives."""
    of_fields = tuple(offsets.tolist())
    for each in _groups.of(ids):
        if (each.of_fields, each.num_rows) == (of_fields, num_rows):
            return each.groups
    if len(_groups.marker) < num_rows:
        _groups.marker = np.zeros(num_rows, np.int32)
    # All groupings are made by one thread, one after the other: they can share the marker.
    groups = in_background(rows.group_rows, whole_numbers(ids), offsets.numpy(), _groups.marker[:num_rows])
    _groups.known.append(_Known(weakref.ref(ids), offsets, of_fields, num_rows, groups))
    return groups


def group_ahead(ids: Tensor, like: Tensor) -> None:
    """Begin to group `ids` in all ways in which `like` was, so that they are ready when they are looked up."""
    for each in _groups.of(like):
        grouped(ids, each.offsets, each.num_rows)

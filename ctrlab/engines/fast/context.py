"""What the layers of a twin share: threads, matrix products, row groups."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ctrlab.engines.fast.grouping import Grouping
from ctrlab.engines.products import Products
from ctrlab.kernels.parts import Parts

ComputeDtype = Literal["float32", "bfloat16"]

#: Called with the distinct table rows (U,) int64 of a batch before they are read.
BeforeReading = Callable[[np.ndarray[Any, np.dtype[np.int64]]], None]


@dataclass(frozen=True)
class Limits:
    """From what sizes on fused operations take less time than plain ones, and how they split their work.

    most_distinct: the largest share of distinct vectors in a batch with which a linear layer multiplies each of them once. By the
        times of its parts it stops to pay at 0.4 to 0.8, depending on the width of the vectors.
    least_width, least_macs: of vectors, and of the multiplications of a batch, for the same.
    pair_width, neuron_width: numbers of a row that FiBiNET's pairs and AFN's neurons are computed at a time: enough for a matrix
        product, few enough for a cache.
    """

    most_distinct: float = 0.3
    least_width: int = 8
    least_macs: int = 1 << 26
    pair_width: int = 512
    neuron_width: int = 1024


@dataclass(eq=False)
class FastContext:
    """Owned by an engine, read by the fast layers of its twin.

    parts: splits compiled loops. products: takes matrix products. grouping: groups the ids of batches.
    sparse: whether gradients of tables are sparse ones of the batch's rows, coalesced and sorted, or dense.
    limits: of fused operations.
    before_reading: {id of a table's weight: what an optimizer does with the rows of a batch before training reads them}.
    """

    parts: Parts
    products: Products
    grouping: Grouping
    compute_dtype: ComputeDtype = "float32"
    sparse: bool = False
    limits: Limits = field(default_factory=Limits)
    before_reading: dict[int, BeforeReading] = field(default_factory=dict)


def compiled_for(tensor: Tensor) -> bool:
    """Whether the compiled loops take this tensor: contiguous float32 numbers in the CPU's memory."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.is_contiguous()


def is_hooked(module: nn.Module) -> bool:
    """Whether a hook watches this very module."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)

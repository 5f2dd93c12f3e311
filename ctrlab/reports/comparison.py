"""The measurements that a comparison table has, and the models on its Pareto front."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

#: Batch sizes at which models are timed.
LATENCY_BATCH_SIZES = (1, 256, 4096)
#: The batch size at which speeds are compared in words.
SPEED_BATCH = LATENCY_BATCH_SIZES[-1]
#: What models are timed in.
RUNTIMES = ("torch", "onnx")
#: Columns of the ratios of throughput in PyTorch to the original's; with `_low`, `_high` and `_reason` before the batch size.
SPEED_RATIO = "torch_speedup"


def pareto_mask(table: pd.DataFrame, cost: str = "parameters", benefit: str = "auc") -> NDArray[np.bool_]:
    """(rows,) bool: True where no other row is at least as good in both columns and better in one; False where NaN.

    >>> pareto_mask(pd.DataFrame({"parameters": [10, 20, 30], "auc": [0.75, 0.76, 0.755]})).tolist()
    [True, True, False]
    """
    costs, benefits = table[cost].to_numpy(float), table[benefit].to_numpy(float)
    no_worse = (costs[None] <= costs[:, None]) & (benefits[None] >= benefits[:, None])
    better = (costs[None] < costs[:, None]) | (benefits[None] > benefits[:, None])
    dominated: NDArray[np.bool_] = (no_worse & better).any(axis=1)
    on_front: NDArray[np.bool_] = ~dominated & ~np.isnan(costs) & ~np.isnan(benefits)
    return on_front

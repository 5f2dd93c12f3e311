"""Projection of a table's rows onto k directions: z = U_k^T (e - mu)."""

import numpy as np
import torch
from torch import Tensor

from ctrlab.decomposition.covariance import NARROW
from ctrlab.kernels.moments import project

_CHUNK_ROWS = 65_536


def project_rows_(target: Tensor, table: Tensor, basis: Tensor, mean: Tensor) -> None:
    """target (n, k) <- (table (n, d) - mean (d,)) basis (d, k), summed in float64, over all ids, seen in training or not."""
    in_place = target.dtype == torch.float32 and target.is_contiguous() and target.device.type == "cpu"
    if in_place and table.shape[1] <= NARROW:
        rows = (table if table.dtype in (torch.float32, torch.float64) else table.float()).detach().contiguous()
        directions = np.ascontiguousarray(basis.detach().double().numpy())
        centre = np.ascontiguousarray(mean.detach().double().numpy())
        project(rows.numpy(), centre, directions, target.detach().numpy())
        return
    for start in range(0, len(table), _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        target[part].copy_((table[part].double() - mean) @ basis)

"""Inner products of all pairs of vectors, one number a pair."""

import torch
from torch import Tensor, nn


class InnerProducts(nn.Module):
    """<e_i, e_j> for all pairs i < j, in the order (1, 2), (1, 3), ..., (M-1, M)."""

    left: Tensor
    right: Tensor

    def __init__(self, num_vectors: int) -> None:
        super().__init__()
        left, right = torch.triu_indices(num_vectors, num_vectors, offset=1)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)

    @property
    def num_pairs(self) -> int:
        """M (M - 1) / 2."""
        return len(self.left)

    def forward(self, e: Tensor) -> Tensor:
        """(B, M, d) -> (B, pairs)."""
        return torch.bmm(e, e.transpose(1, 2))[:, self.left, self.right]

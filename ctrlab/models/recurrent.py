"""A GRU whose two maps are layers of their own, so that spectra see them and compression can replace them."""

import torch
from torch import Tensor, nn


def gru_step(x: Tensor, h: Tensor, state: Tensor) -> Tensor:
    """(B, 3 H) mapped input, (B, 3 H) mapped state, in the order r, z, n; (B, H) state -> (B, H) the next state.

    h_t = (1 - z) n + z h_{t-1} with z, r = sigmoid(x + h) and n = tanh(x + r h).
    """
    r_x, z_x, n_x = x.chunk(3, dim=1)
    r_h, z_h, n_h = h.chunk(3, dim=1)
    candidate = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
    return torch.lerp(candidate, state, torch.sigmoid(z_x + z_h))


class GRU(nn.Module):
    """States of a gated recurrent unit (Cho et al., 2014) from a state of zeros: the function of `nn.GRU`.

    The input's map runs once for all times, the state's once a time.
    Parameters: 3 H (d + H + 2).
    """

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim
        self.input = nn.Linear(input_dim, 3 * hidden_dim)
        self.hidden = nn.Linear(hidden_dim, 3 * hidden_dim)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden_dim**-0.5), hidden_dim**-0.5)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, T, d) -> (B, T, H)."""
        state = vectors.new_zeros(vectors.shape[0], self.hidden_dim)
        states = []
        for x in self.input(vectors).unbind(1):
            state = gru_step(x, self.hidden(state), state)
            states.append(state)
        return torch.stack(states, dim=1)

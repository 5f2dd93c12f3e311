"""Unfused forms of torch's attention and recurrent layers: the same function, with an nn.Linear for every matrix.

torch runs `nn.MultiheadAttention`, `nn.RNN`, `nn.GRU` and `nn.LSTM` as one fused operation on raw matrices. Hooks and compression
need layers, so unfused forms replace them during calibration, and permanently where one of their maps is compressed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ctrlab.models.recurrent import gru_step

_RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)


def fused_reason(module: nn.Module, tied: str | None) -> str | None:
    """Why an attention or recurrent layer must stay fused; None where it can be unfused, or is neither.

    tied: why its weights may not be replaced.
    """
    if isinstance(module, nn.RNNCellBase):
        return "a recurrent cell; it is one fused operation on raw matrices"
    if not isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
        return None
    forwards = {base.forward for base in (nn.MultiheadAttention, *_RECURRENT)}
    if type(module).forward not in forwards:
        return f"a subclass with a forward pass of its own ({type(module).__name__})"
    if hasattr(module, "parametrizations"):
        return "its weights are parametrized"
    if getattr(module, "proj_size", 0):
        return "an LSTM that projects its state (proj_size)"
    return tied


def unfused_form(module: nn.Module) -> nn.Module:
    """The unfused form of an attention or recurrent layer, whose layers share the memory of the module's weights."""
    if isinstance(module, nn.MultiheadAttention):
        return UnfusedAttention(module)
    return UnfusedRecurrent(cast(nn.RNNBase, module))


@contextmanager
def unfused(module: nn.Module, forms: Mapping[str, nn.Module]) -> Iterator[nn.Module]:
    """`module` with unfused forms in place inside the block; the fused layers are restored after it.

    forms: {qualified name: unfused form}; the name is "" if `module` itself is the layer.

    A `TransformerEncoder` does not make nested tensors meanwhile, which only fused attention takes.
    """
    fused = {name: module.get_submodule(name) for name in forms if name}
    nested: list[Any] = [part for part in module.modules() if makes_nested_tensors(part)] if forms else []
    try:
        for encoder in nested:
            encoder.use_nested_tensor = False
        for name, form in forms.items():
            if name:
                module.set_submodule(name, form)
        yield forms.get("", module)
    finally:
        for encoder in nested:
            encoder.use_nested_tensor = True
        for name, old in fused.items():
            module.set_submodule(name, old)


def makes_nested_tensors(part: nn.Module) -> bool:
    """Whether a module is a `TransformerEncoder` that may turn masked rows into a nested tensor."""
    return isinstance(part, nn.TransformerEncoder) and bool(getattr(part, "use_nested_tensor", False))


class UnfusedAttention(nn.Module):
    """Multi-head attention: in_proj_q, in_proj_k, in_proj_v from the widths of query, key and value to E, and out_proj (E, E).

    Called like `nn.MultiheadAttention`. Parameters: those of the fused layer.
    """

    #: torch's transformer layers read these attributes to decide whether to use their fused fast path.
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = attention.embed_dim, attention.num_heads, attention.head_dim
        self.dropout, self.batch_first, self.add_zero_attn = attention.dropout, attention.batch_first, attention.add_zero_attn
        packed = cast("Tensor | None", attention.in_proj_weight)
        if packed is not None:
            weights = packed.detach().chunk(3)
        else:
            separate = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
            weights = tuple(cast(Tensor, weight).detach() for weight in separate)
        biases = attention.in_proj_bias.detach().chunk(3) if attention.in_proj_bias is not None else (None, None, None)
        self.in_proj_q, self.in_proj_k, self.in_proj_v = (_linear(*pair) for pair in zip(weights, biases, strict=True))
        self.out_proj = attention.out_proj
        self.bias_k, self.bias_v = attention.bias_k, attention.bias_v
        for parameter in [*self.in_proj_q.parameters(), *self.in_proj_k.parameters(), *self.in_proj_v.parameters()]:
            parameter.requires_grad_(attention.out_proj.weight.requires_grad)
        self.train(attention.training)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None, need_weights: bool = True,
        attn_mask: Tensor | None = None, average_attn_weights: bool = True, is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """-> (output of the query's shape, attention weights or None), as `nn.MultiheadAttention` returns them."""
        batched = query.dim() == 3
        inputs = [query, key, value]
        if not batched:
            inputs = [part.unsqueeze(0) for part in inputs]
            key_padding_mask = key_padding_mask.unsqueeze(0) if key_padding_mask is not None else None
        elif not self.batch_first:
            inputs = [part.transpose(0, 1) for part in inputs]
        q, k, v = self.in_proj_q(inputs[0]), self.in_proj_k(inputs[1]), self.in_proj_v(inputs[2])
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(len(k), 1, -1)], dim=1)
            v = torch.cat([v, self.bias_v.expand(len(v), 1, -1)], dim=1)
        q, k, v = (part.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for part in (q, k, v))
        if self.add_zero_attn:
            k, v = (functional.pad(part, (0, 0, 0, 1)) for part in (k, v))
        mask = self._mask(q, k, key_padding_mask, attn_mask)
        dropout, weights = self.dropout if self.training else 0.0, None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / self.head_dim**0.5
            weights = functional.dropout((scores if mask is None else scores + mask).softmax(-1), dropout, self.training)
            heads = weights @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        else:
            heads = functional.scaled_dot_product_attention(q, k, v, mask, dropout)
        output: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))
        if not batched:
            return output.squeeze(0), weights
        return (output if self.batch_first else output.transpose(0, 1)), weights

    def _mask(self, q: Tensor, k: Tensor, padding: Tensor | None, attention: Tensor | None) -> Tensor | None:
        """The additive mask of the scores, (B or 1, h or 1, L or 1, S). Keys of `bias_k` and `add_zero_attn` are never masked."""
        parts = []
        if padding is not None:
            parts.append(_additive(padding, q)[:, None, None, :])
        if attention is not None:
            added = _additive(attention, q)
            parts.append(added if added.dim() == 2 else added.unflatten(0, (-1, self.num_heads)))
        padded = [functional.pad(part, (0, k.shape[2] - part.shape[-1])) for part in parts]
        return sum(padded[1:], padded[0]) if padded else None


class UnfusedRecurrent(nn.Module):
    """RNN, GRU or LSTM as a Python loop over time: in layer 0, `ih_l0` maps the inputs of all times at once, `hh_l0` the state.

    Called like the fused layer. Parameters: those of the fused layer.
    """

    def __init__(self, recurrent: nn.RNNBase) -> None:
        super().__init__()
        self.mode, self.bias, self.batch_first = recurrent.mode, recurrent.bias, recurrent.batch_first
        self.input_size, self.hidden_size, self.num_layers = recurrent.input_size, recurrent.hidden_size, recurrent.num_layers
        self.dropout, self.bidirectional = float(recurrent.dropout), recurrent.bidirectional
        self.suffixes = [
            f"l{layer}{way}" for layer in range(recurrent.num_layers) for way in ("", "_reverse")[: 1 + recurrent.bidirectional]
        ]
        for suffix in self.suffixes:
            for kind in ("ih", "hh"):
                weight = getattr(recurrent, f"weight_{kind}_{suffix}")
                bias = getattr(recurrent, f"bias_{kind}_{suffix}") if recurrent.bias else None
                linear = _linear(weight.detach(), bias.detach() if bias is not None else None)
                self.add_module(f"{kind}_{suffix}", linear.requires_grad_(weight.requires_grad))
        self.train(recurrent.training)

    def flatten_parameters(self) -> None:
        """Nothing: only the fused operation needs its parameters in one block of memory."""

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """-> (outputs of all times, last state), as the fused layer returns them."""
        lengths, batched = None, True
        if isinstance(input, PackedSequence):
            x, lengths = pad_packed_sequence(input, batch_first=True)
            lengths = lengths.to(x.device)
        else:
            batched = input.dim() == 3
            x = input.unsqueeze(0) if not batched else input if self.batch_first else input.transpose(0, 1)
        state = _states(hx, batched) or tuple(
            x.new_zeros(len(self.suffixes), len(x), self.hidden_size) for _ in range(1 + (self.mode == "LSTM"))
        )
        last = []
        ways = 1 + self.bidirectional
        for layer in range(self.num_layers):
            outputs = []
            for place in range(layer * ways, (layer + 1) * ways):
                output, final = self._run(self.suffixes[place], x, tuple(part[place] for part in state), lengths)
                outputs.append(output)
                last.append(final)
            x = torch.cat(outputs, dim=-1)
            if layer + 1 < self.num_layers:
                x = functional.dropout(x, self.dropout, self.training)
        ends = tuple(torch.stack(parts) for parts in zip(*last, strict=True))
        ends = ends if batched else tuple(part.squeeze(1) for part in ends)
        given = ends if self.mode == "LSTM" else ends[0]
        if lengths is not None:
            return pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False), given
        return (x.squeeze(0) if not batched else x if self.batch_first else x.transpose(0, 1)), given

    def _run(
        self, suffix: str, x: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One layer in one direction: (B, T, in) -> outputs (B, T, H), last state; the state is constant after a row's end."""
        gates, hidden = self.get_submodule(f"ih_{suffix}")(x), self.get_submodule(f"hh_{suffix}")
        outputs: list[Tensor] = [x] * x.shape[1]
        for t in reversed(range(x.shape[1])) if suffix.endswith("_reverse") else range(x.shape[1]):
            new = self._step(gates[:, t], hidden(state[0]), state)
            if lengths is not None:
                inside = (lengths > t).unsqueeze(1)
                new = tuple(torch.where(inside, after, before) for after, before in zip(new, state, strict=True))
            state = new
            outputs[t] = state[0] if lengths is None else state[0] * inside
        return torch.stack(outputs, dim=1), state

    def _step(self, x: Tensor, h: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next state. torch stores the gates of a GRU in the order r, z, n, those of an LSTM in the order i, f, g, o."""
        if self.mode == "GRU":
            return (gru_step(x, h, state[0]),)
        if self.mode == "LSTM":
            i, f, g, o = (x + h).chunk(4, dim=1)
            cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
            return o.sigmoid() * cell.tanh(), cell
        return ((x + h).tanh() if self.mode == "RNN_TANH" else (x + h).relu(),)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer that shares the memory of these tensors."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight)
    if bias is not None:
        linear.bias = nn.Parameter(bias)
    return linear


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """A boolean mask as 0 and minus infinity (True); a mask of numbers unchanged."""
    if mask.dtype is not torch.bool:
        return mask.to(like.dtype)
    return torch.zeros(mask.shape, dtype=like.dtype, device=mask.device).masked_fill(mask, float("-inf"))


def _states(hx: Any, batched: bool) -> tuple[Tensor, ...] | None:
    if hx is None:
        return None
    parts = hx if isinstance(hx, tuple) else (hx,)
    return parts if batched else tuple(part.unsqueeze(1) for part in parts)

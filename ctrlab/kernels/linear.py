"""Linear layers through the faster of torch's two matrix libraries, and in bfloat16 where asked.

On the CPU torch multiplies float32 matrices by MKL, which takes a slow path on some processors where oneDNN does not; which of
the two is faster differs from product to product and from shape to shape. `fast_linears` times both on the first batch and keeps
to the faster. A ReLU behind a linear layer is then part of the product's last step, and in bfloat16 the numbers between two
linear layers stay in bfloat16; products add up in float32 either way.

oneDNN is reached by an operation that torch keeps to itself: it is tried once, and where it fails MKL does everything.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctrlab.kernels.distinct import linear_of_look_up
from ctrlab.kernels.origin import look_up_of

ComputeDtype = Literal["float32", "bfloat16"]
Library = Literal["mkl", "onednn"]

#: x (rows, in) and weight (out, in) -> x weight^T (rows, out), and what belongs to it.
Product = Callable[[Tensor, Tensor], Tensor]
#: {"forward 624x400": "onednn"}: which library takes which product of which matrix.
Products = MutableMapping[str, Library]

#: Multiplications under which a product is not worth a trial; MKL takes it.
TRIAL_MACS = 1 << 24
#: What one product of a trial multiplies at most, some tens of milliseconds.
MOST_TRIAL_MACS = 1 << 31
_TRIALS = 3


@contextmanager
def fast_linears(
    model: nn.Module, *, compute_dtype: ComputeDtype = "float32", products: Products | None = None
) -> Iterator[None]:
    """Within this context the linear layers of `model` on the CPU compute as the module's docstring says.

    A linear layer with a ReLU right behind it in an `nn.Sequential` then gives what the ReLU gives, which lets it pass: hooks
    inside of such a pair see the same numbers twice. On other devices nothing changes in float32, and bfloat16 is torch's
    autocast.

    Args:
        products: choices made earlier, which are kept to, and which new ones are added to.
    """
    device = next(model.parameters()).device
    if device.type != "cpu":
        with torch.autocast(device.type, torch.bfloat16, enabled=compute_dtype == "bfloat16"):
            yield
        return
    chosen: Products = {} if products is None else products
    changed: list[nn.Module] = []
    try:
        for module, relu, stays in _linears(model):
            low = compute_dtype == "bfloat16" and min(module.weight.shape) > 1
            module.forward = FastLinear(module, relu is not None, low, low and stays, chosen)  # type: ignore[method-assign, assignment]
            changed.append(module)
            if relu is not None:
                relu.forward = _pass  # type: ignore[method-assign, assignment]
                changed.append(relu)
        yield
    finally:
        for changed_module in changed:
            del changed_module.forward


def _linears(model: nn.Module) -> Iterator[tuple[nn.Linear, nn.ReLU | None, bool]]:
    """(a linear layer, the ReLU right behind it, whether another linear layer is the next to read its numbers)."""
    behind: dict[nn.Linear, tuple[nn.ReLU | None, bool]] = {}
    for sequence in model.modules():
        if isinstance(sequence, nn.Sequential):
            layers = list(sequence)
            for place, layer in enumerate(layers):
                if type(layer) is nn.Linear:
                    behind[layer] = _what_follows(layers[place + 1 :])
    hooked = {id(module) for module in model.modules() if module._forward_hooks or module._forward_pre_hooks}
    for module in model.modules():
        if type(module) is nn.Linear and "forward" not in vars(module):
            relu, stays = behind.get(module, (None, False))
            yield (module, None, False) if id(relu) in hooked or id(module) in hooked else (module, relu, stays)


def _what_follows(layers: list[nn.Module]) -> tuple[nn.ReLU | None, bool]:
    relu = layers[0] if layers and type(layers[0]) is nn.ReLU and "forward" not in vars(layers[0]) else None
    rest = [layer for layer in layers[1 if relu is not None else 0 :] if not isinstance(layer, nn.Dropout)]
    return relu, bool(rest) and type(rest[0]) is nn.Linear


def _pass(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True, eq=False)
class FastLinear:
    """What stands in for the `forward` of a linear layer.

    relu: whether it gives what the ReLU behind it gives. low: whether it multiplies in bfloat16. stays: whether its output is
    to be bfloat16 then, for the next linear layer to read. products: which library takes which product.
    """

    module: nn.Linear
    relu: bool
    low: bool
    stays: bool
    products: Products

    def __call__(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        weight = self.module.weight
        # In bfloat16 multiplying every vector takes no longer.
        look_up = look_up_of(x) if x.dim() == 2 and not self.low else None
        found = None if look_up is None else linear_of_look_up(look_up, weight, self.module.bias, relu=self.relu)
        if found is not None:
            return found
        flat = x.reshape(-1, x.shape[-1])
        if not self.low:
            flat = flat.to(weight.dtype)
        out: Tensor = _Linear.apply(flat, weight, self.module.bias, self.relu, self.low, self.products)
        if out.dtype != x.dtype and not self.stays:
            out = out.to(weight.dtype)
        return out.view(*x.shape[:-1], out.shape[-1])

    def lowered(self, matrix: Tensor) -> Tensor:
        """An operand of its products, in the precision that it multiplies in."""
        return matrix.to(torch.bfloat16) if self.low else matrix.float()

    def finished(self, summed: Tensor) -> Tensor:
        """What it gives for x W^T (B, out), float32, which it may overwrite: with the bias, the ReLU and the precision."""
        if self.module.bias is not None:
            summed += self.module.bias.detach()
        if self.relu:
            summed.relu_()
        return summed.to(torch.bfloat16) if self.stays else summed


def fast_forward_of(layer: nn.Module) -> FastLinear | None:
    """What stands in for the layer's `forward` within `fast_linears`, None elsewhere: of a layer that may be computed as a part
    of something larger, hence not where a hook waits for its input or output."""
    forward = vars(layer).get("forward")
    return forward if isinstance(forward, FastLinear) and not is_hooked(layer) else None


def is_hooked(module: nn.Module) -> bool:
    """Whether a hook waits for this very module to run."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)


def is_plain_linear(module: nn.Module) -> bool:
    """Whether nothing but its weights matters: no hook listens to it, and its `forward` is torch's or that of `fast_linears`."""
    forward = vars(module).get("forward")
    return type(module) is nn.Linear and (forward is None or isinstance(forward, FastLinear)) and not is_hooked(module)


class _Linear(torch.autograd.Function):
    """y = x W^T + b, then max(y, 0) if asked; x (B, in) float32 or bfloat16, W (out, in) and b (out,) float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, low: bool, products: Products) -> Tensor:
        read = x.to(torch.bfloat16) if low else x
        matrix = weight.to(torch.bfloat16) if low else weight
        offset = bias.to(torch.bfloat16) if low and bias is not None else bias
        out = _forward_product(read, matrix, offset, relu, products)
        ctx.save_for_backward(read, matrix, out if relu else None)
        ctx.dtypes, ctx.products = (x.dtype, weight.dtype), products
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, out = ctx.saved_tensors
        grad = grad.to(x.dtype)
        if out is not None:
            grad = torch.ops.aten.threshold_backward(grad, out, 0)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = product("input", grad, weight.t(), ctx.products).to(ctx.dtypes[0])
        if ctx.needs_input_grad[1]:
            of_weight = product("weight", grad.t(), x.t(), ctx.products, batch=1).to(ctx.dtypes[1])
        if ctx.needs_input_grad[2]:
            # Added up in float32 and rounded as a product is: asked for float32, torch makes a copy of all gradients first.
            of_bias = grad.sum(0).to(ctx.dtypes[1])
        return of_x, of_weight, of_bias, None, None, None


def _forward_product(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, products: Products) -> Tensor:
    def by_mkl(x: Tensor, weight: Tensor) -> Tensor:
        out = functional.linear(x, weight, bias)
        return out.relu_() if relu else out

    by_onednn = functools.partial(_onednn, bias=bias, post="relu" if relu else "none")
    return _by_the_faster("forward", x, weight, by_mkl, by_onednn, products)


def product(kind: str, x: Tensor, weight: Tensor, products: Products, *, batch: int = 0) -> Tensor:
    """x (n, k) and weight (m, k), either of them possibly a transposed view -> x weight^T (n, m).

    Args:
        kind: names in `products` what multiplies matrices that lie in memory in one way.
        batch: which of n, k and m is the number of the batch's rows.
    """
    return _by_the_faster(kind, x, weight, _mkl, _onednn, products, batch)


def _mkl(x: Tensor, weight: Tensor) -> Tensor:
    return torch.mm(x, weight.t())


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None, post: str = "none") -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, post, [], "")
    return out


def _by_the_faster(kind: str, x: Tensor, weight: Tensor, by_mkl: Product, by_onednn: Product, products: Products,
                   batch: int = 0) -> Tensor:  # fmt: skip
    sizes = [*x.shape, weight.shape[0]]
    if math.prod(sizes) < TRIAL_MACS or not (_fills_its_memory(x) and _fills_its_memory(weight) and has_onednn()):
        return by_mkl(x, weight)
    # Not by the rows of the batch: a fit that is resumed before its first short batch must know the choice for it too.
    shape = f"{kind} " + "x".join(str(size) for axis, size in enumerate(sizes) if axis != batch)
    if x.dtype != torch.float32:
        shape += " bfloat16"
    if shape not in products:
        some = _some_rows(x, weight, batch)
        products[shape] = "onednn" if _seconds(by_onednn, *some) < _seconds(by_mkl, *some) else "mkl"
    return by_onednn(x, weight) if products[shape] == "onednn" else by_mkl(x, weight)


def _fills_its_memory(matrix: Tensor) -> bool:
    """Whether it is no slice of a wider one: such a product took oneDNN, which has no fast code for it, 500 times as long."""
    return matrix.is_contiguous() or matrix.t().is_contiguous()


def _some_rows(x: Tensor, weight: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Operands of a trial: of so many rows of the batch that a product of very wide layers takes no seconds."""
    sizes = [*x.shape, weight.shape[0]]
    rows = min(sizes[batch], max(64, MOST_TRIAL_MACS * sizes[batch] // math.prod(sizes)))
    if batch == 1:
        return _first(x, 1, rows), _first(weight, 1, rows)
    return (_first(x, 0, rows), weight) if batch == 0 else (x, _first(weight, 0, rows))


def _first(matrix: Tensor, axis: int, count: int) -> Tensor:
    """The first rows or columns, laid out as the whole is."""
    some = matrix.narrow(axis, 0, count)
    if _fills_its_memory(some):
        return some
    return some.contiguous() if matrix.is_contiguous() else some.t().contiguous().t()


def _seconds(product: Product, x: Tensor, weight: Tensor) -> float:
    """The shortest of a few runs after a first one, which prepares."""
    times = []
    for _ in range(_TRIALS + 1):
        started = time.perf_counter()
        product(x, weight)
        times.append(time.perf_counter() - started)
    return min(times[1:])


@functools.cache
def has_onednn() -> bool:
    """Whether oneDNN can be reached and gives the right numbers, transposed views and all."""
    # No random numbers: those of a training in progress must not depend on whether this was asked before.
    x, weight, bias = (torch.linspace(-1, 1, size) for size in (15, 12, 4))
    x, weight = x.view(5, 3), weight.view(4, 3)
    with torch.no_grad():
        expected = functional.linear(x, weight, bias)
        try:
            ahead, back = _onednn(x, weight, bias, "relu"), _onednn(x.t(), expected.t())
        except (AttributeError, RuntimeError, NotImplementedError):
            return False
        return torch.allclose(ahead, expected.relu(), atol=1e-4) and torch.allclose(back, x.t() @ expected, atol=1e-4)

"""Recovery in closed form: linear layers of a compressed model fitted again to the original's outputs (METHOD.md, section 7).

In the order of the forward pass, so that every layer is fitted to the inputs that it gets in the compressed model. Labels are not
read. A new fit replaces the present weights only where its squared error on the calibration rows is smaller.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ctrlab.compression.linear import FactoredLinear, bias_or_zeros, set_linear_
from ctrlab.compression.regression import Fit, LeastSquares, channel_fit, logistic_fit
from ctrlab.data.schema import Fields
from ctrlab.decomposition.loss_weights import weight_root
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.engines.choose import predictor_of
from ctrlab.engines.trees import copy_tree
from ctrlab.errors import JobCancelled
from ctrlab.models.base import CTRModel

#: r, as a share of the mean variance of a layer's inputs.
RIDGE = 1e-4
#: Layers of wider inputs stay as they are: the covariance would not fit into memory.
WIDEST_INPUT = 4096
#: Rows of the pass that finds the order of the layers.
_FEW_ROWS = 16


@dataclass(frozen=True)
class Order:
    """The layers of a model in the order of the forward pass.

    levels: names of linear and batch normalisation layers; the inputs of one level depend on earlier levels alone.
    output_units: linear layers of one output that is a term of the logit, in order; in no level.
    """

    levels: tuple[tuple[str, ...], ...]
    output_units: tuple[str, ...]


def recover(
    original: CTRModel,
    compressed: CTRModel,
    batches: Sequence[Fields],
    spectra: Mapping[str, LayerSpectrum] | None = None,
    *,
    ridge: float = RIDGE,
    on_progress: Callable[[float], None] = lambda fraction: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> CTRModel:
    """A copy of `compressed` with its layers fitted to the outputs of `original` on the rows of `batches`.

    Args:
        batches: calibration rows, as tensors on the models' device.
        spectra: of the original; where they hold gradients of the loss, factored layers are cut by the weighted directions.
        ridge: r as a share of the mean variance of a layer's inputs; keeps a fit near the original's weights.

    Raises:
        JobCancelled: `should_stop()` was true between two batches.
    """
    new = copy.deepcopy(compressed).eval()
    order = order_of(original, _first_rows(batches[0]))
    passes = [*order.levels, *((name,) for name in order.output_units)]
    run = _Run(original, new, batches, set(order.output_units), should_stop)
    for number, names in enumerate(passes):
        for name, sums in run.statistics(names).items():
            _refit_(original.get_submodule(name), new.get_submodule(name), sums, (spectra or {}).get(name), ridge)
        on_progress((number + 1) / (len(passes) + 1))
    if order.output_units:
        _rescale_output_(run, order.output_units)
    on_progress(1.0)
    return new


def order_of(model: CTRModel, rows: Fields) -> Order:
    """The order of the layers of `model`, from a pass over a few rows; the model is left as it is."""
    tree = _own_hooks(copy_tree(model).eval())
    levels: dict[str, int] = {}
    produced: dict[Any, str] = {}  # {node of the autograd graph, or id of a leaf: the layer whose output it is}
    outputs: dict[str, Tensor] = {}

    def before(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            sources = _sources(inputs[0], produced)
            levels[name] = max([levels.get(name, 0), *(levels[source] + 1 for source in sources)])

        return hook

    def after(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            output = output if output.requires_grad else output.detach().requires_grad_()
            produced[id(output) if output.grad_fn is None else output.grad_fn] = name
            outputs[name] = output
            return output

        return hook

    for name, module in _layers(tree).items():
        module.register_forward_pre_hook(before(name))
        module.register_forward_hook(after(name))
    with torch.enable_grad():
        logits = tree(rows)
    units = _terms_of(logits, {name: output for name, output in outputs.items() if output.shape == (len(logits), 1)})
    depth = max(levels.values(), default=-1) + 1
    ordered = [tuple(name for name in levels if levels[name] == level and name not in units) for level in range(depth)]
    return Order(tuple(names for names in ordered if names), tuple(sorted(units, key=lambda name: levels[name])))


def _terms_of(logits: Tensor, outputs: Mapping[str, Tensor]) -> set[str]:
    """The outputs (B, 1) that the logit is a sum of: those with the gradient 1 in every row."""
    if not outputs or not logits.requires_grad:
        return set()
    found = torch.autograd.grad(logits.sum(), list(outputs.values()), allow_unused=True)
    return {name for name, gradient in zip(outputs, found, strict=True) if gradient is not None and bool((gradient == 1).all())}


def _sources(tensor: Tensor, produced: Mapping[Any, str]) -> set[str]:
    """The layers nearest to a tensor in the autograd graph."""
    if id(tensor) in produced:
        return {produced[id(tensor)]}
    found, waiting = set(), [tensor.grad_fn] if tensor.grad_fn is not None else []
    seen: set[Any] = set(waiting)
    while waiting:
        node = waiting.pop()
        name = produced.get(node) or produced.get(id(getattr(node, "variable", None)))
        if name is not None:
            found.add(name)
            continue
        following = [parent for parent, _ in node.next_functions if parent is not None and parent not in seen]
        seen.update(following)
        waiting.extend(following)
    return found


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """The plain linear and batch normalisation layers by name."""
    return {name: module for name, module in model.named_modules() if type(module) in (nn.Linear, nn.BatchNorm1d)}


def _own_hooks(tree: CTRModel) -> CTRModel:
    """The tree with hooks of its own: those of a copied tree are the model's."""
    for module in tree.modules():
        module._forward_hooks = type(module._forward_hooks)(module._forward_hooks)
        module._forward_pre_hooks = type(module._forward_pre_hooks)(module._forward_pre_hooks)
    return tree


def _first_rows(fields: Fields) -> Fields:
    return Fields(*(part[:_FEW_ROWS] for part in fields))


@dataclass(frozen=True, eq=False)
class _Run:
    """Passes of both models over the calibration rows."""

    original: CTRModel
    new: CTRModel
    batches: Sequence[Fields]
    output_units: set[str]
    should_stop: Callable[[], bool]

    def statistics(self, names: Sequence[str]) -> "dict[str, LeastSquares]":
        """{layer: sums over the rows of its input in the new model and its output in the original}.

        An output unit is fitted to what the other terms of the new model's logit leave of the original's.
        """
        found: dict[str, LeastSquares] = {}
        readers = {name: _fitted_part(self.new.get_submodule(name)) for name in names if self._comparable(name)}
        for wanted, given in self.passes({name: name + suffix for name, (suffix, _) in readers.items()}):
            for name in readers:
                x, y = given.inputs.get(name), wanted.outputs.get(name)
                if x is None or y is None:
                    continue
                if name in self.output_units:
                    y = (wanted.logits - given.logits).unsqueeze(1) + given.outputs[name]
                channels = isinstance(self.new.get_submodule(name), nn.BatchNorm1d)
                x, y = _rows(x, channels=channels), _rows(y, channels=channels)
                if len(x) == len(y):
                    sums = found.get(name) or LeastSquares.empty(x, y, by_channel=channels, widest=WIDEST_INPUT)
                    found[name] = sums.add(x, y)
        return found

    def _comparable(self, name: str) -> bool:
        module = dict(self.new.named_modules()).get(name)
        return isinstance(module, (nn.Linear, FactoredLinear, nn.BatchNorm1d))

    def passes(self, names: Mapping[str, str]) -> "Iterator[tuple[_Seen, _Seen]]":
        """What both models show of a batch: the layers of the original, and `names[layer]` of the new model."""
        wanted, given = _Watched(self.original, {name: name for name in names}), _Watched(self.new, names)
        with torch.no_grad():
            for batch in self.batches:
                if self.should_stop():
                    raise JobCancelled("the recovery was cancelled")
                yield wanted.run(batch), given.run(batch)


@dataclass(frozen=True, eq=False)
class _Seen:
    """One batch: logits (B,), and inputs and outputs by layer."""

    logits: Tensor
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class _Watched:
    """A model whose layers' inputs and outputs are recorded: names is {name in the result: name of the module}."""

    def __init__(self, model: CTRModel, names: Mapping[str, str]) -> None:
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        tree = _own_hooks(copy_tree(model).eval())
        for name, module_name in names.items():
            tree.get_submodule(module_name).register_forward_hook(self._hook(name))
        self._predict = predictor_of(tree)

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.inputs[name] = _joined(self.inputs.get(name), inputs[0])
            self.outputs[name] = _joined(self.outputs.get(name), output)

        return hook

    def run(self, batch: Fields) -> _Seen:
        self.inputs, self.outputs = {}, {}
        logits = self._predict(batch)
        return _Seen(logits, self.inputs, self.outputs)


def _joined(before: Tensor | None, now: Tensor) -> Tensor:
    """The rows of a layer that runs several times a pass."""
    return now if before is None else torch.cat([before.flatten(0, -2), now.flatten(0, -2)])


def _rows(values: Tensor, *, channels: bool) -> Tensor:
    """(..., d) -> (n, d); batch normalisation has its channels second."""
    values = values.transpose(1, 2) if channels and values.dim() == 3 else values
    return values.reshape(-1, values.shape[-1])


def _fitted_part(module: nn.Module) -> tuple[str, nn.Module]:
    """(suffix of its name, the part of a layer that is fitted): the second factor alone behind a nonlinear bottleneck."""
    if isinstance(module, FactoredLinear) and not _is_linear(module):
        return ".restore", module.restore
    return "", module


def _is_linear(module: FactoredLinear) -> bool:
    slopes = getattr(module.activation, "weight", None)
    return isinstance(module.activation, nn.Identity) or (slopes is not None and bool((slopes == 1).all()))


@torch.no_grad()
def _refit_(old: nn.Module, new: nn.Module, sums: LeastSquares, spectrum: LayerSpectrum | None, ridge: float) -> None:
    """In place: the weights of `new` of the least squared error, if that is below the present ones'."""
    if isinstance(new, nn.BatchNorm1d):
        _refit_norm_(new, sums)
        return
    _, part = _fitted_part(new)
    if isinstance(part, FactoredLinear):
        _refit_factors_(cast(nn.Linear, old), part, sums, spectrum, ridge)
        return
    linear = cast(nn.Linear, part)
    present = Fit(linear.weight.double(), bias_or_zeros(linear).double())
    anchor = cast(nn.Linear, old).weight.double() if linear is new else present.weight
    if _has_bias(linear):
        best = sums.best(present, [sums.centred(present), sums.fit(anchor, ridge)])
    else:
        best = sums.best(present, [sums.fit(anchor, ridge, with_bias=False)])
    if best is not present:
        _set_(linear, best.weight, best.bias)


def _has_bias(linear: nn.Linear) -> bool:
    return cast("Tensor | None", linear.bias) is not None


def _set_(linear: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """In place, without giving a bias to a layer that has none."""
    if _has_bias(linear):
        set_linear_(linear, weight, bias)
    else:
        linear.weight.copy_(weight)


def _refit_factors_(
    old: nn.Linear, new: FactoredLinear, sums: LeastSquares, spectrum: LayerSpectrum | None, ridge: float
) -> None:
    """In place: W* cut to the layer's rank by the (weighted) eigenvectors of W* C_xx W*^T."""
    present = Fit(
        new.restore.weight.double() @ new.reduce.weight.double(),
        new.restore.weight.double() @ bias_or_zeros(new.reduce).double() + bias_or_zeros(new.restore).double(),
    )
    root = inverse = None
    if spectrum is not None and spectrum.gradients is not None:
        weight = weight_root(spectrum.gradients)
        root, inverse = (torch.tensor(part, device=present.weight.device) for part in (weight.root, weight.inverse))
    candidates = [sums.centred(present)]
    full = sums.fit(old.weight.double(), ridge)
    if full is None:
        best = sums.best(present, candidates, root)
        if best is not present:
            set_linear_(new.restore, new.restore.weight.double(), bias_or_zeros(new.restore).double() + best.bias - present.bias)
        return
    encode, decode = sums.directions(full, new.rank, root, inverse)
    cut = Fit(decode @ encode.T @ full.weight, sums.mean_y - decode @ encode.T @ full.weight @ sums.mean_x)
    best = sums.best(present, [*candidates, cut], root)
    if best is cut:
        set_linear_(new.reduce, encode.T @ full.weight, -encode.T @ full.weight @ sums.mean_x)
        set_linear_(new.restore, decode, sums.mean_y)
    elif best is not present:
        set_linear_(new.restore, new.restore.weight.double(), bias_or_zeros(new.restore).double() + best.bias - present.bias)


def _refit_norm_(norm: nn.BatchNorm1d, sums: LeastSquares) -> None:
    """In place: scale and shift of every channel, against the original's normalised outputs."""
    if not norm.affine or norm.running_mean is None or norm.running_var is None:
        return
    deviation = (norm.running_var.double() + norm.eps).sqrt()
    present = (norm.weight.double() / deviation, norm.bias.double() - norm.weight.double() * norm.running_mean / deviation)
    slope, shift = channel_fit(sums, present)
    norm.weight.copy_(slope * deviation)
    norm.bias.copy_(shift + slope * norm.running_mean.double())


@torch.no_grad()
def _rescale_output_(run: _Run, names: Sequence[str]) -> None:
    """In place: a scale of every output unit and one intercept, of the least log loss against the original's probabilities."""
    terms, rest, wanted = [], [], []
    parts = {name: name for name in names if run._comparable(name)}
    if not parts:
        return
    for teacher, student in run.passes(parts):
        own = torch.cat([student.outputs[name].reshape(len(student.logits), -1) for name in parts], dim=1)
        terms.append(own)
        rest.append(student.logits - own.sum(dim=1))
        wanted.append(torch.sigmoid(teacher.logits))
    modules = [run.new.get_submodule(name) for name in parts]
    units = [module.restore if isinstance(module, FactoredLinear) else cast(nn.Linear, module) for module in modules]
    shifted = next((unit for unit in units if _has_bias(unit)), None)
    scales, intercept = logistic_fit(
        torch.cat(terms).double(), torch.cat(rest).double(), torch.cat(wanted).double(), with_intercept=shifted is not None
    )
    for unit, scale in zip(units, scales, strict=True):
        shift = intercept if unit is shifted else 0.0
        _set_(unit, unit.weight.double() * scale, bias_or_zeros(unit).double() * scale + shift)

"""What one forward pass of a blank row shows of a model: which block reads which, and how often each layer runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ctrlab.data.schema import Fields
from ctrlab.models.base import CTRModel

#: Source of the blocks that take ids and values, and name of the model's output.
FIELDS, LOGIT = "fields", "logit"


@dataclass(frozen=True, eq=False)
class Trace:
    """One forward pass of one row.

    sources: {block, or LOGIT: the blocks whose outputs it reads, FIELDS if none}, of the blocks that ran.
    positions: {layer: how often the row passes through it}, lists taken as full: of the linear and normalisation layers that ran,
        and of modules with an attribute `per_position`, whose `row_macs` are those of one pass.
    """

    sources: dict[str, tuple[str, ...]]
    positions: dict[nn.Module, int]


def blank_row(model: CTRModel) -> Fields:
    """One row of unknown ids, zeros and full lists, on the model's device."""
    like, schema = next(model.parameters()), model.schema
    ids = torch.zeros(1, len(schema.field_names), dtype=torch.int32, device=like.device)
    lists = torch.zeros(1, schema.list_width, dtype=torch.int32, device=like.device)  # unknown elements, no padding
    return Fields(ids, like.new_zeros(1, len(schema.value_names)), lists)


def blocks_of(model: CTRModel) -> dict[str, nn.Module]:
    """{qualified name: block}: the model's submodules in order, the members of a ModuleList one by one, nn.Identity left out."""
    blocks: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList):
            blocks |= {f"{name}.{number}": part for number, part in child.named_children()}
        elif not isinstance(child, nn.Identity):
            blocks[name] = child
    return blocks


def trace(model: CTRModel) -> Trace:
    """Run one blank row through `model` in evaluation mode; its modes, hooks and gradients are unchanged."""
    blocks = blocks_of(model)
    produced: dict[Any, str] = {}  # {node of the autograd graph: the block whose output it made}
    owners = {id(parameter): name for name, block in blocks.items() for parameter in block.parameters()}
    sources: dict[str, tuple[str, ...]] = {}
    positions: dict[nn.Module, int] = {}
    alive: list[Any] = []  # nodes are compared by identity, so they must not be freed during the pass

    def enter(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            found = _origins(_tensors([args, kwargs]), produced, owners)
            sources[name] = tuple(dict.fromkeys([*sources.get(name, ()), *(found or (FIELDS,))]))

        return hook

    def leave(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            for tensor in _tensors(output):
                alive.append(tensor)
                if tensor.grad_fn is not None:
                    produced[tensor.grad_fn] = name

        return hook

    def count(module: nn.Module, args: Any, output: Tensor) -> None:
        width = module.num_features if isinstance(module, nn.BatchNorm1d) else output.shape[-1]
        positions[module] = positions.get(module, 0) + output.numel() // width

    handles = [module.register_forward_hook(count) for module in model.modules() if _runs_per_position(module)]
    modes = {module: module.training for module in model.modules()}
    try:
        for name, block in blocks.items():
            handles.append(block.register_forward_pre_hook(enter(name), with_kwargs=True))
            handles.append(block.register_forward_hook(leave(name)))
        with torch.enable_grad():
            logit = model.eval()(blank_row(model))
        sources[LOGIT] = _origins([logit], produced, owners)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return Trace(sources, positions)


def _runs_per_position(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, nn.BatchNorm1d, nn.LayerNorm)) or getattr(module, "per_position", False)


def _origins(tensors: list[Tensor], produced: dict[Any, str], owners: dict[int, str]) -> tuple[str, ...]:
    """The blocks nearest to the tensors in the autograd graph, in the order in which they ran.

    A block whose parameters were read outside its `forward`, as the table rows of lists are, counts as well.
    """
    found: set[str] = set()
    waiting = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node in produced:
            found.add(produced[node])
            continue
        owner = owners.get(id(getattr(node, "variable", None)))
        if owner is not None:
            found.add(owner)
        following = [parent for parent, _ in node.next_functions if parent is not None and parent not in seen]
        seen.update(following)
        waiting.extend(following)
    return tuple(name for name in dict.fromkeys([*produced.values(), *owners.values()]) if name in found)


def _tensors(values: Any) -> list[Tensor]:
    return list(_walk(values))


def _walk(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _walk(list(values.values()))
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _walk(value)

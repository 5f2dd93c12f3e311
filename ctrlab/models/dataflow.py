"""How data flows between the blocks of a model, read off a forward pass of one blank row: no drawing is made by hand."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ctrlab.data.schema import Fields
from ctrlab.models.base import CTRModel

#: What the blocks read that take ids and values, and what the last ones give.
FIELDS, LOGIT = "fields", "logit"


def blank_row(model: CTRModel) -> Fields:
    """One row of unknown ids, zeros and full lists, on the model's device."""
    like, schema = next(model.parameters()), model.schema
    ids = torch.zeros(1, len(schema.field_names), dtype=torch.int32, device=like.device)
    lists = torch.zeros(1, schema.list_width, dtype=torch.int32, device=like.device)  # unknown elements, no padding
    return Fields(ids, like.new_zeros(1, len(schema.value_names)), lists)


def blocks_of(model: CTRModel) -> dict[str, nn.Module]:
    """{qualified name: block}: the model's submodules in order, those of lists one by one, without those that do nothing."""
    blocks: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList):
            blocks |= {f"{name}.{number}": part for number, part in child.named_children()}
        elif not isinstance(child, nn.Identity):
            blocks[name] = child
    return blocks


def trace_flow(model: CTRModel) -> dict[str, tuple[str, ...]]:
    """{block, or LOGIT: the blocks whose outputs it reads, FIELDS among them where it reads none}, of the blocks that run."""
    blocks = blocks_of(model)
    produced: dict[Any, str] = {}  # {node of the autograd graph: the block whose output it made}
    owners = {id(parameter): name for name, block in blocks.items() for parameter in block.parameters()}
    sources: dict[str, tuple[str, ...]] = {}
    alive: list[Any] = []  # nodes are known by identity, hence must not be collected

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

    handles = []
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
    return sources


def _origins(tensors: list[Tensor], produced: dict[Any, str], owners: dict[int, str]) -> tuple[str, ...]:
    """The blocks that the tensors come from most directly, in the order in which they ran.

    A block whose parameters were read past its `forward`, as the rows of lists are, counts as well.
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

"""The profile of any module: its layers, sizes and MACs, measured in one run of one batch."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ctrlab.anymodule.calls import Forward, run
from ctrlab.anymodule.module_layers import ForeignLayer, find_layers, unfused_forms, unwrapped
from ctrlab.anymodule.outside import rows_in
from ctrlab.anymodule.unfused import unfused
from ctrlab.decomposition.trace import evaluating
from ctrlab.models.profile import BlockProfile, Cost, EmbeddingProfile, LayerProfile, ModelProfile

_NOT_RUN = "it did not run on the first batch"


@dataclass(frozen=True, kw_only=True)
class OutsideProfile:
    """A module's profile, and {name: reason} of every matrix in it that is no layer."""

    profile: ModelProfile
    other: dict[str, str]


def profile_module(module: nn.Module, batch: Any, forward: Forward | None = None) -> OutsideProfile:
    """The layers, the sizes and the MACs of one row of `module`, which runs once on `batch` in evaluation mode.

    MACs are the multiply-accumulates of matrix products, as torch counts them; those of elementwise products are not in them.
    No data flow is known, so nothing folds into anything: the model is served as it is trained.

    >>> found = profile_module(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)), torch.zeros(5, 4))
    >>> [(layer.layer_name, layer.positions) for layer in found.profile.layers], found.profile.cost.macs
    ([('0', 1), ('2', 1)], 15)
    """
    module = unwrapped(module)
    with unfused(module, unfused_forms(module)) as form:
        layers, other = find_layers(form)
        positions, all_macs = _run(form, layers, batch, forward)
        profiles = tuple(_layer(layer, positions.get(layer.layer_name, 0)) for layer in layers)
        cost = replace(_size(form.named_parameters(), layers), macs=0)
        buffers = {id(buffer): buffer.nbytes for buffer in _saved_buffers(form)}
    cost = replace(cost, bytes_dense=cost.bytes_dense + sum(buffers.values()))
    free = [layer for layer in profiles if layer.compressible and layer.kind == "linear"]
    macs = sum(layer.positions * layer.in_features * layer.out_features for layer in free)
    cost = replace(cost, macs=max(all_macs, macs))  # torch does not count the products of a bilinear layer
    profile = ModelProfile(
        architecture=type(module).__name__, layers=profiles, cost=cost, folded_fixed=Cost(),
        embeddings=tuple(
            EmbeddingProfile(
                name=layer.layer_name, embed_dim=layer.out_features, num_vectors=layer.positions, num_values=0, raw_values=True
            )
            for layer in profiles if layer.kind == "embedding" and layer.compressible
        ),
        element_bytes=next((parameter.element_size() for parameter in module.parameters()), 4),
        blocks=blocks_of(module, profiles),
    )  # fmt: skip
    return OutsideProfile(profile=with_fixed_part(profile), other=other)


def with_fixed_part(profile: ModelProfile) -> ModelProfile:
    """The profile with the cost of what no plan changes: all but the layers and tables that can be compressed."""
    size = profile.element_bytes
    fixed = profile.cost
    for layer in profile.compressible:
        weights = layer.in_features * layer.out_features
        if layer.kind == "embedding":
            fixed -= Cost(parameters_tables=weights, bytes_tables=size * weights)
        else:
            fixed -= Cost(parameters_dense=layer.parameters, bytes_dense=size * layer.parameters, macs=layer.positions * weights)
    return replace(profile, folded_fixed=fixed)


def blocks_of(module: nn.Module, layers: Iterable[LayerProfile]) -> tuple[BlockProfile, ...]:
    """The top parts of a module that have parameters, without data flow between them, which is not known."""
    tables = {layer.layer_name for layer in layers if layer.kind == "embedding"}
    found = []
    for name, part in module.named_children():
        own = sum(parameter.numel() for parameter in part.parameters() if not nn.parameter.is_lazy(parameter))
        size = sum(parameter.nbytes for parameter in part.parameters() if not nn.parameter.is_lazy(parameter))
        if own:
            is_table = any(f"{table}.".startswith(f"{name}.") for table in tables)
            cost = Cost(parameters_dense=own, bytes_dense=size)
            found.append(BlockProfile(name=name, kind="tables" if is_table else "layers", module=type(part).__name__, cost=cost))
    return tuple(found)


def _run(module: nn.Module, layers: Iterable[ForeignLayer], batch: Any, forward: Forward | None) -> tuple[Mapping[str, int], int]:
    """({layer: outputs of one row}, MACs of one row)."""
    outputs: dict[str, int] = {}
    rows = rows_in(batch)
    with ExitStack() as stack, evaluating(module), torch.no_grad():
        for layer in layers:

            def count(part: nn.Module, args: Any, output: Any, layer: ForeignLayer = layer) -> None:
                if isinstance(output, Tensor):
                    made = output.numel() // max(layer.out_features, 1)
                    outputs[layer.layer_name] = outputs.get(layer.layer_name, 0) + made

            stack.callback(layer.module.register_forward_hook(count).remove)
        counter = stack.enter_context(FlopCounterMode(display=False))
        run(module, batch, forward)
    return {name: max(1, round(made / rows)) for name, made in outputs.items()}, counter.get_total_flops() // (2 * rows)


def _layer(layer: ForeignLayer, positions: int) -> LayerProfile:
    profile = layer.profile()
    table = layer.layer_name if layer.kind == "embedding" and layer.skip_reason is None and positions else ""
    return replace(
        profile, positions=max(positions, 1), embedding=table, skip_reason=profile.skip_reason if positions else
        profile.skip_reason or _NOT_RUN,
    )  # fmt: skip


def _size(parameters: Iterable[tuple[str, Tensor]], layers: Iterable[ForeignLayer]) -> Cost:
    tables = {id(cast(Tensor, layer.module.weight)) for layer in layers if layer.kind == "embedding"}
    cost = Cost()
    for _, parameter in parameters:
        if nn.parameter.is_lazy(parameter):
            continue
        own, size = parameter.numel(), parameter.nbytes
        cost += (
            Cost(parameters_tables=own, bytes_tables=size)
            if id(parameter) in tables
            else Cost(parameters_dense=own, bytes_dense=size)
        )
    return cost


def _saved_buffers(module: nn.Module) -> Iterable[Tensor]:
    for part in module.modules():
        transient = part._non_persistent_buffers_set
        yield from (buffer for name, buffer in part.named_buffers(recurse=False) if name not in transient)

"""Measured cost of a module: parameters, bytes and MACs (see `models.macs`) of what is in it.

A module that stores integer codes in place of numbers has the attributes `num_codes`, how many, and `codes_are_table`, whether
they are looked up by id.
"""

import torch
from torch import nn

from ctrlab.models.base import CTRModel
from ctrlab.models.dataflow import trace
from ctrlab.models.layers import LookupTable
from ctrlab.models.macs import own_macs
from ctrlab.models.profile import Cost


def measure_cost(model: nn.Module) -> Cost:
    """Parameters, bytes and MACs of what is in `model`.

    >>> measure_cost(nn.Linear(3, 2))
    Cost(parameters_tables=0, parameters_dense=8, bytes_tables=0, bytes_dense=32, macs=6)
    """
    positions = trace(model).positions if isinstance(model, CTRModel) else {}
    return CostMeter(model, positions).cost_of(model)


class CostMeter:
    """Costs of the parts of one model.

    positions: {layer: how often one row passes through it}, of the layers that ran (see `dataflow.trace`).
    """

    def __init__(self, model: nn.Module, positions: dict[nn.Module, int]) -> None:
        self.model = model
        self.positions = positions

    def cost_of(self, module: nn.Module) -> Cost:
        """Of `module` with everything inside it."""
        parts = list(module.modules())
        tables = {id(part.weight) for part in parts if isinstance(part, (LookupTable, nn.Embedding))}
        coded_tables = [part for part in parts if is_coded_table(part)]
        other = [part for part in parts if not is_coded_table(part)]
        parameters = list(module.parameters())
        in_tables = [parameter for parameter in parameters if id(parameter) in tables]
        dense = [parameter for parameter in parameters if id(parameter) not in tables]
        return Cost(
            parameters_tables=sum(map(torch.numel, in_tables)) + sum(map(_num_codes, coded_tables)),
            parameters_dense=sum(map(torch.numel, dense)) + sum(map(_num_codes, other)),
            bytes_tables=sum(parameter.nbytes for parameter in in_tables) + sum(map(_buffer_bytes, coded_tables)),
            bytes_dense=sum(parameter.nbytes for parameter in dense) + sum(map(_buffer_bytes, other)),
            macs=sum(own_macs(part, self.model) * self.positions.get(part, 1) for part in parts),
        )


def is_coded_table(module: nn.Module) -> bool:
    """Whether `module` is a table of integer codes that are looked up by id."""
    return bool(getattr(module, "codes_are_table", False))


def _buffer_bytes(module: nn.Module) -> int:
    transient = module._non_persistent_buffers_set
    return sum(buffer.nbytes for name, buffer in module.named_buffers(recurse=False) if name not in transient)


def _num_codes(module: nn.Module) -> int:
    return int(getattr(module, "num_codes", 0))

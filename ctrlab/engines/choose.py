"""Which engine runs a model: the fast one on the CPU, torch's own elsewhere."""

from typing import Any

import torch
from torch import nn

from ctrlab.engines.fast.context import ComputeDtype
from ctrlab.engines.fast.engine import FastEngine, inference_twin
from ctrlab.engines.plain import TorchEngine, autocast_twin
from ctrlab.engines.protocol import Engine
from ctrlab.engines.settings import EngineSettings
from ctrlab.kernels.parts import Parts, in_one_part


def engine_for(model: nn.Module, settings: EngineSettings) -> Engine:
    """The engine that trains `model` where it is."""
    return FastEngine(model, settings) if device_of(model).type == "cpu" else TorchEngine(model, settings)


def predictor_of(model: nn.Module, *, compute_dtype: ComputeDtype = "float32", parts: Parts = in_one_part) -> Any:
    """A function that computes what `model` does in evaluation mode; the model itself is left as it is, mode included.

    Several threads may call it at once. Gradients are as the caller has them: wrap calls in `torch.no_grad`.
    """
    if device_of(model).type == "cpu":
        return inference_twin(model, compute_dtype=compute_dtype, parts=parts)
    return autocast_twin(model, low=compute_dtype == "bfloat16")


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter is; the CPU for a model without any."""
    parameter = next(model.parameters(), None)
    return parameter.device if parameter is not None else torch.device("cpu")

"""Compression of models trained in DeepCTR-Torch: the result works with its own `predict`, `evaluate` and `fit`.

from ctrlab.interop import deepctr_torch

result = deepctr_torch.compress(model, train_inputs, variance=0.95)
print(result.model.evaluate(test_inputs, test_labels))
result.model.fit(train_inputs, train_labels, epochs=5)  # fine-tuning by the framework
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ctrlab.anymodule import compress as compress_any
from ctrlab.anymodule import restore as restore_any
from ctrlab.anymodule.outside import OutsideModel
from ctrlab.compression.result import CompressionResult
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import DataError
from ctrlab.interop.replaced_parameters import (
    ReplacedParameters,
    check_methods,
    detached_attributes,
    optimizer_for,
    replaced_parameters,
)
from ctrlab.models.structure import Bottleneck

Array = np.ndarray[Any, Any]
Inputs = Mapping[str, Array] | Sequence[Array] | Array | Tensor

#: The auxiliary loss of the last step belongs to an autograd graph, which cannot be copied.
_DETACHED = ("optim", "regularization_weight", "aux_loss")


def compress(
    model: nn.Module,
    x: Inputs,
    *,
    variance: float | None = None,
    ranks: Mapping[str, int] | None = None,
    spectra: Mapping[str, LayerSpectrum] | None = None,
    filter_fn: Callable[[str, nn.Module], bool] | None = None,
    bottleneck: Bottleneck = "none",
    batch_size: int = 4096,
) -> CompressionResult[nn.Module]:
    """A copy of a DeepCTR-Torch model with low-rank layers and tables; the original is not changed.

    `result.model` is of the same class. Its optimizer and its `regularization_weight` hold the new parameters: an L2 penalty on a
    weight becomes one on both of its factors (not on means and biases).

    Args:
        model: a trained `deepctr_torch.models.basemodel.BaseModel`.
        x: calibration rows as `model.predict` takes them, {feature: array} or a list of arrays in the model's order, or the one
            matrix (rows, columns) that its `forward` takes.
        variance, ranks, spectra, filter_fn, bottleneck: as in `ctrlab.compress`. Layers have their qualified names, such as
            "embedding_dict.C1" or "dnn.linears.0".
        batch_size: rows per forward pass.

    Raises:
        DataError: `x` lacks columns of the model, or has an id beyond the rows of its table.
        CompressionError: `model` is not a DeepCTR-Torch model, or the plan does not fit it.
    """
    check_methods(model, "DeepCTR-Torch", ("predict", "get_regularization_loss", "input_from_feature_columns"))
    batches = batches_of(model, x, batch_size)
    with detached_attributes(model, _DETACHED):
        result = compress_any(
            model, batches, variance=variance, ranks=ranks, spectra=spectra, filter_fn=filter_fn, bottleneck=bottleneck
        )
    _rebuild(model, result.model)
    return result


def restore(model: nn.Module, path: str | Path) -> nn.Module:
    """The compressed DeepCTR-Torch model in a file that `CompressionResult.save` or the export of ctrlab wrote.

    Args:
        model: a model of the same class and settings, with any weights; not changed.

    Raises:
        CompressionError: `model` is not a DeepCTR-Torch model, or the file belongs to another architecture.
    """
    check_methods(model, "DeepCTR-Torch", ("predict", "get_regularization_loss", "input_from_feature_columns"))
    with detached_attributes(model, _DETACHED):
        compressed = restore_any(model, path)
    _rebuild(model, compressed)
    return compressed


def outside_model(model: nn.Module, x: Inputs, y: Any, batch_size: int = 4096) -> OutsideModel:
    """A DeepCTR-Torch model with rows and labels, for `Lab.register_deepctr_torch` or a function that `ctrlab register` calls.

    Args:
        model: a trained `deepctr_torch.models.basemodel.BaseModel`.
        x, y: what `model.evaluate` takes.
        batch_size: rows per batch; at least four batches are made, so that some only measure.

    Raises:
        DataError, CompressionError: as of `compress`.
    """
    check_methods(model, "DeepCTR-Torch", ("predict", "get_regularization_loss", "input_from_feature_columns"))
    clicks = np.asarray(y).reshape(-1)
    return OutsideModel(
        module=model, batches=batches_of(model, x, min(batch_size, max(1, len(clicks) // 4))), labels=clicks,
        detached=lambda own: detached_attributes(own, _DETACHED), restore=restore,
    )  # fmt: skip


def batches_of(model: nn.Module, x: Inputs, batch_size: int = 4096) -> list[Tensor]:
    """`x` as float32 matrices (rows, columns) on the model's device, as `forward` takes them: also for `ctrlab.spectra`."""
    framework: Any = model
    columns = list(framework.feature_index)
    if isinstance(x, Mapping):
        if missing := [name for name in columns if name not in x]:
            raise DataError(f"the inputs lack {', '.join(missing)}; the model takes {', '.join(columns)}")
        x = [x[name] for name in columns]
    if isinstance(x, Sequence):
        x = np.concatenate([np.asarray(part).reshape(len(part), -1) for part in x], axis=-1)
    matrix = torch.as_tensor(x)
    _check_columns(framework, matrix)
    return list(matrix.to(device=framework.device, dtype=torch.float32).split(batch_size))


def _check_columns(model: Any, matrix: Tensor) -> None:
    width = max(end for _, end in model.feature_index.values())
    if matrix.ndim != 2 or matrix.shape[1] != width:
        raise DataError(f"the inputs have shape {tuple(matrix.shape)}; the model takes (rows, {width})")
    for column in model.dnn_feature_columns:
        column = getattr(column, "sparsefeat", column)  # of a list-valued feature
        if hasattr(column, "vocabulary_size"):
            start, end = model.feature_index[column.name]
            highest, size = int(matrix[:, start:end].max()), column.vocabulary_size
            if highest >= size:
                raise DataError(
                    f"feature {column.name} holds id {highest}, its table has {size} rows; keep one id for values never seen"
                )


def _rebuild(model: nn.Module, compressed: Any) -> None:
    """In place: give the copy the detached attributes, over its own parameters."""
    state, replaced = vars(model), replaced_parameters(model, compressed)
    if "optim" in state:
        compressed.optim = optimizer_for(state["optim"], replaced)
    compressed.aux_loss = torch.zeros((1,), device=compressed.device)
    compressed.regularization_weight = [
        (_regularized(weights, replaced), l1, l2) for weights, l1, l2 in state["regularization_weight"]
    ]


def _regularized(weights: Sequence[Any], replaced: ReplacedParameters) -> list[nn.Parameter]:
    """The new parameters to penalise in place of `weights`, which are parameters or (name, parameter)."""
    found: dict[int, nn.Parameter] = {}
    for weight in weights:
        new = replaced[id(weight[1] if isinstance(weight, tuple) else weight)]
        found |= {id(parameter): parameter for parameter in new if len(new) == 1 or parameter.ndim > 1}
    return list(found.values())

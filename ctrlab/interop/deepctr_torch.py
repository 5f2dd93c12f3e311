"""Models trained in DeepCTR-Torch: `compress` gives back a model that its own `predict`, `evaluate` and `fit` accept.

from ctrlab.interop import deepctr_torch

result = deepctr_torch.compress(model, train_inputs, variance=0.95)
print(result.model.evaluate(test_inputs, test_labels))
result.model.fit(train_inputs, train_labels, epochs=5)  # fine-tuning by their code
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ctrlab.anymodule import CompressionResult
from ctrlab.anymodule import compress as compress_any
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import DataError
from ctrlab.interop.replaced_parameters import Heirs, check_methods, heirs_of, laid_aside, optimizer_for
from ctrlab.plans.configs import Bottleneck

Array = np.ndarray[Any, Any]
Inputs = Mapping[str, Array] | Sequence[Array] | Array | Tensor

#: The auxiliary loss of the last step belongs to a graph, which cannot be copied.
_LAID_ASIDE = ("optim", "regularization_weight", "aux_loss")


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
) -> CompressionResult:
    """A copy of a DeepCTR-Torch model with low-rank layers and tables; the original is not changed.

    `result.model` is of the same class. Its optimizer and its `regularization_weight` hold the new weights: where L2 was asked
    for a weight, it is now on both factors (not on means and biases).

    Args:
        model: a trained `deepctr_torch.models.basemodel.BaseModel`.
        x: calibration rows as `model.predict` takes them, {feature: array} or a list of arrays in the model's order, or the one
            matrix (rows, columns) that its `forward` takes.
        variance, ranks, spectra, filter_fn, bottleneck: as in `ctrlab.compress`. Layers are called by their qualified names, such
            as "embedding_dict.C1" or "dnn.linears.0".
        batch_size: rows a forward pass.

    Raises:
        DataError: `x` has not the model's columns, or an id that its table has no row for.
        CompressionError: `model` is not DeepCTR-Torch's, or the plan does not fit it.
    """
    check_methods(model, "DeepCTR-Torch", ("predict", "get_regularization_loss", "input_from_feature_columns"))
    batches = batches_of(model, x, batch_size)
    with laid_aside(model, _LAID_ASIDE):
        result = compress_any(
            model, batches, variance=variance, ranks=ranks, spectra=spectra, filter_fn=filter_fn, bottleneck=bottleneck
        )
    _rebuild(model, result.model)
    return result


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
    """Give the copy what was laid aside: over its own weights."""
    state, heirs = vars(model), heirs_of(model, compressed)
    if "optim" in state:
        compressed.optim = optimizer_for(state["optim"], heirs)
    compressed.aux_loss = torch.zeros((1,), device=compressed.device)
    compressed.regularization_weight = [
        (_regularized(weights, heirs), l1, l2) for weights, l1, l2 in state["regularization_weight"]
    ]


def _regularized(weights: Sequence[Any], heirs: Heirs) -> list[nn.Parameter]:
    """The weights to penalize in place of `weights`, which are parameters or (name, parameter)."""
    found: dict[int, nn.Parameter] = {}
    for weight in weights:
        now = heirs[id(weight[1] if isinstance(weight, tuple) else weight)]
        found |= {id(heir): heir for heir in now if len(now) == 1 or heir.ndim > 1}
    return list(found.values())

"""Compression of models trained in FuxiCTR: the result works with FuxiCTR's own `evaluate`, `predict` and `fit`.

from ctrlab.interop import fuxictr

result = fuxictr.compress(model, train_loader, variance=0.95)
print(result.model.evaluate(test_loader))
result.model.fit(train_loader, epochs=5, validation_data=valid_loader)  # fine-tuning by the framework
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ctrlab.anymodule import compress as compress_any
from ctrlab.anymodule import restore as restore_any
from ctrlab.anymodule.outside import OutsideModel
from ctrlab.compression.result import CompressionResult
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.interop.replaced_parameters import check_methods, detached_attributes, optimizer_for, replaced_parameters
from ctrlab.models.structure import Bottleneck

#: `fit` leaves the validation loader on the model, and copying it would copy the data.
_DETACHED = ("optimizer", "valid_gen")


def compress(
    model: nn.Module,
    loader: Iterable[Mapping[str, Tensor]],
    *,
    variance: float | None = None,
    ranks: Mapping[str, int] | None = None,
    spectra: Mapping[str, LayerSpectrum] | None = None,
    filter_fn: Callable[[str, nn.Module], bool] | None = None,
    bottleneck: Bottleneck = "none",
) -> CompressionResult[nn.Module]:
    """A copy of a FuxiCTR model with low-rank layers and tables; the original is not changed.

    `result.model` is of the same class. Its optimizer holds the new parameters at the old one's current learning rate;
    `result.model.compile(...)` sets another. Its `model_id` ends in "_compressed": `fit` saves the best epoch under that name and
    must not overwrite the original's checkpoint.

    Args:
        model: a trained `fuxictr.pytorch.models.BaseModel`.
        loader: what `model.fit` takes, or any list of its batches, with or without labels. Read once, for calibration.
        variance, ranks, spectra, filter_fn, bottleneck: as in `ctrlab.compress`. Layers have their qualified names, such as
            "embedding_layer.embedding_layer.embedding_layers.C1" or "mlp.mlp.0".

    Raises:
        CompressionError: `model` is not a FuxiCTR model, or the plan does not fit it.
    """
    check_methods(model, "FuxiCTR", ("evaluate", "train_step", "get_inputs"))
    with detached_attributes(model, _DETACHED):
        result = compress_any(
            model, loader, variance=variance, ranks=ranks, spectra=spectra, filter_fn=filter_fn, bottleneck=bottleneck
        )
    _rebuild(model, result.model)
    return result


def restore(model: nn.Module, path: str | Path) -> nn.Module:
    """The compressed FuxiCTR model in a file that `CompressionResult.save` or the export of ctrlab wrote.

    Args:
        model: a model of the same class and settings, with any weights; not changed.

    Raises:
        CompressionError: `model` is not a FuxiCTR model, or the file belongs to another architecture.
    """
    check_methods(model, "FuxiCTR", ("evaluate", "train_step", "get_inputs"))
    with detached_attributes(model, _DETACHED):
        compressed = restore_any(model, path)
    _rebuild(model, compressed)
    return compressed


def outside_model(model: nn.Module, loader: Iterable[Mapping[str, Tensor]]) -> OutsideModel:
    """A FuxiCTR model with the batches of a loader, for `Lab.register_fuxictr` or a function that `ctrlab register` calls.

    Args:
        model: a trained `fuxictr.pytorch.models.BaseModel`.
        loader: what `model.evaluate` takes; its labels are those that the model's feature map names.

    Raises:
        CompressionError: `model` is not a FuxiCTR model.
    """
    check_methods(model, "FuxiCTR", ("evaluate", "train_step", "get_inputs"))
    framework: Any = model
    batches = list(loader)
    label = framework.feature_map.labels[0]
    clicks = np.concatenate([np.asarray(batch[label]).reshape(-1) for batch in batches])
    return OutsideModel(
        module=model, batches=batches, labels=clicks, detached=lambda own: detached_attributes(own, _DETACHED), restore=restore
    )


def _rebuild(model: nn.Module, copy: nn.Module) -> None:
    """In place: an optimizer over the copy's own parameters, and a checkpoint of its own."""
    compressed: Any = copy
    if "optimizer" in vars(model):
        compressed.optimizer = optimizer_for(vars(model)["optimizer"], replaced_parameters(model, compressed))
    compressed.model_id = f"{compressed.model_id}_compressed"
    compressed.checkpoint = str(Path(compressed.checkpoint).with_name(f"{compressed.model_id}.model"))

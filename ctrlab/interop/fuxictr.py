"""Models trained in FuxiCTR: `compress` gives back a model that FuxiCTR's own `evaluate`, `predict` and `fit` accept.

from ctrlab.interop import fuxictr

result = fuxictr.compress(model, train_loader, variance=0.95)
print(result.model.evaluate(test_loader))
result.model.fit(train_loader, epochs=5, validation_data=valid_loader)  # fine-tuning by their code
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ctrlab.anymodule import CompressionResult
from ctrlab.anymodule import compress as compress_any
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.interop.replaced_parameters import check_methods, heirs_of, laid_aside, optimizer_for
from ctrlab.plans.configs import Bottleneck

#: `fit` leaves the validation loader on the model; a copy of it would be a copy of the data.
_LAID_ASIDE = ("optimizer", "valid_gen")


def compress(
    model: nn.Module,
    loader: Iterable[Mapping[str, Tensor]],
    *,
    variance: float | None = None,
    ranks: Mapping[str, int] | None = None,
    spectra: Mapping[str, LayerSpectrum] | None = None,
    filter_fn: Callable[[str, nn.Module], bool] | None = None,
    bottleneck: Bottleneck = "none",
) -> CompressionResult:
    """A copy of a FuxiCTR model with low-rank layers and tables; the original is not changed.

    `result.model` is of the same class. Its optimizer holds the new weights with the learning rate the old one had come down
    to; `result.model.compile(...)` chooses another. Its `model_id` ends in "_compressed", so that `fit`, which saves the best
    epoch, does not write over the checkpoint of the original.

    Args:
        model: a trained `fuxictr.pytorch.models.BaseModel`.
        loader: what `model.fit` takes, or any list of its batches; labels may be among the columns. Calibration reads it once.
        variance, ranks, spectra, filter_fn, bottleneck: as in `ctrlab.compress`. Layers are called by their qualified names,
            such as "embedding_layer.embedding_layer.embedding_layers.C1" or "mlp.mlp.0".

    Raises:
        CompressionError: `model` is not FuxiCTR's, or the plan does not fit it.
    """
    check_methods(model, "FuxiCTR", ("evaluate", "train_step", "get_inputs"))
    with laid_aside(model, _LAID_ASIDE):
        result = compress_any(
            model, loader, variance=variance, ranks=ranks, spectra=spectra, filter_fn=filter_fn, bottleneck=bottleneck
        )
    compressed: Any = result.model
    if "optimizer" in vars(model):
        compressed.optimizer = optimizer_for(vars(model)["optimizer"], heirs_of(model, compressed))
    compressed.model_id = f"{compressed.model_id}_compressed"
    compressed.checkpoint = str(Path(compressed.checkpoint).with_name(f"{compressed.model_id}.model"))
    return result

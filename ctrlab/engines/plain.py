"""The plain engine: torch's own layers and optimizers. What CUDA uses, what tests compare with, what others can extend."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctrlab.data.schema import Fields
from ctrlab.engines.optim import FitOptimizer, LazyAdam, OptimizerSteps, table_parameters
from ctrlab.engines.settings import EngineSettings
from ctrlab.engines.trees import copy_tree
from ctrlab.models.layers import LookupTable


class SparseLookupTable(LookupTable):
    """A table whose gradient holds the batch's rows alone."""

    def forward(self, ids: Tensor) -> Tensor:
        """ids (...,) integer -> rows (..., width)."""
        return functional.embedding(ids, self.weight, sparse=True)


class TorchEngine(OptimizerSteps):
    """Trains a model by torch alone, on any device; see `protocol.Engine`.

    Dense Adam moves every row of every table at every step. bfloat16 is torch's autocast.
    """

    def __init__(self, model: nn.Module, settings: EngineSettings) -> None:
        adam, lazy = settings.adam, settings.adam.optimizer == "lazy_adam"
        # A copy of the tree, for training mode is the engine's.
        self._model = copy_tree(model, {LookupTable: SparseLookupTable} if lazy else {}).train()
        by_rows = LazyAdam(table_parameters(model), lr=adam.learning_rate, l2=adam.l2_embedding) if lazy else None
        self.optimizer = FitOptimizer(model, adam, by_rows)
        self._device = next(model.parameters()).device.type
        self._low = settings.compute_dtype == "bfloat16"

    @property
    def choices(self) -> tuple[str, ...]:
        """Nothing is timed."""
        return ()

    def logits(self, fields: Fields) -> Tensor:
        """(B,)."""
        with torch.autocast(self._device, torch.bfloat16, enabled=self._low):
            return cast(Tensor, self._model(fields))

    def prefetch(self, current: Fields, following: Fields) -> None:
        """There is nothing to prepare."""

    def close(self) -> None:
        """There is nothing to give back."""


def autocast_twin(model: nn.Module, *, low: bool) -> Any:
    """Predicts as `model` in evaluation mode does, which is left as it is; `low`: in bfloat16 by torch's autocast."""
    twin, device = copy_tree(model).eval(), next(model.parameters()).device.type

    def predict(*inputs: Any) -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=low):
            return twin(*inputs)

    return predict

"""The fast engine of the CPU: compiled loops, both matrix libraries, dense Adam at the cost of the batch's rows."""

import functools
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ctrlab.data.schema import Fields
from ctrlab.engines.denormals import flushed_denormals
from ctrlab.engines.fast.adam import CompiledLazyAdam, DeferredAdam
from ctrlab.engines.fast.context import ComputeDtype, FastContext, Limits, compiled_for
from ctrlab.engines.fast.grouping import GroupingAhead, GroupingOnDemand
from ctrlab.engines.fast.twin import twin_of
from ctrlab.engines.memory import kept_memory
from ctrlab.engines.optim import FitOptimizer, LazyAdam, OptimizerSteps, table_parameters
from ctrlab.engines.products import Products
from ctrlab.engines.settings import EngineSettings
from ctrlab.engines.threads import ThreadParts
from ctrlab.engines.waiting import short_waits
from ctrlab.kernels.parts import Parts, in_one_part


class FastEngine(OptimizerSteps):
    """Trains a model on the CPU; see `protocol.Engine`.

    It owns its threads, and the settings of the process and of the calling thread that it changes until `close`.

    Args:
        products: takes the matrix products; by default as the settings say.
        limits: of fused operations.
    """

    def __init__(
        self, model: nn.Module, settings: EngineSettings, *, products: Products | None = None, limits: Limits | None = None
    ) -> None:
        with ExitStack() as resources:  # closed here only where something below raises
            resources.enter_context(flushed_denormals())  # Adam's decaying moments become denormal
            resources.enter_context(kept_memory())
            resources.enter_context(short_waits())
            parts = resources.enter_context(ThreadParts(torch.get_num_threads()))
            self._grouping = GroupingAhead()
            resources.callback(self._grouping.close)
            self._products = products or Products(settings.matrix_products, settings.choices)
            self._context = FastContext(parts, self._products, self._grouping, settings.compute_dtype, limits=limits or Limits())
            by_rows = self._by_rows(model, settings, parts)
            self._context.sparse = by_rows is not None
            self.optimizer = FitOptimizer(model, settings.adam, by_rows)
            self._twin = twin_of(model, self._context).train()
            self._resources = resources.pop_all()

    def _by_rows(self, model: nn.Module, settings: EngineSettings, parts: Parts) -> LazyAdam | None:
        adam, tables = settings.adam, table_parameters(model)
        if not all(map(compiled_for, tables)):
            return None
        if adam.optimizer == "lazy_adam":
            return CompiledLazyAdam(tables, lr=adam.learning_rate, l2=adam.l2_embedding, parts=parts)
        if adam.l2_embedding:
            return None
        deferred = DeferredAdam(tables, lr=adam.learning_rate, parts=parts)
        for weight in tables:
            self._context.before_reading[id(weight)] = functools.partial(deferred.apply_deferred, weight)
        return deferred

    @property
    def choices(self) -> tuple[str, ...]:
        """Which library takes which matrix product, where that was timed or given."""
        return self._products.choices

    def logits(self, fields: Fields) -> Tensor:
        """(B,)."""
        logits: Tensor = self._twin(fields)
        return logits

    def prefetch(self, current: Fields, following: Fields) -> None:
        """Group the next batch's ids while this one's gradients are computed."""
        self._grouping.prefetch(following.ids, like=current.ids)

    def close(self) -> None:
        """End all threads and put all settings back."""
        self._resources.close()


def inference_twin(model: nn.Module, *, compute_dtype: ComputeDtype = "float32", parts: Parts = in_one_part) -> Any:
    """Predicts as `model` in evaluation mode does, which is left as it is; several threads may call it at once.

    Args:
        compute_dtype: "bfloat16" for linear layers with 8 significant bits.
        parts: splits the compiled loops of one call.
    """
    return twin_of(model, FastContext(parts, Products(), GroupingOnDemand(), compute_dtype)).eval()

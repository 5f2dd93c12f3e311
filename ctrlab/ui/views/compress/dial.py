"""What the dial of the Compress page walks: the planner's front, or plans by variance until a sensitivity is measured."""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache as once

import numpy as np

from ctrlab.errors import CtrlabError
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.estimates import estimated_sensitivity, has_gradients
from ctrlab.plans.planner import planned_front
from ctrlab.plans.rank_problem import PlanOptions
from ctrlab.plans.ranks import plan_ranks
from ctrlab.services.workspace import Workspace
from ctrlab.ui import cache
from ctrlab.ui.components import rank_plan
from ctrlab.ui.views.compress.context import CompressContext, load_context

_ALIKE = "Walks plans that keep the same share of variance in every layer."
_BY_VARIANCE = f"{_ALIKE} Measure the sensitivity to walk those that lose least AUC."
_BY_ESTIMATE = (
    "Walks the plans that should lose least log loss for their size, by the gradients in the spectra. "
    "Measure the sensitivity to walk those that lose least AUC."
)
_BY_LOSS = "Walks the plans that lose least AUC for their size, by the measured sensitivity."
_PLANNING = f"{_ALIKE.rstrip('.')}, until those that lose least AUC are found."
#: Shares of variance lost, evenly spaced in their logarithm.
_LOST = tuple(np.geomspace(1e-4, 0.7, 48).tolist())


@dataclass(frozen=True)
class Walk:
    """Plans from dense to the smallest.

    stops: JSON list of plans as `rank_plan.encode` writes them. sentence: what they are. pending: whether better ones follow.
    """

    stops: str
    sentence: str
    pending: bool = False


def walk(context: CompressContext, sensitivity_id: str | None, spec: CompressionSpec) -> Walk:
    """The plans that the dial walks under `spec`, whose own plan must be empty; returns at once."""
    by_variance = _by_variance(context.workspace, context.model.id, context.spectra_id)
    if sensitivity_id is None and not has_gradients(context.profile, context.spectra):
        return Walk(by_variance, _BY_VARIANCE if context.abilities.allows("sensitivity") else _ALIKE)
    future = _front(context.workspace, context.model.id, context.spectra_id, sensitivity_id, spec)
    if not future.done():
        return Walk(by_variance, _PLANNING, pending=True)
    if isinstance(future.exception(), CtrlabError):
        return Walk(by_variance, _BY_VARIANCE)
    return Walk(future.result(), _BY_LOSS if sensitivity_id else _BY_ESTIMATE)


@cache.per_workspace(max_entries=16)
def _by_variance(workspace: Workspace, model_id: str, spectra_id: str) -> str:
    context = load_context(workspace, model_id, spectra_id)
    plans = (plan_ranks(context.profile, context.spectra, variance=1 - lost).as_dict() for lost in _LOST)
    return _stops(context, plans)


@cache.per_workspace(max_entries=32)
def _front(
    workspace: Workspace, model_id: str, spectra_id: str, sensitivity_id: str | None, spec: CompressionSpec
) -> "Future[str]":
    """The front by size in bytes, from a thread: it takes seconds. Without a sensitivity by that which gradients estimate."""
    context = load_context(workspace, model_id, spectra_id)
    known = cache.sensitivity(workspace, sensitivity_id) if sensitivity_id else None
    sensitivity = known or estimated_sensitivity(context.profile, context.spectra, spec)
    assert sensitivity is not None  # without an id the spectra have gradients

    def planned() -> str:
        options = PlanOptions(spec=spec, spectra=context.spectra)
        return _stops(context, (plan.plan.as_dict() for plan in planned_front(context.profile, sensitivity, "bytes", options)))

    return _threads().submit(planned)


@once
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="fronts")


def _stops(context: CompressContext, plans: Iterable[Mapping[str, int]]) -> str:
    """Dense, then these plans, each once; layers without a rank are dense."""
    dense = {layer.layer_name: layer.out_features for layer in context.layers}
    whole = [dense, *({name: plan.get(name, width) for name, width in dense.items()} for plan in plans)]
    return json.dumps(list(dict.fromkeys(rank_plan.encode(ranks, context.layers) for ranks in whole)))

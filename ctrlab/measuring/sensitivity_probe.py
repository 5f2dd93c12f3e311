"""Measuring sensitivity: each layer truncated alone, at a few ranks; `plans.sensitivity` reads the result."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from ctrlab.evaluation.prediction import never
from ctrlab.measuring.probe import Measurement, PlanProbe
from ctrlab.models.profile import LayerProfile
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.sensitivity import LayerSensitivity, Sensitivity

#: Weight of the full rank, which loses nothing by definition, against one measured rank in the monotone fit.
_CERTAIN = 1e6
#: Ranks of a table that are measured.
_TABLE_GRID = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)

OnProgress = Callable[[float, str], None]


def measure_sensitivity(
    probe: PlanProbe,
    *,
    layer_names: Sequence[str] | None = None,
    known: Mapping[str, LayerSensitivity] | None = None,
    on_layer: Callable[[Sensitivity], None] = lambda so_far: None,
    on_progress: OnProgress = lambda fraction, message: None,
    should_stop: Callable[[], bool] = never,
) -> Sensitivity:
    """Truncate each compressible layer alone to a few ranks and measure; one forward pass over the probe's rows for each.

    Args:
        layer_names: only these; all by default.
        known: layers that an earlier call, with the same model and rows, has measured already.
        on_layer: called with all that is known after each layer.

    Raises:
        JobCancelled: `should_stop()` was true.
    """
    chosen = [layer for layer in probe.profile.compressible if layer_names is None or layer.layer_name in layer_names]
    grids = {layer.layer_name: measured_ranks(layer) for layer in chosen}
    total, done = max(sum(map(len, grids.values())), 1), 0
    so_far = Sensitivity(
        log_loss=probe.original.log_loss, auc=probe.original.auc, split=probe.split, num_rows=probe.num_rows, layers={}
    )
    for layer in chosen:
        name = layer.layer_name
        measured = (known or {}).get(name)
        if measured is None:
            found = []
            for number, rank in enumerate(grids[name]):
                on_progress((done + number) / total, f"{name} at rank {rank}")
                found.append(probe.measure(CompressionSpec.of({name: rank}), should_stop=should_stop))
            measured = _layer_sensitivity(layer, grids[name], found, probe.original)
        done += len(grids[name])
        so_far = replace(so_far, layers={**so_far.layers, name: measured})
        on_layer(so_far)
    return so_far


def measured_ranks(layer: LayerProfile) -> tuple[int, ...]:
    """The ranks a layer is measured at: denser where ranks are small, the last the largest that still pays."""
    last = int(np.ceil(layer.break_even)) - 1
    if last < 1:
        return ()
    grid: Sequence[int] = _TABLE_GRID if layer.kind == "embedding" else [2**power for power in range(16)]
    return tuple(sorted({rank for rank in grid if rank < last} | {last}))


def _layer_sensitivity(
    layer: LayerProfile, ranks: tuple[int, ...], found: Sequence[Measurement], original: Measurement
) -> LayerSensitivity:
    return LayerSensitivity(
        layer_name=layer.layer_name,
        width=layer.out_features,
        auc_dense=original.auc,
        ranks=ranks,
        log_losses=tuple(one.log_loss for one in found),
        aucs=tuple(one.auc for one in found),
        log_loss_increases=monotone([one.log_loss - original.log_loss for one in found]),
        auc_losses=monotone([original.auc - one.auc for one in found]),
    )


def monotone(losses: Sequence[float]) -> tuple[float, ...]:
    """The nearest losses, in squared error, that never grow with the rank and end at 0 at full rank (isotonic regression)."""
    weights: NDArray[Any] = np.ones(len(losses) + 1)
    weights[-1] = _CERTAIN
    values = np.array([*losses, 0.0])
    fitted = isotonic_regression(values, weights=weights, increasing=False).x
    return tuple(float(value) for value in np.maximum(fitted[:-1] - fitted[-1], 0.0))

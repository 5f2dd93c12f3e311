"""Imports every figure, which registers all of them in `FIGURES`."""

from ctrlab.figures.cost import cost_bars, describe_cost_bars
from ctrlab.figures.fields import cardinalities, describe_cardinalities, describe_head_shares, head_shares
from ctrlab.figures.layer_map import describe_layer_map, layer_map
from ctrlab.figures.log_loss import describe_log_loss_rise, log_loss_rise
from ctrlab.figures.model_map import describe_model_map, model_map
from ctrlab.figures.planning import (
    describe_planned_front,
    describe_sensitivity_curve,
    describe_variance_against_accuracy,
    planned_front,
    sensitivity_curve,
    variance_against_accuracy,
)
from ctrlab.figures.registry import FIGURES, FigureEntry
from ctrlab.figures.segments import describe_segment_changes, segment_changes
from ctrlab.figures.spectrum import cumulative_variance, describe_cumulative_variance, describe_spectrum, spectrum
from ctrlab.figures.training import describe_training_curves, training_curves

__all__ = [
    "FIGURES",
    "FigureEntry",
    "cardinalities",
    "cost_bars",
    "cumulative_variance",
    "describe_cardinalities",
    "describe_cost_bars",
    "describe_cumulative_variance",
    "describe_head_shares",
    "describe_layer_map",
    "describe_log_loss_rise",
    "describe_model_map",
    "describe_planned_front",
    "describe_segment_changes",
    "describe_sensitivity_curve",
    "describe_spectrum",
    "describe_training_curves",
    "describe_variance_against_accuracy",
    "head_shares",
    "layer_map",
    "log_loss_rise",
    "model_map",
    "planned_front",
    "segment_changes",
    "sensitivity_curve",
    "spectrum",
    "training_curves",
    "variance_against_accuracy",
]

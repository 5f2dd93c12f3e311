"""The `evaluate` job: accuracy and size of every model's serving form, then the speeds of all of them and of their originals."""

from collections.abc import Sequence
from typing import Any

from ctrlab.services.comparison import EvaluateConfig
from ctrlab.services.handlers import JobContext
from ctrlab.services.timing import TimeConfig
from ctrlab.services.work.accuracy import evaluate_and_file
from ctrlab.services.work.timing import evaluate_missing, time_and_file, with_original
from ctrlab.storage import Artifact

#: The share of a measurement's time after which the models are timed.
_TIMING_FROM = 0.5


def run(config: EvaluateConfig, context: JobContext) -> dict[str, Any]:
    """Measure each model and file one evaluation a model; time them together."""
    evaluations = measure_and_file(context, config.model_ids, config=config)
    return {"evaluations": [evaluation.id for evaluation in evaluations]}


def measure_and_file(
    context: JobContext, model_ids: Sequence[str], *, config: EvaluateConfig | None = None, start: float = 0.0
) -> list[Artifact]:
    """New evaluations of the models, and one timing of them and their originals, which are evaluated if they never were.

    start: the job's progress so far.
    """
    config = config or EvaluateConfig(model_ids=tuple(model_ids))
    evaluations, share = [], (1 - start) * _TIMING_FROM
    together = with_original(context, model_ids)
    evaluate_missing(context, [model_id for model_id in together if model_id not in model_ids], start)
    for number, model_id in enumerate(model_ids):
        context.stop_if_requested()
        context.report(start + share * number / len(model_ids), f"measuring model {number + 1} of {len(model_ids)}")
        evaluations.append(evaluate_and_file(context, model_id, config))
    time_and_file(
        context,
        TimeConfig(
            model_ids=together, batch_sizes=config.batch_sizes,
            seconds_per_timing=config.seconds_per_timing, threads=config.threads,
        ),
        part=(start + share, 1.0),
    )  # fmt: skip
    return evaluations

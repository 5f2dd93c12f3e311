"""The `time` job: models in their serving forms, interleaved, in groups that fit in memory."""

from collections.abc import Iterator, Sequence
from typing import Any

from ctrlab.evaluation.latency import Contender, time_together
from ctrlab.services.comparison import latest_evaluation
from ctrlab.services.handlers import JobContext
from ctrlab.services.models import ONNX_FILE, original_of, role_of
from ctrlab.services.outside import abilities
from ctrlab.services.timing import TimeConfig
from ctrlab.services.work.accuracy import evaluate_and_file
from ctrlab.services.work.shared import open_serving
from ctrlab.services.work.speed import processor
from ctrlab.storage import Artifact, NewArtifact

#: Bytes of the serving forms that are loaded at once; each is in memory about three times.
GROUP_BYTES = 1 << 30


def run(config: TimeConfig, context: JobContext) -> dict[str, Any]:
    """Time all models, in groups of one dataset; every group has the first original of that dataset in it."""
    return {"timings": [timing.id for timing in time_and_file(context, config)]}


def time_and_file(context: JobContext, config: TimeConfig, *, part: tuple[float, float] = (0.0, 1.0)) -> list[Artifact]:
    """Time models together and file one timing a group; those without an evaluation are evaluated first.

    Those that cannot be timed are left out.

    part: where the job's progress begins and ends.
    """
    found = [context.workspace.store.artifacts.get(model_id) for model_id in dict.fromkeys(config.model_ids)]
    models = [model for model in found if abilities(context.workspace, model).allows("time")]
    if not models:
        return []
    evaluate_missing(context, [model.id for model in models], part[0])
    groups = list(_groups(models))
    start, share = part[0], (part[1] - part[0]) / len(groups)
    return [_time_group(context, config, group, start + share * number, share) for number, group in enumerate(groups)]


def evaluate_missing(context: JobContext, model_ids: Sequence[str], progress: float) -> None:
    """Evaluate those of the models that never were, for their ONNX files."""
    for model_id in model_ids:
        if latest_evaluation(context.workspace, model_id) is None:
            context.report(progress, f"measuring {context.workspace.store.artifacts.get(model_id).name}")
            evaluate_and_file(context, model_id)


def with_original(context: JobContext, model_ids: Sequence[str]) -> tuple[str, ...]:
    """The models, and the originals that they came from, so that each has a ratio to its own."""
    store = context.workspace.store.artifacts
    originals = [original_of(context.workspace, store.get(model_id)).id for model_id in model_ids]
    return tuple(dict.fromkeys([*originals, *model_ids]))


def _groups(models: Sequence[Artifact]) -> Iterator[list[Artifact]]:
    """Models of one dataset that fit in memory together, each group with its reference first."""
    for dataset_id in dict.fromkeys(model.config["dataset_id"] for model in models):
        own = [model for model in models if model.config["dataset_id"] == dataset_id]
        reference = next((model for model in own if role_of(model) == "original"), own[0])
        group, size = [reference], _bytes(reference)
        for model in own:
            if model.id == reference.id:
                continue
            if len(group) > 1 and size + _bytes(model) > GROUP_BYTES:
                yield group
                group, size = [reference], _bytes(reference)
            group, size = [*group, model], size + _bytes(model)
        yield group


def _bytes(model: Artifact) -> int:
    cost = model.summary["cost_serving"]
    return int(cost["bytes_tables"] + cost["bytes_dense"])


def _time_group(context: JobContext, config: TimeConfig, group: Sequence[Artifact], start: float, share: float) -> Artifact:
    contenders = {}
    for model in group:
        _, serving, dataset = open_serving(context.workspace, model.id)
        evaluation = latest_evaluation(context.workspace, model.id)
        contenders[model.id] = Contender(model=serving, onnx_file=evaluation.path / ONNX_FILE if evaluation else None)
    names = ", ".join(model.name for model in group)

    def on_progress(fraction: float) -> None:
        context.report(start + share * fraction, f"timing {names} in turns")

    on_progress(0.0)
    found = time_together(
        contenders, dataset.split("test" if "test" in dataset.splits else "valid"), config.batch_sizes, threads=config.threads,
        seconds=config.seconds_per_timing, should_stop=context.should_stop, on_progress=on_progress,
    )  # fmt: skip
    latency = {
        runtime: {model_id: {str(size): one.to_dict() for size, one in sizes.items()} for model_id, sizes in by_model.items()}
        for runtime, by_model in found.items()
    }
    return context.add_artifact(
        NewArtifact(
            "timing",
            f"Timing of {names}"[:200],
            parents=[model.id for model in group],
            config=config.to_dict(),
            summary={"latency": latency, "machine": processor()},
        ),
        key=f"timing of {' '.join(sorted(contenders))}",
    )

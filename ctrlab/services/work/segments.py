"""The `segments` job: torch-free sums over scores that evaluations stored."""

import json
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrlab.data.dataset import EncodedDataset, Split
from ctrlab.data.encoding.decode import texts_of_ids
from ctrlab.errors import CtrlabError
from ctrlab.evaluation.segments import SegmentChange, moved_rows, probabilities, segment_changes, segment_name, segments_of
from ctrlab.services.comparison import LOGITS_FILE, latest_evaluation
from ctrlab.services.handlers import JobContext
from ctrlab.services.models import require_models
from ctrlab.services.segments import ROWS_FILE, SEGMENTS_FILE, SegmentsConfig
from ctrlab.services.work.shared import open_dataset, stage_folder
from ctrlab.services.workspace import Workspace
from ctrlab.storage import NewArtifact


def run(config: SegmentsConfig, context: JobContext) -> dict[str, str]:
    """Compare the stored scores of two models by segment and by row."""
    model, reference = require_models(context.workspace, [config.model_id, config.reference_id])
    dataset = open_dataset(context.workspace, model.config["dataset_id"])
    name, logits = _scores(context.workspace, model.id)
    _, theirs = _scores(context.workspace, reference.id)
    split = dataset.split(name)

    def on_progress(done: float) -> None:
        context.stop_if_requested()
        context.report(0.95 * done, "comparing segments")

    segments = segments_of(split.ids, dataset.schema.field_names, dataset.counts, theirs)
    changes, left_out = segment_changes(split.targets(), logits, theirs, segments, on_progress)
    context.report(0.95, "reading the values of fields")
    rows = moved_rows(logits, theirs, config.rows)
    texts = texts_of_ids(dataset.path, _wanted(changes, split, rows, dataset))
    folder = stage_folder(context, "segments")
    named = [change.to_dict() | {"segment": segment_name(change.segment, texts), "kind": change.segment.kind,
                                 "field": change.segment.field} for change in changes]  # fmt: skip
    _write(folder / SEGMENTS_FILE, named)
    _write(folder / ROWS_FILE, _rows(split, rows, logits, theirs, texts, dataset))
    summary = {"split": name, "num_segments": len(changes), "left_out": left_out}
    filed = context.add_artifact(
        NewArtifact(
            "segments",
            f"Segments of {model.name}"[:200],
            parents=[model.id, reference.id],
            config=config.to_dict(),
            summary=summary,
            files_from=folder,
        )
    )
    return {"segments": filed.id}


def _scores(workspace: Workspace, model_id: str) -> tuple[str, NDArray[np.float32]]:
    """(split, its logits) of a model's newest evaluation."""
    evaluation = latest_evaluation(workspace, model_id)
    if evaluation is None:
        raise CtrlabError(f"{model_id} is no longer measured; measure it again")
    return evaluation.summary["split"], np.load(evaluation.path / LOGITS_FILE)


def _wanted(changes: list[SegmentChange], split: Split, rows: NDArray[np.intp], dataset: EncodedDataset) -> dict[str, list[int]]:
    """The ids that are shown, by field."""
    wanted: dict[str, set[int]] = defaultdict(set)
    for change in changes:
        if change.segment.kind == "value":
            wanted[change.segment.field].add(change.segment.value)
    for number, name in enumerate(dataset.schema.field_names):
        wanted[name] |= {int(value) for value in split.ids[rows, number]}
    return {name: sorted(ids) for name, ids in wanted.items()}


def _rows(
    split: Split, rows: NDArray[np.intp], logits: NDArray[Any], reference: NDArray[Any], texts: dict[tuple[str, int], str],
    dataset: EncodedDataset,
) -> list[dict[str, Any]]:  # fmt: skip
    before, after = probabilities(reference[rows]), probabilities(logits[rows])
    return [
        {"row": int(row), "click": float(split.labels[row]), "before": float(old), "after": float(new)}
        | {name: texts[name, int(split.ids[row, number])] for number, name in enumerate(dataset.schema.field_names)}
        for row, old, new in zip(rows, before, after, strict=True)
    ]


def _write(path: Any, value: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")

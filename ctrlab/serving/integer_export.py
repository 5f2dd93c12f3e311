"""Export of a model to ONNX with integer products, checked row by row against its float form."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ctrlab.data.dataset import Split
from ctrlab.evaluation.delong import Interval, auc_difference
from ctrlab.evaluation.metrics import sigmoid
from ctrlab.models.base import CTRModel
from ctrlab.serving.graph import Array, Graph, save
from ctrlab.serving.integers import EVERYWHERE, linear_layers, to_integers
from ctrlab.serving.onnx_export import export_onnx

#: Rows of the calibration, and of the check.
CALIBRATION_ROWS = 8192
CHECK_ROWS = 65_536
_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the integer form may change: a row's probability at most, and the AUC, of which the interval's low end counts."""

    probability: float = 0.05
    auc_loss: float = 0.0005


@dataclass(frozen=True, kw_only=True)
class IntegerForm:
    """What became of an integer form.

    refused: why there is none; "" where one was written. layers: linear layers that multiply integers.
    tables: "codes" or "float". rows: those of the check. largest_change, mean_change: of a row's probability against the float
    form. auc_change: of the AUC, with its interval; None on rows of one class. bytes, float_bytes: of the files.
    """

    refused: str = ""
    layers: int = 0
    tables: str = "float"
    rows: int = 0
    largest_change: float = 0.0
    mean_change: float = 0.0
    auc_change: Interval | None = None
    bytes: int = 0
    float_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def export_integers(
    model: CTRModel,
    path: str | Path,
    calibration: Split,
    check: Split,
    *,
    limits: Limits | None = None,
    limit: int = EVERYWHERE,
    float_file: Path | None = None,
) -> IntegerForm:
    """Write a float serving form as an ONNX file that multiplies integers, where it answers as the float form does.

    Two forms are tried: tables and layers in integers, then layers alone. The first within the limits is written; none otherwise.

    Args:
        model: a serving form with float weights.
        calibration: rows of which the ranges are taken, of the training rows.
        check: rows on which both forms are compared, which the calibration did not see.
        limits: what may change.
        limit: greatest weight (`integers.EVERYWHERE` or `integers.WITH_VNNI`).
        float_file: where the float form is written as well.

    Raises:
        StorageError: the file cannot be written.
        DataError: a split has no rows.
    """
    path, limits = Path(path), limits or Limits()
    if model.reads_lists:
        return IntegerForm(refused="it reads lists, whose look-ups have no integer form; serve the float form")
    with tempfile.TemporaryDirectory() as folder:
        float_file = float_file or Path(folder) / "float.onnx"
        export_onnx(model, float_file)
        float_bytes = float_file.stat().st_size
        weights = [module.weight.detach().cpu().numpy() for module in model.modules() if isinstance(module, nn.Linear)]
        feeds, rows = _feeds(calibration, CALIBRATION_ROWS), _feeds(check, CHECK_ROWS)
        expected = _logits(Graph.load(float_file), rows)
        tried = []
        for code_tables in (True, False):
            graph = Graph.load(float_file)
            layers = linear_layers(graph, weights, feeds)
            if not layers:
                return IntegerForm(
                    refused="it has no linear layer that is worth multiplying in integers; serve the float form",
                    float_bytes=float_bytes,
                )
            to_integers(graph, layers, feeds, limit=limit, code_tables=code_tables)
            found = _compared(graph, expected, rows, check.targets()[: len(expected)], limits)
            tables = "codes" if code_tables else "float"
            tried.append(IntegerForm(**{**vars(found), "layers": len(layers), "tables": tables, "float_bytes": float_bytes}))
            if not tried[-1].refused:
                path.parent.mkdir(parents=True, exist_ok=True)
                save(graph.to_model(), path)
                return IntegerForm(**{**vars(tried[-1]), "bytes": path.stat().st_size})
    return min(tried, key=lambda form: form.largest_change)


def _feeds(split: Split, most: int) -> dict[str, Array]:
    """The first rows of a split as inputs of a session."""
    fields = split.fields(slice(0, min(most, len(split))))
    return {name: np.asarray(part) for name, part in fields._asdict().items()}


def _logits(graph: Graph, rows: Mapping[str, Array]) -> NDArray[np.float32]:
    run, count = graph.runner(["logits"]), len(rows["ids"])
    parts = [slice(start, start + _BATCH) for start in range(0, count, _BATCH)]
    return np.concatenate([run({name: own[part] for name, own in rows.items()})["logits"] for part in parts])


def _compared(graph: Graph, expected: Array, rows: Mapping[str, Array], targets: Array, limits: Limits) -> IntegerForm:
    """The change against the float form, and whether it is too much."""
    logits = _logits(graph, rows)
    changes = np.abs(sigmoid(logits) - sigmoid(expected))
    clicks = targets if targets.ndim == 1 else targets[:, 0]
    both = clicks.sum() > 0 and (targets.ndim > 1 or clicks.sum() < len(clicks))
    change = auc_difference(targets, logits, expected) if both else None
    form = IntegerForm(
        rows=len(expected), largest_change=float(changes.max()), mean_change=float(changes.mean()), auc_change=change
    )
    return IntegerForm(**{**vars(form), "refused": _refusal(form, limits)})


def _refusal(form: IntegerForm, limits: Limits) -> str:
    if not form.largest_change <= limits.probability:
        return (
            f"a row's probability changes by {form.largest_change:.4f}, and at most {limits.probability:g} is allowed; "
            "serve the float form"
        )
    change = form.auc_change
    if change is not None and change.low < -limits.auc_loss:
        return (
            f"an AUC loss above {limits.auc_loss:g} cannot be excluded: {change.estimate:+.4f} (95 % {change.low:+.4f} to "
            f"{change.high:+.4f}) on {form.rows} rows; serve the float form, or check on more rows"
        )
    return ""

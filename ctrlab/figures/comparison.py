"""Figures that compare models: AUC against size, and throughput by batch size."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ctrlab.figures.registry import FIGURES
from ctrlab.figures.text import count, plural
from ctrlab.figures.text import size as size_text
from ctrlab.figures.theme import GREY, KIND_ROLES, THRESHOLD, axis, figure, light, line, marker
from ctrlab.plans.budgets import BUDGET_KINDS

#: Characters of a label, and the room of one as shares of the plot.
_LABEL_LENGTH, _LABEL_WIDTH, _LABEL_HEIGHT = 28, 0.5, 0.08
_RUNTIMES = {"torch": "PyTorch", "onnx": "ONNX"}


def describe_auc_size_scatter(table: pd.DataFrame, *, size: str = "parameters") -> str:
    """Caption: the Pareto-optimal models in AUC and size."""
    measured = table[table["auc"].notna()]
    if measured.empty:
        return "No model has been measured yet."
    best = measured[measured["on_front"]].sort_values(size)
    names = ", ".join(f"{row['name']} ({_size(row[size], size)}, AUC {row['auc']:.4f})" for _, row in best.iterrows())
    return f"Of {plural(len(measured), 'measured model')}, not dominated in AUC and size: {names}."


def _size(value: float, key: str) -> str:
    return size_text(value) if key == "bytes" else count(value)


@FIGURES.register(title="AUC against size", describe=describe_auc_size_scatter)
def auc_size_scatter(table: pd.DataFrame, *, size: str = "parameters") -> go.Figure:
    """AUC against size on a log axis, a marker a model; the Pareto front is ringed and joined by a step line.

    Args:
        table: columns name, kind, auc, on_front (bool) and `size`; rows without an AUC are left out.
        size: "parameters", "bytes" or "macs".
    """
    measured = table[table["auc"].notna()]
    front = measured[measured["on_front"]].sort_values(size)
    traces: list[dict[str, object]] = [
        {
            "type": "scatter", "mode": "lines", "x": light(front[size]), "y": front["auc"].to_numpy(), "name": "Pareto front",
            "line": {**line(THRESHOLD, 1.4), "shape": "hv"}, "hoverinfo": "skip",
        }
    ]  # fmt: skip
    named = _labelled(measured, size)
    traces += [_models(str(kind), rows, size, measured[size], named) for kind, rows in measured.groupby("kind", sort=False)]
    return figure(
        traces,
        name=f"auc-{size}",
        height=340,
        x=axis(
            BUDGET_KINDS[size].unit, type="log", range=_log_range(measured[size].to_numpy(float)), tickformat="~s", dtick="D2"
        ),
        y=axis("AUC", range=_auc_range(measured["auc"].to_numpy(float)), tickformat=".4f"),
    )


def _labelled(table: pd.DataFrame, size: str) -> set[object]:
    """Index labels of the models that get their name: front first, and none whose name would be printed over another's."""
    places: list[tuple[float, float]] = []
    named: set[object] = set()
    x, y = np.log10(table[size].to_numpy(float)), table["auc"].to_numpy(float)
    (left, right), (low, high) = _log_range(table[size].to_numpy(float)), _auc_range(y)
    for number in np.argsort(~table["on_front"].to_numpy(bool), kind="stable"):
        place = ((x[number] - left) / (right - left), (y[number] - low) / (high - low))
        if all(abs(place[0] - other[0]) > _LABEL_WIDTH or abs(place[1] - other[1]) > _LABEL_HEIGHT for other in places):
            places.append(place)
            named.add(table.index[number])
    return named


def _models(kind: str, rows: pd.DataFrame, size: str, all_sizes: pd.Series, named: set[object]) -> dict[str, object]:
    """The trace of the models of one kind, some of them labelled; models on the Pareto front are ringed."""
    return {
        "type": "scatter", "mode": "markers+text", "name": kind.replace("_", " "),
        "x": light(rows[size]), "y": rows["auc"].to_numpy(),
        "text": [_shortened(name) if index in named else "" for index, name in rows["name"].items()],
        "hovertext": rows["name"].tolist(), "textfont": {"size": 11}, "cliponaxis": False,
        "textposition": [_label_side(value, all_sizes) for value in rows[size]],
        "marker": marker(KIND_ROLES[kind], 13) | {"line": {"width": np.where(rows["on_front"], 2.0, 0.0), "color": GREY}},
        "hovertemplate": f"%{{hovertext}}<br>AUC %{{y:.4f}}<br>%{{x:.3s}} {BUDGET_KINDS[size].unit}<extra></extra>",
    }  # fmt: skip


def _shortened(name: str) -> str:
    return name if len(name) <= _LABEL_LENGTH else f"{name[: _LABEL_LENGTH - 1]}\N{HORIZONTAL ELLIPSIS}"


def _label_side(value: float, values: pd.Series) -> str:
    """Text position that keeps the labels inside the plot: right of markers in the left half, else left."""
    middle = np.sqrt(values.min() * values.max())
    return "top right" if value <= middle else "top left"


def _log_range(values: np.ndarray) -> list[float]:
    if not len(values):
        return [3.0, 6.0]
    low, high = np.log10(values.min()), np.log10(values.max())
    air = max(0.12, 0.12 * (high - low))
    return [low - air, high + air]


def _auc_range(values: np.ndarray) -> list[float]:
    """Axis range of at least 0.004, so that differences below the noise stay small in the picture."""
    if not len(values):
        return [0.5, 1.0]
    middle, half = (values.min() + values.max()) / 2, max(0.002, 0.7 * (values.max() - values.min()))
    return [middle - half, middle + half]


def describe_latency_bars(table: pd.DataFrame, *, batch_sizes: tuple[int, ...] = (1, 256, 4096)) -> str:
    """Caption: the fastest model and runtime at the largest batch size."""
    columns = [f"{runtime}_rows_per_second_{batch_sizes[-1]}" for runtime in _RUNTIMES]
    values = table[columns].to_numpy(float)
    if np.isnan(values).all():
        return "No speed has been measured yet."
    row, column = np.unravel_index(np.nanargmax(values), values.shape)
    return (
        f"Fastest at batch {batch_sizes[-1]}: {table['name'].iloc[row]} in {list(_RUNTIMES.values())[column]}, "
        f"{count(values[row, column])} rows/s."
    )


@FIGURES.register(title="Throughput by batch size", describe=describe_latency_bars)
def latency_bars(table: pd.DataFrame, *, batch_sizes: tuple[int, ...] = (1, 256, 4096)) -> go.Figure:
    """Rows per second on a log axis: one group a batch size and runtime, one bar a model (hatched for ONNX Runtime).

    Args:
        table: a comparison table: name, kind and `{torch,onnx}_rows_per_second_<batch>`; NaN leaves a gap.
        batch_sizes: of the groups, left to right.
    """
    groups = [[f"batch {batch}" for batch in batch_sizes for _ in _RUNTIMES], list(_RUNTIMES.values()) * len(batch_sizes)]
    traces = [_bars(row, number, groups, batch_sizes, labels=len(table) == 1) for number, (_, row) in enumerate(table.iterrows())]
    return figure(
        traces,
        name="latency",
        height=340,
        x={"type": "multicategory", "automargin": True, "tickangle": 0, "tickfont": {"size": 10}},
        y=axis("rows per second", type="log", tickformat="~s", dtick="D2", range=_rate_range(table, batch_sizes)),
        barmode="group",
        bargap=0.22,
    )


def _bars(
    row: pd.Series, number: int, groups: list[list[str]], batch_sizes: tuple[int, ...], *, labels: bool
) -> dict[str, object]:
    values = [row[f"{runtime}_rows_per_second_{batch}"] for batch in batch_sizes for runtime in _RUNTIMES]
    hatch = {
        "shape": ["", "/"] * len(batch_sizes),
        "fillmode": "overlay",
        "fgcolor": "rgba(255,255,255,0.6)",
        "size": 6,
        "solidity": 0.3,
    }
    return {
        "type": "bar", "name": row["name"], "x": groups, "y": light(values),
        "text": [count(value) if labels and value == value else "" for value in values],
        "textposition": "outside", "cliponaxis": False,
        "textfont": {"size": 10}, "textangle": 0,
        "marker": {"color": KIND_ROLES[row["kind"]].color, "opacity": max(0.45, 1 - 0.18 * (number // 2)), "pattern": hatch},
        "hovertemplate": f"{row['name']}, %{{x}}: %{{y:.3s}} rows/s<extra></extra>",
    }  # fmt: skip


def _rate_range(table: pd.DataFrame, batch_sizes: tuple[int, ...]) -> list[float]:
    values = table[[f"{runtime}_rows_per_second_{batch}" for runtime in _RUNTIMES for batch in batch_sizes]].to_numpy(float)
    if np.isnan(values).all():
        return [2.0, 6.0]
    return [np.floor(np.log10(np.nanmin(values))) - 0.3, np.log10(np.nanmax(values)) + 0.25]

"""The Compare page: accuracy, size and speed of the original beside its compressed versions."""

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from ctrlab.errors import CtrlabError
from ctrlab.plans.budgets import BUDGET_KINDS
from ctrlab.reports.comparison import LATENCY_BATCH_SIZES, pareto_mask
from ctrlab.reports.verdict import verdict
from ctrlab.services import comparison as service
from ctrlab.services import controls, jobs, models
from ctrlab.services.compared import compared_models
from ctrlab.services.compression import CompressJobConfig
from ctrlab.services.models import role_of
from ctrlab.services.settings_difference import config_difference
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact, Job
from ctrlab.ui import address, cache, format, state
from ctrlab.ui.components.artifact_picker import unique_labels
from ctrlab.ui.components.downloads import download_table
from ctrlab.ui.components.explain import explain
from ctrlab.ui.components.figure import figure
from ctrlab.ui.components.paper_claims import paper_claims
from ctrlab.ui.components.task import task
from ctrlab.ui.feedback import empty, escape, show_doubts
from ctrlab.ui.navigation import PAGES

if TYPE_CHECKING:
    import pandas as pd

_STYLE = Path(__file__).parents[1] / "assets" / "compare.css"
_MODELS = "models"
#: The job of a compression whose controls are added as they end.
_RUN = "run"
_POLL_SECONDS = 1.0
#: The space between a number and its unit, where no line may end.
_UNBROKEN, _NBSP = re.compile(r"(?<=\d) (?=(?:[kMG%]|[kMG]?B)\b|%)"), "\N{NO-BREAK SPACE}"
_RUNTIMES = {"torch": "PyTorch", "onnx": "ONNX Runtime"}
#: The kinds of cost that the scatter can have on its axis.
_SIZES = ("parameters", "bytes", "macs")


@dataclass(frozen=True)
class _Line:
    """One line of the table. better: +1 if higher is better, -1 if lower is better, 0 if neither."""

    title: str
    column: str
    write: Callable[[float], str]
    better: int = 0
    unit: str = ""


def render() -> None:
    """The page."""
    workspace, selection = cache.workspace(), state.current()
    known = models.list_models(workspace, selection.dataset)
    if not known:
        empty(
            "Nothing to compare yet",
            "Train a model, or open the sample; its compressed versions are compared with it here.",
            "Model",
            "Choose a model",
        )
        return
    st.html(_STYLE)
    arms = _arms(workspace)
    chosen = _choice(workspace, known, selection, _arrived(arms, known))
    _pending(arms)
    if not chosen:
        st.info("Choose at least one model.", icon=":material/info:")
        return
    table = compared_models(workspace, chosen)
    if len(table) == 1 and selection.model is not None:
        _only_one()
    _verdict(table)
    _measure(workspace, table)
    left, right = st.columns([5, 4], gap="large")
    with left:
        _numbers(table)
    with right:
        _charts(table)
    paper_claims(table)
    _difference(workspace, table)


# -- Which models ---------------------------------------------------------------------------------------------------------------


def _arms(workspace: Workspace) -> list[Job]:
    """Jobs of the run in the address and of its controls."""
    try:
        job = workspace.store.jobs.get(st.query_params.get(_RUN, ""))
    except CtrlabError:
        return []
    return controls.arms_of(workspace, CompressJobConfig.from_dict(job.config)) if job.kind == "compress" else []


def _arrived(arms: Sequence[Job], known: Sequence[Artifact]) -> list[str]:
    """Models of the run that this session has not added to the choice yet; once all are there, the run leaves the address."""
    ids = {model.id for model in known}
    added = st.session_state.setdefault(f"{_RUN}:{st.query_params.get(_RUN, '')}", set())
    made = [job.result["model"] for job in arms if job.state == "succeeded"]
    arrived = [model_id for model_id in made if model_id in ids - added]
    added |= set(arrived)
    if _RUN in st.query_params and not any(job.active for job in arms) and ids >= set(made):
        del st.query_params[_RUN]
    return arrived


def _pending(arms: Sequence[Job]) -> None:
    """What is still to come, live; the sidebar runs the page again when a job ends."""
    waiting = [job for job in arms if job.active]
    if waiting:
        st.fragment(_waiting, run_every=_POLL_SECONDS)([job.id for job in waiting])


def _waiting(job_ids: list[str]) -> None:
    lines = []
    for job in (jobs.get_job(cache.workspace(), job_id) for job_id in job_ids):
        state_now = f"{100 * job.progress:.0f} %" if job.state == "running" else "waiting" if job.active else job.state
        lines.append(f"{escape(job.config.get('name') or job.title)}: {state_now}")
    with st.container(border=True, key="pending"):
        st.markdown("**Its controls are added here as they end.**  \n" + "  \n".join(lines))


def _choice(workspace: Workspace, known: Sequence[Artifact], selection: state.Selection, arrived: Sequence[str]) -> list[str]:
    """Ids of the chosen models: those in the URL, else the selected model's original and all models derived from it.

    Args:
        arrived: models that are added to the choice.
    """
    by_id = {model.id: model for model in known}
    key = f"compare:{selection.dataset}"
    linked = [model_id for model_id in st.query_params.get(_MODELS, "").split(",") if model_id in by_id]
    if key not in st.session_state:
        st.session_state[key] = linked or _family(workspace, known, selection)
    elif linked and st.session_state.get("compare-link") != st.query_params[_MODELS]:
        st.session_state[key] = linked  # a link was followed within this session
    wanted = dict.fromkeys([*st.session_state[key], *arrived])
    st.session_state[key] = [model_id for model_id in wanted if model_id in by_id]
    names = unique_labels(known)
    chosen: list[str] = st.multiselect("Models", list(by_id), key=key, format_func=names.__getitem__, placeholder="Choose models")
    st.query_params[_MODELS] = st.session_state["compare-link"] = ",".join(chosen)
    return chosen


def _family(workspace: Workspace, known: Sequence[Artifact], selection: state.Selection) -> list[str]:
    """The original of the selected model (else the newest), the models derived from it, and small models from scratch."""
    start = next((model for model in known if model.id == selection.model), known[0])
    original = models.original_of(workspace, start)
    alike = original.config.get("architecture")
    children = [
        model.id
        for model in reversed(known)
        if model.config.get("original_id") == original.id
        or (role_of(model) == "from_scratch" and model.config.get("architecture") == alike)
    ]
    return [original.id, *children]


def _only_one() -> None:
    st.page_link(
        PAGES["Compress"].path, label="Compress this model", icon=":material/compress:",
        query_params=state.current().params(job=None),
    )  # fmt: skip


# -- Verdict --------------------------------------------------------------------------------------------------------------------


def _verdict(table: "pd.DataFrame") -> None:
    originals = table[table["kind"] == "original"]
    if originals.empty or len(table) < 2:
        for doubts in table["doubts"]:
            show_doubts(doubts.split("; ") if doubts else ())
        return
    original, rows = originals.iloc[0], table.to_dict("records")
    lines = [
        _UNBROKEN.sub(
            _NBSP, f"**{escape(row['name'])}** against {escape(original['name'])}: {escape(verdict(original, row, rows))}"
        )
        for _, row in table.iterrows()
        if row["id"] != original["id"]
    ]
    with st.container(horizontal=True, vertical_alignment="top", horizontal_alignment="distribute", wrap=False, key="verdict"):
        st.markdown("  \n".join(lines), width="stretch")
        explain("honesty", key="explain-verdict")


def _measure(workspace: Workspace, table: "pd.DataFrame") -> None:
    missing = table.loc[table["log_loss"].isna(), "id"].tolist()
    if not missing and state.current().job is None:
        return
    names = ", ".join(table.loc[table["id"].isin(missing), "name"])

    def submit() -> str:
        return service.submit_evaluate(workspace, service.EvaluateConfig(model_ids=tuple(missing)))

    with st.container(key="measure"):
        task(
            "evaluate",
            f"Measure {names}" if missing else "Measured",
            submit,
            belongs=lambda job: bool(set(job.config.get("model_ids", ())) & set(table["id"])),
            show_button=bool(missing),
        )


# -- Numbers --------------------------------------------------------------------------------------------------------------------


def _sections() -> dict[str, list[_Line]]:
    sections = {
        "Accuracy": [
            _Line("Measured on", "measured_rows", format.count, unit="rows"),
            _Line("Of them", "measured_clicks", format.count, unit="clicks"),
            _Line("AUC", "auc", format.auc, 1),
            _Line("95 % interval", "auc_low", format.auc),
            _Line("Change of AUC", "auc_change", format.difference),
            _Line("95 % interval", "auc_change_low", format.difference),
            _Line("Log loss", "log_loss", format.auc, -1),
            _Line("Calibration", "calibration_ratio", lambda value: f"{value:.3f}", unit="predicted / observed"),
            _Line("Calibration error", "calibration_error", format.auc, -1),
        ],
        "Size": [
            _Line("Tables", "parameters_tables", format.count, -1, "parameters"),
            _Line("Dense part", "parameters_dense", format.count, -1, "parameters"),
            _Line("Tables", "bytes_tables", format.size, -1),
            _Line("Dense part", "bytes_dense", format.size, -1),
            _Line("Compute per row", "macs", format.count, -1, "MACs"),
        ],
    }
    for runtime, name in _RUNTIMES.items():
        sections[f"Speed in {name}"] = [
            line
            for batch in LATENCY_BATCH_SIZES
            for line in (
                _Line(f"Batch {batch}", f"{runtime}_rows_per_second_{batch}", format.count, 1, "rows/s"),
                _Line("p50 / p99", f"{runtime}_p50_ms_{batch}", format.count, -1, "ms"),
            )
        ]
    return sections


def _numbers(table: "pd.DataFrame") -> None:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="head-numbers"):
        st.markdown("**Measurements of the serving form**", width="content")
        download_table(table, "comparison")
    heads = "".join(
        f'<th scope="col"><span class="mark {row["kind"]}"></span>{html.escape(row["name"])}</th>' for _, row in table.iterrows()
    )
    body = "".join(
        f'<tr class="section"><th scope="rowgroup" colspan="{len(table) + 1}">{title}</th></tr>'
        + "".join(_row(table, line) for line in lines)
        for title, lines in _sections().items()
    )
    rows = f"<thead><tr><td></td>{heads}</tr></thead><tbody>{body}</tbody>"
    st.html(f'<div class="compare" tabindex="0" role="region" aria-label="Comparison of the models"><table>{rows}</table></div>')


def _row(table: "pd.DataFrame", line: _Line) -> str:
    values = table[line.column].astype(float)
    best = None
    if line.better and values.notna().sum() > 1 and values.nunique() > 1:
        best = values.max() if line.better > 0 else values.min()
    cells = "".join(
        f'<td class="best">{text}</td>' if value == best else f"<td>{text}</td>"
        for value, text in zip(values, _texts(table, line, values), strict=True)
    )
    unit = f" <small>{line.unit}</small>" if line.unit else ""
    return f'<tr><th scope="row">{line.title}{unit}</th>{cells}</tr>'


def _texts(table: "pd.DataFrame", line: _Line, values: "pd.Series") -> list[str]:
    texts = [format.NONE if value != value else line.write(value) for value in values]
    for ending, other, between in (("_p50_", "_p99_", " / "), ("_low", "_high", " to ")):
        if ending in line.column:
            ends = table[line.column.replace(ending, other)].astype(float)
            return [text if end != end else f"{text}{between}{line.write(end)}" for text, end in zip(texts, ends, strict=True)]
    return texts


# -- Charts and settings --------------------------------------------------------------------------------------------------------


def _charts(table: "pd.DataFrame") -> None:
    if table["auc"].isna().all():
        return
    started = address.start("size")
    start = started if started in _SIZES else _SIZES[0]
    cost = st.session_state.get("compare-size") or start
    marked = table.assign(on_front=pareto_mask(table, cost))
    figure("auc_size_scatter", marked, size=cost, key=f"scatter-{cost}", file=f"auc-against-{cost}", topic="honesty")
    st.segmented_control(
        "Size as", _SIZES, key="compare-size", default=start, required=True, label_visibility="collapsed",
        format_func=lambda name: BUDGET_KINDS[name].title, persist_state="session",
    )  # fmt: skip
    address.write("size", "" if cost == _SIZES[0] else cost)
    figure("latency_bars", table, key="throughput", file="throughput", topic="folding")


def _difference(workspace: Workspace, table: "pd.DataFrame") -> None:
    """Settings in which two of the models differ."""
    if len(table) < 2:
        return
    names = unique_labels([workspace.store.artifacts.get(model_id) for model_id in table["id"]])
    with st.expander("Compare settings of two models"):
        left, right = st.columns(2)
        first = left.selectbox("First", list(names), format_func=names.__getitem__, key="difference-first")
        others = [model_id for model_id in names if model_id != first]
        second = right.selectbox("Second", others, format_func=names.__getitem__, key="difference-second")
        if first not in names or second not in names:  # a label of a moment ago
            return
        rows = config_difference(workspace, first, second)
        if rows.empty:
            st.caption("Both models have the same settings.")
            return
        st.dataframe(
            rows, hide_index=True, key="difference", alt="Settings in which the two models differ",
            column_config={"setting": "Setting", "a": names[first], "b": names[second]},
        )  # fmt: skip
        download_table(rows, names[first], names[second], "difference")

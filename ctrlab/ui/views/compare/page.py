"""The Compare page: any number of models in one table, with the verdict on the chosen one."""

from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from ctrlab.reports.comparison_view import best_of, comparison_view
from ctrlab.services import comparison as service
from ctrlab.services import models
from ctrlab.services.compared import compared_models
from ctrlab.services.outside import abilities
from ctrlab.services.settings_difference import config_difference
from ctrlab.services.workspace import Workspace
from ctrlab.ui import address, cache, state
from ctrlab.ui.components.artifact_picker import unique_labels
from ctrlab.ui.components.bundle import bundle_progress
from ctrlab.ui.components.comparison import comparison
from ctrlab.ui.components.downloads import download_table
from ctrlab.ui.components.explain import explain
from ctrlab.ui.components.job_progress import job_of_page, job_progress
from ctrlab.ui.components.paper_claims import paper_claims
from ctrlab.ui.components.task import task
from ctrlab.ui.feedback import empty, show_doubts
from ctrlab.ui.navigation import PAGES
from ctrlab.ui.views.compare.actions import actions
from ctrlab.ui.views.compare.choice import arms_of_run, arrived_of, choose_baseline, choose_models, pending
from ctrlab.ui.views.compare.segments import where_auc_was_lost

if TYPE_CHECKING:
    import pandas as pd

_STYLE = Path(__file__).parents[2] / "assets" / "compare.css"
#: A model with more is named by their number.
_NAMED = 2


def render() -> None:
    """The page."""
    workspace, selection = cache.workspace(), state.current()
    known = models.models_of_rows(workspace, selection.dataset, selection.model)
    if not known:
        empty(
            "Nothing to compare yet",
            "Train a model, or open the sample; its compressed versions are compared with it here.",
            "Model",
            "Choose a model",
        )
        return
    st.html(_STYLE)
    arms = arms_of_run(workspace)
    with st.container(horizontal=True, vertical_alignment="center", key="choice"):
        chosen = choose_models(workspace, known, selection, arrived_of(arms, known))
        baseline = choose_baseline(known, chosen) if len(chosen) > 1 else None
        explain("honesty", key="explain-verdict")
    pending(arms)
    if not chosen:
        st.info("Choose at least one model.", icon=":material/info:")
        return
    table = compared_models(workspace, chosen, baseline)
    if len(table) == 1:
        _only_one(table)
    _measure(workspace, table)
    bundle_progress(table["id"].tolist())
    st.fragment(_compared)(table, baseline)


def _only_one(table: "pd.DataFrame") -> None:
    show_doubts(table["doubts"].iloc[0].split("; ") if table["doubts"].iloc[0] else ())
    if state.current().model is not None:
        st.page_link(
            PAGES["Compress"].path, label="Compress this model", icon=":material/compress:",
            query_params=state.current().params(job=None),
        )  # fmt: skip


def _measure(workspace: Workspace, table: "pd.DataFrame") -> None:
    if (job := job_of_page(("time",), lambda job: bool(set(job.config["model_ids"]) & set(table["id"])))) is not None:
        job_progress(job.id, quiet_success=True)
    able = {model.id: abilities(workspace, model) for model in models.require_models(workspace, table["id"].tolist())}
    unmeasured = table.loc[table["log_loss"].isna() & table["measure"].isna(), "id"]
    for reason in dict.fromkeys(able[model_id].why_not("measure") for model_id in unmeasured):
        if reason:
            st.info(reason, icon=":material/info:")
    missing = [model_id for model_id in unmeasured if able[model_id].allows("measure")]
    if not missing and state.current().job is None:
        return
    names = table.loc[table["id"].isin(missing), "name"].tolist()

    def submit() -> str:
        return service.submit_evaluate(workspace, service.EvaluateConfig(model_ids=tuple(missing)))

    with st.container(key="measure"):
        task(
            "evaluate",
            f"Measure {', '.join(names) if len(names) <= _NAMED else f'{len(names)} models'}" if missing else "Measured",
            submit,
            belongs=lambda job: bool(set(job.config.get("model_ids", ())) & set(table["id"])),
            show_button=bool(missing),
        )


def _compared(table: "pd.DataFrame", baseline: str | None) -> None:
    """Table, charts and card; what follows is about the chosen model. A fragment: a click runs nothing else."""
    data = comparison_view(table, baseline=baseline, chosen=address.start("chosen"))
    head = st.container(horizontal=True, key="actions")
    shown = comparison(data, key="comparison", view=address.start("view"))
    with head:
        actions(table, shown, baseline)
    address.write("chosen", "" if shown.chosen == best_of(table) else shown.chosen)
    address.write("view", shown.view)
    if len(table) < 2:
        return
    measured = bool(table.loc[table["id"].isin([shown.chosen, data["baseline"]]), "auc"].notna().all())
    where_auc_was_lost(shown.chosen, data["baseline"], measured=measured)
    _difference(cache.workspace(), table, shown.chosen, data["baseline"])
    with st.expander("The paper's claims and the measured results"):
        paper_claims(table[(table["kind"] != "compressed") | (table["id"] == shown.chosen)])


def _difference(workspace: Workspace, table: "pd.DataFrame", chosen: str, baseline: str) -> None:
    """Settings in which the chosen model differs from another."""
    names = unique_labels(models.require_models(workspace, table["id"].tolist()))
    others = [model_id for model_id in names if model_id != chosen]
    with st.expander("Settings of the chosen model against another"):
        start = others.index(baseline) if baseline in others else 0
        other = st.selectbox("Against", others, index=start, format_func=names.__getitem__, key=f"difference-{chosen}")
        if other not in others:  # a label of a moment ago
            return
        rows = config_difference(workspace, other, chosen)
        if rows.empty:
            st.caption("Both models have the same settings.")
            return
        st.dataframe(
            rows, hide_index=True, key="difference", alt="Settings in which the two models differ",
            column_config={"setting": "Setting", "a": names[other], "b": names[chosen]},
        )  # fmt: skip
        download_table(rows, names[other], names[chosen], "difference")

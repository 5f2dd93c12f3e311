"""The planner of the Compress page: ranks of all layers for a budget, and the front of predicted AUC against cost."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from ctrlab.errors import CtrlabError
from ctrlab.plans.budgets import BUDGET_KINDS, COUNTED_KINDS, LATENCY, Budget
from ctrlab.plans.configs import CompressionSpec, RankPlan
from ctrlab.plans.cost_prediction import Prediction, serving_cost
from ctrlab.plans.planner import plan_for_budget, plan_for_loss, planned_front
from ctrlab.plans.rank_problem import PlannedRanks, PlanOptions
from ctrlab.plans.sensitivity import Sensitivity
from ctrlab.services import sensitivity as service
from ctrlab.services.workspace import Workspace
from ctrlab.ui import address, cache
from ctrlab.ui.components.figure import figure
from ctrlab.ui.components.sensitivity import measure_sensitivity
from ctrlab.ui.feedback import sentence
from ctrlab.ui.views.compress.context import CompressContext, load_context
from ctrlab.ui.views.compress.latency import plan_for_milliseconds
from ctrlab.ui.views.compress.measured import predicts_auc

if TYPE_CHECKING:
    import pandas as pd

Apply = Callable[[Mapping[str, int]], None]

_AUC = "auc"
_GOALS = {kind.name: kind.goal for kind in BUDGET_KINDS} | {_AUC: "AUC lost, at most"}
_START_SHARE = 1 / 3
_START_LOSS = 0.0005
_MAX_LOSS = 0.5
_FAULT = "planner-fault"
_LOOK_UP_SECONDS = 2.0


def model_sensitivity(context: CompressContext) -> Sensitivity | None:
    """The newest sensitivity of the model; None where none was measured."""
    found = sensitivity_id(context)
    return cache.sensitivity(context.workspace, found) if found else None


def sensitivity_id(context: CompressContext) -> str | None:
    """The id of the newest sensitivity, cached in the session; a miss is looked up again after two seconds."""
    key = f"sensitivity:{context.model.id}"
    known: str | None
    known, looked = st.session_state.get(key, (None, -_LOOK_UP_SECONDS))
    if known is None and time.monotonic() - looked >= _LOOK_UP_SECONDS:
        found = service.latest_sensitivity(context.workspace, context.model.id)
        known = found.id if found else None
        st.session_state[key] = (known, time.monotonic())
    return known


def planner(
    context: CompressContext, prediction: Prediction, sensitivity: Sensitivity | None, measured_auc: float | None,
    options: PlanOptions, apply: Apply,
) -> None:  # fmt: skip
    """The planner, in an expander.

    Args:
        prediction: of the current plan.
        measured_auc: AUC of the current plan; None until it is measured.
        apply: called with the ranks of the plan that was found or clicked; layers without a rank are dense.
    """
    opened = bool(address.start("goal"))
    section = st.expander("Plan for a budget", opened, icon=":material/target:", key="planner", on_change="rerun")
    if not section.open:
        address.write("goal", "")
        address.write("limit", "")
        return
    with section:
        if sensitivity is None:
            measure_sensitivity(context.model.id, context.spectra_id)
            return
        goal = _form(context, sensitivity, options, apply)
        counted = goal if goal in COUNTED_KINDS else "parameters"
        _front(context, prediction, sensitivity, measured_auc, counted, options, apply)


def _form(context: CompressContext, sensitivity: Sensitivity, options: PlanOptions, apply: Apply) -> str:
    """The goal, its number, the button. Returns the goal."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="planner-form"):
        goals = [goal for goal in _GOALS if goal != LATENCY or context.abilities.allows("time")]
        index = goals.index(started) if (started := address.start("goal")) in goals else 0
        goal = st.selectbox(
            "Goal", goals, index, key="planner-goal", format_func=_GOALS.__getitem__, width=220, persist_state="session"
        )
        address.write("goal", goal)
        if goal != LATENCY:
            _limit(context, goal)
        eights = st.checkbox(
            "Ranks in multiples of 8", address.start("multiple") == "8", key="planner-eights", persist_state="session",
            help="For linear layers: multiples of 8 run faster on most hardware.",
        )  # fmt: skip
        address.write("multiple", "8" if eights else "")
        if goal != LATENCY:
            arguments = (context, sensitivity, options, apply)
            st.button("Find ranks", key="planner-find", icon=":material/search:", on_click=_find, args=arguments)
    if goal == LATENCY:
        plan_for_milliseconds(context, sensitivity_id(context) or "", apply)
    if fault := st.session_state.pop(_FAULT, None):
        st.error(sentence(fault), icon=":material/error:")
    return goal


def _find(context: CompressContext, sensitivity: Sensitivity, options: PlanOptions, apply: Apply) -> None:
    """Find a plan and apply it. A callback cannot draw, so an error is kept for the next run.

    The inputs are read from the session: they may be newer than the values that the button was drawn with.
    """
    goal = st.session_state["planner-goal"]
    limit = float(st.session_state[f"planner-{goal}"]) * (BUDGET_KINDS[goal].entry_scale if goal != _AUC else 1.0)
    options = replace(options, multiple_of=8 if st.session_state["planner-eights"] else 1)
    try:
        apply(_solve(context, sensitivity, goal, limit, options).plan.as_dict())
    except CtrlabError as error:
        st.session_state[_FAULT] = str(error)


def _limit(context: CompressContext, goal: str) -> None:
    """The number of the goal; `_find` reads it."""
    settings: dict[str, Any] = {"key": f"planner-{goal}", "width": 150, "persist_state": "session"}
    linked = _number(address.start("limit")) if address.start("goal") == goal else None
    if goal == _AUC:
        start = linked if linked is not None and 0 <= linked <= _MAX_LOSS else _START_LOSS
        limit = st.number_input("AUC", 0.0, _MAX_LOSS, start, step=0.0001, format="%.4f", **settings)
        address.write("limit", f"{limit:g}")
        return
    kind = BUDGET_KINDS[goal]
    start = kind.amount(serving_cost(context.profile, {})) / kind.entry_scale * _START_SHARE
    start = linked if linked is not None and linked >= 1e-3 else start
    if not kind.entry_unit:
        limit = st.number_input("Number", 1, None, max(1, int(start)), **settings)
    else:
        limit = st.number_input(kind.entry_unit, 0.0, None, round(start, 3), step=0.1, format="%.3f", **settings)
    address.write("limit", f"{limit:.10g}")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _solve(context: CompressContext, sensitivity: Sensitivity, goal: str, limit: float, options: PlanOptions) -> PlannedRanks:
    if goal == _AUC:
        return plan_for_loss(context.profile, sensitivity, limit, options=options)
    return plan_for_budget(context.profile, sensitivity, Budget(kind=goal, limit=limit), options)


def _front(
    context: CompressContext,
    prediction: Prediction,
    sensitivity: Sensitivity,
    measured_auc: float | None,
    goal: str,
    options: PlanOptions,
    apply: Apply,
) -> None:
    found = sensitivity_id(context)
    assert found is not None  # `sensitivity` was loaded from it
    spec = options.spec.replace(plan=RankPlan())
    table, plans = _front_table(context.workspace, context.model.id, context.spectra_id, found, goal, spec)
    key = f"front-{goal}"
    predicted = sensitivity.predicted_auc(prediction.ranks) if predicts_auc(prediction) else float("nan")
    planned = (BUDGET_KINDS[goal].amount(prediction.serving), predicted)
    if not predicts_auc(prediction):
        st.caption(f"The front is that of AFM. For {prediction.method.title} no AUC is predicted; the measured point is its own.")
    figure(
        "planned_front",
        table,
        (BUDGET_KINDS[goal].amount(serving_cost(context.profile, {})), sensitivity.auc),
        planned=planned,
        measured_auc=measured_auc,
        kind=goal,
        key=key,
        file=f"{context.model.name} front",
        topic="sensitivity",
        on_select=lambda: _select_point(key, plans, apply),
        selection_mode="points",
    )


def _select_point(key: str, plans: list[dict[str, int]], apply: Apply) -> None:
    points = st.session_state[key].selection.points
    if points and isinstance(number := points[0].get("customdata"), int | float | list):
        apply(plans[int(number[0] if isinstance(number, list) else number)])


@cache.per_workspace(max_entries=32)
def _front_table(
    workspace: Workspace, model_id: str, spectra_id: str, sensitivity_id: str, goal: str, spec: CompressionSpec
) -> "tuple[pd.DataFrame, list[dict[str, int]]]":
    """Columns cost and auc, cheapest first, and the ranks of each row."""
    import pandas as pd

    context, sensitivity = load_context(workspace, model_id, spectra_id), cache.sensitivity(workspace, sensitivity_id)
    options = PlanOptions(spec=spec, spectra=context.spectra, aim="auc")  # the axis of the chart
    plans = planned_front(context.profile, sensitivity, goal, options)
    table = pd.DataFrame({"cost": [BUDGET_KINDS[goal].amount(plan.cost) for plan in plans], "auc": [plan.auc for plan in plans]})
    return table, [plan.plan.as_dict() for plan in plans]

"""The plan editor: figures, a dial and a slider a layer, drawn and computed in the browser (`assets/plan_editor.js`)."""

import json
from collections.abc import Mapping
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from ctrlab.evaluation.delong import Interval
from ctrlab.plans.configs import CompressionSpec, RankPlan
from ctrlab.plans.cost_terms import cost_terms, loss_terms
from ctrlab.plans.ranks import PRESETS, plan_ranks
from ctrlab.services.previews import Preview
from ctrlab.services.workspace import Workspace
from ctrlab.ui import cache
from ctrlab.ui.components import rank_plan
from ctrlab.ui.components.layers import shape
from ctrlab.ui.components.saved_plans import saved_plans
from ctrlab.ui.views.compress.context import CompressContext, load_context
from ctrlab.ui.views.compress.dial import walk
from ctrlab.ui.views.compress.measured import Measurement
from ctrlab.ui.views.compress.planner import sensitivity_id

_ASSETS = Path(__file__).parents[2] / "assets"
_START_VARIANCE = 0.99
_TICK_VARIANCE = 0.99


def starting_ranks(context: CompressContext) -> Mapping[str, int]:
    """{layer: rank} that keeps 99 % of the variance of every layer."""
    return plan_ranks(context.profile, context.spectra, variance=_START_VARIANCE).as_dict()


def set_ranks(context: CompressContext, ranks: Mapping[str, int]) -> None:
    """Apply these ranks; layers without a rank are dense."""
    rank_plan.change(
        context.spectra_id, {layer.layer_name: ranks.get(layer.layer_name, layer.out_features) for layer in context.layers}
    )


def presets(context: CompressContext, plan: RankPlan) -> None:
    """Buttons for whole plans, undo, redo and saved plans."""
    key = context.spectra_id
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="presets"):
        for name, preset in PRESETS.items():
            st.button(preset.title, key=f"preset-{name}", help=preset.description, on_click=_apply_preset, args=(context, name))
        st.button("All dense", key="preset-dense", help="No layer is compressed.", on_click=set_ranks, args=(context, {}))
        st.button("Undo", icon=":material/undo:", key="undo", type="tertiary", disabled=not rank_plan.can_undo(key),
                  on_click=rank_plan.undo, args=(key,))  # fmt: skip
        st.button("Redo", icon=":material/redo:", key="redo", type="tertiary", disabled=not rank_plan.can_redo(key),
                  on_click=rank_plan.redo, args=(key,))  # fmt: skip
        saved_plans(context.model.id, context.model.name, plan, apply=partial(set_ranks, context))


def _apply_preset(context: CompressContext, name: str) -> None:
    set_ranks(context, PRESETS[name].make(context.profile, context.spectra).as_dict())


def plan_editor(context: CompressContext, ranks: Mapping[str, int], spec: CompressionSpec, measurement: Measurement) -> None:
    """Draw the editor of the current plan; the plan of `spec` is not read."""
    key, bare = f"plan-editor-{context.spectra_id}", spec.replace(plan=RankPlan())
    sensitivity, place = sensitivity_id(context), rank_plan.place(context.spectra_id)
    walked = walk(context, sensitivity, bare)
    data = {
        "settings": _settings(context.workspace, context.model.id, context.spectra_id, sensitivity, bare),
        "stops": walked.stops,
        "walk": walked.sentence,
        "plan": rank_plan.encode(ranks, context.layers),
        "others": place.others,
        "seen": place.seen,
        "measured": _measured(measurement.preview) if measurement.preview is not None else None,
        "note": measurement.note,
        "waiting": measurement.waiting,
        "pending": walked.pending,
        "asked": st.session_state.get(key, {}).get("asked"),
        "unpredicted": "sensitivity not measured" if sensitivity is None else "for AFM alone",
    }
    _component()(key=key, data=data, on_moved_change=partial(_moved, context, key), on_asked_change=lambda: None)


def _moved(context: CompressContext, key: str) -> None:
    report = rank_plan.Report.of(st.session_state[key].get("moved"))
    if report is not None:
        rank_plan.take(context.spectra_id, context.layers, report)


@once
def _component() -> Any:
    script = "".join((_ASSETS / name).read_text(encoding="utf-8") for name in ("plan_costs.js", "plan_editor.js"))
    style = (_ASSETS / "plan_editor.css").read_text(encoding="utf-8")
    return st.components.v2.component("ctrlab.plan_editor", html="<div></div>", css=style, js=script)


@cache.per_workspace(max_entries=16)
def _settings(workspace: Workspace, model_id: str, spectra_id: str, sensitivity_id: str | None, spec: CompressionSpec) -> str:
    """What the editor computes with, as JSON: the same for all plans of a model under one spec."""
    context = load_context(workspace, model_id, spectra_id)
    sensitivity = cache.sensitivity(workspace, sensitivity_id) if sensitivity_id else None
    numbers = {layer.layer_name: number for number, layer in enumerate(context.profile.compressible)}
    layers = [
        {"number": numbers[layer.layer_name], "shape": shape(layer),
         "tick": context.spectra[layer.layer_name].rank_for(_TICK_VARIANCE)}
        for layer in context.layers
    ]  # fmt: skip
    terms = cost_terms(context.profile, spec) | loss_terms(context.profile, context.spectra, sensitivity, spec)
    return json.dumps({"terms": terms, "layers": layers, "held": spec.bottleneck != "relu", "form": "in bytes, as served"})


def _measured(preview: Preview) -> dict[str, Any]:
    return {
        "auc": preview.auc.estimate,
        "auc_change": _ends(preview.auc_change),
        "original_auc": preview.original_auc,
        "log_loss": preview.log_loss,
        "log_loss_change": preview.log_loss_change.estimate,
        "rows": f"on {preview.num_rows:,} validation rows",
    }


def _ends(interval: Interval) -> list[float]:
    return [interval.estimate, interval.low, interval.high]

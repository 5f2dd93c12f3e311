"""The ranks of the Compress page: presets, undo, and a slider a layer."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import streamlit as st

from ctrlab.models.profile import LayerProfile
from ctrlab.plans.configs import RankPlan
from ctrlab.plans.cost_prediction import Prediction
from ctrlab.plans.ranks import PRESETS, plan_ranks
from ctrlab.services.workspace import Workspace
from ctrlab.ui import cache
from ctrlab.ui.components import rank_plan
from ctrlab.ui.components.layers import shape
from ctrlab.ui.components.saved_plans import saved_plans
from ctrlab.ui.format import count, percent, plural
from ctrlab.ui.views.compress.context import CompressContext, load_context

_START_VARIANCE = 0.99
#: With more tables than this, their sliders are in an expander.
_TABLES_SHOWN = 4
#: Key of {slider: number of its present widget} in the session.
_WIDGETS = "rank-widgets"


def starting_ranks(context: CompressContext) -> Mapping[str, int]:
    """{layer: rank} that keeps 99 % of the variance of every layer."""
    return plan_ranks(context.profile, context.spectra, variance=_START_VARIANCE).as_dict()


def set_ranks(context: CompressContext, ranks: Mapping[str, int]) -> None:
    """Apply these ranks; layers without a rank are dense."""
    rank_plan.change(
        context.spectra_id, {layer.layer_name: ranks.get(layer.layer_name, layer.out_features) for layer in context.layers}
    )


def sliders(context: CompressContext, ranks: Mapping[str, int], prediction: Prediction, *, shared_basis: bool) -> None:
    """The sliders of the MLP layers, then those of the tables; in a shared basis all tables have one rank, hence one slider."""
    if shared_basis:
        ranks = {**ranks} | {
            layer.layer_name: prediction.ranks.get(layer.layer_name, layer.out_features) for layer in context.tables
        }
    trained, served = count(context.profile.cost.parameters), count(prediction.serving_original.parameters)
    if trained != served:
        st.caption(
            f"Next to the sliders: parameters of the training form ({trained} in all). The prediction counts the serving form."
        )
    _group(context, "All MLP layers", context.linear, ranks, prediction, folded=False)
    folded = len(context.tables) > _TABLES_SHOWN
    _group(context, "All tables", context.tables, ranks, prediction, folded=folded, alone=shared_basis)


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


def _group(
    context: CompressContext, title: str, layers: Sequence[LayerProfile], ranks: Mapping[str, int], prediction: Prediction, *,
    folded: bool, alone: bool = False,
) -> None:  # fmt: skip
    """A slider for the whole group above one row a layer; the rows are in an expander when `folded`, absent when `alone`."""
    if not layers:
        return
    if len(layers) > 1 or alone:
        _group_slider(context, title, layers, ranks, prediction)
    if alone:
        return
    if not folded:
        _rows(context, layers, ranks, prediction)
        return
    expander = st.expander(f"Each of the {len(layers)} tables", key=f"each-{layers[0].kind}", on_change="rerun")
    if expander.open:
        with expander:
            _rows(context, layers, ranks, prediction)


def _group_slider(
    context: CompressContext, title: str, layers: Sequence[LayerProfile], ranks: Mapping[str, int], prediction: Prediction
) -> None:
    chosen = sorted(ranks[layer.layer_name] for layer in layers)
    noun = "table" if layers[0].kind == "embedding" else "layer"
    lost = sum(_lost(layer.layer_name, prediction) for layer in layers) / len(layers)
    before, after = (
        sum(layer.parameters for layer in layers),
        sum(_parameters(layer, ranks[layer.layer_name], prediction) for layer in layers),
    )
    ends = f"ranks {chosen[0]} to {chosen[-1]}" if chosen[0] != chosen[-1] else plural(len(layers), noun)
    _slider_row(
        key=f"group:{context.model.id}:{context.spectra_id}:{layers[0].kind}",
        name=f"<b>{title}</b><small>{ends}</small>",
        label=f"Rank of {title[0].lower()}{title[1:]}",
        value=chosen[len(chosen) // 2],
        width=max(layer.out_features for layer in layers),
        facts=_facts(lost, _worst(prediction), after, before, note=_sized(layers, prediction)),
        apply=lambda rank: rank_plan.change(context.spectra_id, {x.layer_name: min(rank, x.out_features) for x in layers}),
    )


def _rows(context: CompressContext, layers: Sequence[LayerProfile], ranks: Mapping[str, int], prediction: Prediction) -> None:
    worst = _worst(prediction)
    for layer in layers:
        name, rank = layer.layer_name, ranks[layer.layer_name]
        lost = _lost(name, prediction) if name in prediction.ranks else None
        note = _sized([layer], prediction)
        _slider_row(
            key=_slider_key(context, name),
            name=f"{html.escape(name.removeprefix('embedding.'))}<small>{shape(layer)}</small>",
            label=f"Rank of {name}",
            value=rank,
            width=layer.out_features,
            facts=_facts(
                lost, worst, _parameters(layer, rank, prediction), layer.parameters, edge=math.ceil(layer.break_even), note=note
            ),
            apply=partial(_change_one, context.spectra_id, name),
        )


def _change_one(spectra_id: str, layer_name: str, rank: int) -> None:
    rank_plan.change(spectra_id, {layer_name: rank})


def _worst(prediction: Prediction) -> float:
    """The variance lost that fills a bar: the largest of the plan, at least 5 %."""
    return max(0.05, max(prediction.variance_lost.values(), default=0.0))


def _slider_row(*, key: str, name: str, label: str, value: int, width: int, facts: str, apply: Callable[[int], None]) -> None:
    """Name and shape, slider, facts. The key of the slider names model and layer, because its range depends on them."""
    # A horizontal container: columns would add three blocks a row, a third of the time of a step with 30 rows.
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=key):
        st.html(f'<div class="rank-name">{name}</div>', width=112)
        if width == 1:
            st.html('<div class="rank-name"><small>one-dimensional</small></div>', width="stretch")
        else:
            widget = _widget(key, value)
            st.slider(label, 1, width, key=widget, label_visibility="collapsed", on_change=_moved, args=(widget, apply),
                      width="stretch")  # fmt: skip
        st.html(facts, width=212)


def _widget(key: str, value: int) -> str:
    """The key of a slider's widget, which has this value.

    A poll or a click that is under way carries the values that widgets had before the page changed them, and they would
    come in as moves of the user. A value that is the page's own therefore gets a new widget, of which no browser knows yet.
    """
    numbers = st.session_state.setdefault(_WIDGETS, {})
    widget = f"{key}-{numbers.setdefault(key, 0)}"
    if st.session_state.get(widget, value) != value:
        numbers[key] += 1
        widget = f"{key}-{numbers[key]}"
    if widget not in st.session_state:
        st.session_state[widget] = value
    return widget


def _moved(widget: str, apply: Callable[[int], None]) -> None:
    apply(st.session_state[widget])


def _lost(layer_name: str, prediction: Prediction) -> float:
    """The share of a layer's variance that is lost; 0 where it is not predicted, and `_sized` has a note in its place."""
    return prediction.variance_lost.get(layer_name, 0.0)


def _sized(layers: Sequence[LayerProfile], prediction: Prediction) -> str:
    """The note shown in place of a variance that is not predicted; "" where it is.

    That is so for tables of a method whose rank sets a size, and for methods that do not project outputs.
    """
    reduced = [layer for layer in layers if layer.layer_name in prediction.ranks]
    if any(layer.kind == "embedding" for layer in reduced) and not prediction.method.keeps_latents:
        return "size of rank"
    return "not predicted" if reduced and not prediction.method.projects_outputs else ""


def _facts(lost: float | None, worst: float, after: int, before: int, edge: int = 0, note: str = "") -> str:
    """HTML of the variance lost, with its bar, and of the parameters.

    Args:
        lost: None for a dense layer.
        worst: the variance lost that fills the bar.
        edge: the lowest rank at which the layer is dense.
        note: shown in place of the variance.
    """
    if lost is None:
        text = f"dense <small>from {edge}</small>"
    elif note:
        text = f"<small>{note}</small>"
    else:
        text = f'{percent(lost)} lost<i class="lost" style="--lost:{100 * lost / worst:.1f}%"></i>'
    return f'<div class="rank-facts"><span>{text}</span><span>{count(after)} <small>of {count(before)}</small></span></div>'


def _parameters(layer: LayerProfile, rank: int, prediction: Prediction) -> int:
    """Parameters of the compressed layer, or of the layer itself where it is dense."""
    if layer.layer_name not in prediction.ranks:
        return layer.parameters
    if layer.kind == "embedding":
        return prediction.method.table_shape(layer.in_features, layer.out_features, rank).parameters
    return sum(layer.factored(rank)[:2])


def _slider_key(context: CompressContext, layer_name: str) -> str:
    """The key of a layer's slider. Streamlit makes a CSS class of it, so it holds the layer's number instead of its name."""
    number = next(number for number, layer in enumerate(context.layers) if layer.layer_name == layer_name)
    return f"rank-{context.model.id}-{context.spectra_id}-{number}"


@cache.per_workspace(max_entries=16)
def track_style(workspace: Workspace, model_id: str, spectra_id: str) -> str:
    """CSS of the sliders: hatching from break-even on, and a tick at the rank for 99 % of the variance."""
    context = load_context(workspace, model_id, spectra_id)
    rules = []
    for layer in context.layers:
        last = layer.out_features - 1
        if last:
            edge = 100 * (min(layer.break_even, layer.out_features) - 1) / last
            tick = 100 * (context.spectra[layer.layer_name].rank_for(0.99) - 1) / last
            rules.append(f".st-key-{_slider_key(context, layer.layer_name)}{{--edge:{edge:.2f}%;--tick:{tick:.2f}%}}")
    return f"<style>{''.join(rules)}</style>"

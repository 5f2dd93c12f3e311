"""The Compress page: a slider a layer, the predicted and measured effect of the ranks, and the job that compresses."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import streamlit as st

from ctrlab.models.profile import LayerProfile
from ctrlab.plans.configs import (
    BASES,
    BOTTLENECKS,
    PRECISIONS,
    Basis,
    Bottleneck,
    CompressConfig,
    CompressionSpec,
    Order,
    Precision,
    RankPlan,
)
from ctrlab.plans.cost_prediction import Prediction, predict
from ctrlab.plans.methods import METHODS
from ctrlab.plans.rank_problem import PlanOptions
from ctrlab.plans.ranks import PRESETS, plan_ranks
from ctrlab.services import compression as service
from ctrlab.services import controls, models, spectra
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact, Job
from ctrlab.training.configs import FINETUNE, FitConfig
from ctrlab.ui import cache, format, state
from ctrlab.ui.components import rank_plan
from ctrlab.ui.components.bench import Bench, load_bench
from ctrlab.ui.components.explain import explain
from ctrlab.ui.components.figure import figure
from ctrlab.ui.components.layers import shape
from ctrlab.ui.components.saved_plans import saved_plans
from ctrlab.ui.components.task import task
from ctrlab.ui.feedback import empty, escape
from ctrlab.ui.format import count, percent, size, times
from ctrlab.ui.navigation import PAGES
from ctrlab.ui.views import compress_measured
from ctrlab.ui.views.compress_planner import model_sensitivity, planner

_STYLE = Path(__file__).parents[1] / "assets" / "compress.css"
_START_VARIANCE = 0.99
_ALL_DENSE = "every layer is dense; lower the rank of at least one layer below break-even, or choose fewer bits"

_BOTTLENECK_NAMES = {"none": "None", "relu": "ReLU (paper)", "prelu": "PReLU"}
_BASIS_NAMES = {"per_field": "One per table", "shared": "Shared by all tables"}
_PRECISION_NAMES: dict[Precision, str] = {
    "float32": "32 bits",
    "int8": "8 bits",
    "int4": "4 bits (linear layers 8)",
}
_ORDER_NAMES: dict[Order, str] = {
    "mlp_first": "MLP first, then tables",
    "tables_first": "Tables first, then MLP",
    "joint": "All together",
}


def render() -> None:
    """The page."""
    workspace, selection = cache.workspace(), state.current()
    if selection.model is None:
        empty(
            "No model selected",
            "Choose or train a model to compress, or open the sample.",
            "Model",
            "Choose a model",
        )
        return
    model = workspace.store.artifacts.get(selection.model)
    if cache.model_profile(model.id).compressed:
        _is_compressed(workspace, model)
        return
    spectra_id = selection.spectra or _latest(workspace, model.id)
    if spectra_id is None:
        what = f"Ranks are chosen from the spectra of {escape(model.name)}. Computing them takes one pass over the training rows."
        empty("No spectra yet", what, "Spectra", "Compute spectra")
        return
    st.html(_STYLE)
    st.html(_break_even_style(model.id, spectra_id))
    _workbench(model.id, spectra_id)


def _latest(workspace: Workspace, model_id: str) -> str | None:
    found = spectra.latest_spectra(workspace, model_id)
    return state.select(spectra=found.id).spectra if found else None


def _is_compressed(workspace: Workspace, model: Artifact) -> None:
    original = models.original_of(workspace, model)
    st.markdown(f"**{escape(model.name)}** is already compressed. Choose ranks for its original, {escape(original.name)}.")
    st.page_link(
        PAGES["Compress"].path, label=f"Compress {escape(original.name)}", icon=":material/arrow_back:",
        query_params=state.current().params(model=original.id, spectra=None, job=None),
    )  # fmt: skip


@st.fragment
def _workbench(model_id: str, spectra_id: str) -> None:
    """Sliders on the left, prediction and run on the right; a slider step reruns this fragment only."""
    bench = load_bench(model_id, spectra_id)
    ranks = rank_plan.current(spectra_id, bench.layers, lambda: _start(bench))
    bottleneck: Bottleneck = st.session_state.get("bottleneck") or "none"
    method: str = st.session_state.get("method") or "afm"
    # Only latents have a basis.
    basis: Basis = st.session_state.get("basis") or "per_field" if METHODS[method].keeps_latents else "per_field"
    plan = rank_plan.as_plan(ranks, bench.profile)
    precision: Precision = st.session_state.get("precision") or "float32"
    spec = CompressionSpec(plan=plan, method=method, bottleneck=bottleneck, basis=basis, precision=precision)
    prediction = predict(bench.profile, bench.spectra, spec)
    if basis == "shared":
        ranks = ranks | {layer.layer_name: prediction.ranks.get(layer.layer_name, layer.out_features) for layer in bench.tables}
    sensitivity = model_sensitivity(bench.model.id)
    answer = compress_measured.ask(bench, spec)
    measured = compress_measured.known(answer)
    left, right = st.columns([13, 8], gap="large")
    with left:
        _presets(bench, plan)
        options = PlanOptions(spec=spec, spectra=bench.spectra)
        planner(bench, prediction, sensitivity, measured.auc.estimate if measured else None, options, partial(_set, bench))
        _group(bench, "All MLP layers", bench.linear, ranks, prediction, folded=False)
        # In a shared basis all tables have one rank: the slider over them is the only one.
        _group(bench, "All tables", bench.tables, ranks, prediction, folded=len(bench.tables) > 4, alone=basis == "shared")
        config = _settings(bench, plan, bottleneck, basis, precision)
    with right, st.container(key="prediction"):
        _prediction(prediction, bottleneck)
        slot = st.empty()
        _run(bench, prediction, config)
        _bars(bench, prediction)
    # Last, because it waits: the rest of the page is already in the browser while the plan is measured.
    arrived = compress_measured.show(slot, answer, prediction, sensitivity)
    if arrived and st.session_state.get("planner"):
        st.rerun()  # the front shows the measured plan too


def _start(bench: Bench) -> Mapping[str, int]:
    return plan_ranks(bench.profile, bench.spectra, variance=_START_VARIANCE).as_dict()


# -- Ranks ------------------------------------------------------------------------------------------------------------------


def _presets(bench: Bench, plan: RankPlan) -> None:
    """Buttons for whole plans, undo, redo and saved plans."""
    key = bench.spectra_id
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="presets"):
        for name, preset in PRESETS.items():
            st.button(preset.title, key=f"preset-{name}", help=preset.description, on_click=_apply_preset, args=(bench, name))
        st.button("All dense", key="preset-dense", help="No layer is compressed.", on_click=_set, args=(bench, {}))
        st.button("Undo", icon=":material/undo:", key="undo", type="tertiary", disabled=not rank_plan.can_undo(key),
                  on_click=rank_plan.undo, args=(key,))  # fmt: skip
        st.button("Redo", icon=":material/redo:", key="redo", type="tertiary", disabled=not rank_plan.can_redo(key),
                  on_click=rank_plan.redo, args=(key,))  # fmt: skip
        saved_plans(bench.model.id, bench.model.name, plan, apply=partial(_set, bench))


def _apply_preset(bench: Bench, name: str) -> None:
    _set(bench, PRESETS[name].make(bench.profile, bench.spectra).as_dict())


def _set(bench: Bench, ranks: Mapping[str, int]) -> None:
    """Apply these ranks; layers without a rank are dense."""
    rank_plan.change(
        bench.spectra_id, {layer.layer_name: ranks.get(layer.layer_name, layer.out_features) for layer in bench.layers}
    )


def _group(
    bench: Bench, title: str, layers: Sequence[LayerProfile], ranks: Mapping[str, int], prediction: Prediction, *,
    folded: bool, alone: bool = False,
) -> None:  # fmt: skip
    """A slider for the whole group above one row a layer; the rows are in an expander when `folded`, absent when `alone`."""
    if not layers:
        return
    if len(layers) > 1 or alone:
        _master(bench, title, layers, ranks, prediction)
    if alone:
        return
    if not folded:
        _rows(bench, layers, ranks, prediction)
        return
    expander = st.expander(f"Each of the {len(layers)} tables", key=f"each-{layers[0].kind}", on_change="rerun")
    if expander.open:
        with expander:
            _rows(bench, layers, ranks, prediction)


def _master(bench: Bench, title: str, layers: Sequence[LayerProfile], ranks: Mapping[str, int], prediction: Prediction) -> None:
    chosen = sorted(ranks[layer.layer_name] for layer in layers)
    lost = sum(prediction.variance_lost.get(layer.layer_name, 0.0) for layer in layers) / len(layers)
    before, after = (
        sum(layer.parameters for layer in layers),
        sum(_parameters(layer, ranks[layer.layer_name], prediction) for layer in layers),
    )
    ends = f"ranks {chosen[0]} to {chosen[-1]}" if chosen[0] != chosen[-1] else f"{len(layers)} layers"
    _slider_row(
        key=f"master:{bench.model.id}:{bench.spectra_id}:{layers[0].kind}",
        name=f"<b>{title}</b><small>{ends}</small>",
        label=f"Rank of {title[0].lower()}{title[1:]}",
        value=chosen[len(chosen) // 2],
        width=max(layer.out_features for layer in layers),
        facts=_facts(lost, _worst(prediction), after, before, note=_sized(layers, prediction)),
        apply=lambda rank: rank_plan.change(bench.spectra_id, {x.layer_name: min(rank, x.out_features) for x in layers}),
    )


def _rows(bench: Bench, layers: Sequence[LayerProfile], ranks: Mapping[str, int], prediction: Prediction) -> None:
    worst = _worst(prediction)
    for layer in layers:
        name, rank = layer.layer_name, ranks[layer.layer_name]
        lost = prediction.variance_lost.get(name, 0.0) if name in prediction.ranks else None
        note = _sized([layer], prediction)
        _slider_row(
            key=_slider_key(bench, name),
            name=f"{html.escape(name.removeprefix('embedding.'))}<small>{shape(layer)}</small>",
            label=f"Rank of {name}",
            value=rank,
            width=layer.out_features,
            facts=_facts(
                lost, worst, _parameters(layer, rank, prediction), layer.parameters, edge=math.ceil(layer.break_even), note=note
            ),
            apply=partial(_change_one, bench.spectra_id, name),
        )


def _change_one(spectra_id: str, layer_name: str, rank: int) -> None:
    rank_plan.change(spectra_id, {layer_name: rank})


def _worst(prediction: Prediction) -> float:
    """The variance lost that fills a bar: the largest of the plan, at least 5 %."""
    return max(0.05, max(prediction.variance_lost.values(), default=0.0))


def _slider_row(*, key: str, name: str, label: str, value: int, width: int, facts: str, apply: Callable[[int], None]) -> None:
    """Name and shape, slider, facts. The key of the slider names model and layer, because its range depends on them."""
    # A horizontal container: columns would add three blocks a row, a third of the time of a step with 30 rows.
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.html(f'<div class="rank-name">{name}</div>', width=112)
        if width == 1:
            st.html('<div class="rank-name"><small>one-dimensional</small></div>', width="stretch")
        else:
            st.session_state[key] = value
            st.slider(
                label, 1, width, key=key, label_visibility="collapsed", on_change=_moved, args=(key, apply), width="stretch"
            )
        st.html(facts, width=212)


def _moved(key: str, apply: Callable[[int], None]) -> None:
    apply(st.session_state[key])


def _sized(layers: Sequence[LayerProfile], prediction: Prediction) -> str:
    """The note shown for tables of a method whose rank sets a size instead of keeping variance; else ""."""
    other = not prediction.method.keeps_latents and any(
        x.kind == "embedding" and x.layer_name in prediction.ranks for x in layers
    )
    return "size of rank" if other else ""


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


def _slider_key(bench: Bench, layer_name: str) -> str:
    """The key of a layer's slider. Streamlit makes a CSS class of it, so it holds the layer's number instead of its name."""
    number = next(number for number, layer in enumerate(bench.layers) if layer.layer_name == layer_name)
    return f"rank-{bench.model.id}-{bench.spectra_id}-{number}"


@st.cache_data(show_spinner=False, max_entries=16)
def _break_even_style(model_id: str, spectra_id: str) -> str:
    """CSS of the sliders: hatching from break-even on, and a tick at the rank for 99 % of the variance."""
    bench = load_bench(model_id, spectra_id)
    rules = []
    for layer in bench.layers:
        last = layer.out_features - 1
        if last:
            edge = 100 * (min(layer.break_even, layer.out_features) - 1) / last
            tick = 100 * (bench.spectra[layer.layer_name].rank_for(0.99) - 1) / last
            rules.append(f".st-key-{_slider_key(bench, layer.layer_name)}{{--edge:{edge:.2f}%;--tick:{tick:.2f}%}}")
    return f"<style>{''.join(rules)}</style>"


# -- Prediction -------------------------------------------------------------------------------------------------------------


def _prediction(prediction: Prediction, bottleneck: Bottleneck) -> None:
    """Predicted parameters, size, MACs and variance lost of the plan."""
    before, after = prediction.serving_original, prediction.serving
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="head-prediction"):
        st.markdown("**Prediction**")
        explain("afm", key="explain-prediction")
    factor = before.size_bytes / max(after.size_bytes, 1)
    lost = prediction.variance_lost_total
    st.html(
        '<div class="headline" role="status">'
        f"<div><b>{count(after.parameters)}</b><span>parameters</span></div>"
        f"<div><b>{times(factor)}</b><span>smaller</span></div>"
        f"<div><b>{percent(lost)}</b><span>variance lost{'' if bottleneck != 'relu' else ' *'}</span></div></div>"
    )
    rows = [
        ("Tables", before.parameters_tables, after.parameters_tables, count, "parameters"),
        ("Dense part", before.parameters_dense, after.parameters_dense, count, "parameters"),
        ("Size", before.size_bytes, after.size_bytes, size, ""),
        ("Compute per row", before.macs, after.macs, count, "MACs"),
    ]
    body = "".join(
        f"<tr><th scope='row'>{name} <small>{unit}</small></th><td>{write(old)}</td><td>{write(new)}</td>"
        f"<td>{format.NONE if new >= old else times(old / max(new, 1))}</td></tr>"
        for name, old, new, write, unit in rows
    )
    heads = "".join(f"<th scope='col'>{head}</th>" for head in ("Serving form", "Original", "Planned", "Smaller"))
    st.html(f"<table class='costs'><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>")
    if not prediction.method.keeps_latents:
        st.caption(
            "The variance lost counts linear layers alone: tables of this method are not projections of the original ones."
        )
    if bottleneck == "relu":
        st.caption("\\* With a ReLU between the factors the variance lost does not hold before fine-tuning.")


def _bars(bench: Bench, prediction: Prediction) -> None:
    """Parameters of tables and dense part before and after, and the size while training."""
    before, after = prediction.serving_original, prediction.serving
    figure("cost_bars", before, after, names=("original", "planned"), key="cost-bars", file=f"plan-{bench.model.id}", title="")
    if count(prediction.cost_explicit.parameters) != count(after.parameters):
        explicit = count(prediction.cost_explicit.parameters)
        st.caption(f"While fine-tuning: {explicit} parameters, including the projections that are folded away for serving.")


# -- Run --------------------------------------------------------------------------------------------------------------------


def _run(bench: Bench, prediction: Prediction, config: CompressConfig) -> None:
    """The button that queues the compression, and the progress of its job."""
    after = prediction.serving
    factor = prediction.serving_original.size_bytes / max(after.size_bytes, 1)
    left = f"{count(after.parameters)} parameters" if config.precision == "float32" else size(after.size_bytes)
    job_config = service.CompressJobConfig(
        model_id=bench.model.id,
        spectra_id=bench.spectra_id,
        compress=config,
        name=f"{bench.model.name}, {METHODS[config.method].title} {times(factor)}",
    )
    task(
        "compress",
        f"Compress to {left}",
        lambda: _submit(job_config),
        belongs=lambda job: job.config.get("model_id") == bench.model.id,
        disabled="" if prediction.ranks or config.precision != "float32" else _ALL_DENSE,
        done=lambda job: _done(bench, job),
    )


def _submit(config: service.CompressJobConfig) -> str:
    """Queue the compression, with its controls where they are chosen; returns the id of the compression's job."""
    if not st.session_state.get("controls"):
        return service.submit_compress(cache.workspace(), config)
    return controls.submit_with_controls(cache.workspace(), config, int(st.session_state.get("seeds") or 1))[0]


def _settings(bench: Bench, plan: RankPlan, bottleneck: Bottleneck, basis: Basis, precision: Precision) -> CompressConfig:
    """Method, activation, table basis, order, fine-tuning and precision."""
    st.markdown("**Settings**")
    method_box, left, middle, right = st.columns(4, gap="small")
    with method_box:
        method = st.selectbox(
            "Method", METHODS.names(), key="method", format_func=lambda name: METHODS[name].title,
            help="How the two factors of a layer are found: " + "; ".join(
                f"{entry.title}: {entry.description.rstrip('.').lower()}" for entry in METHODS
            ) + ".",
        )  # fmt: skip
    with left:
        st.selectbox(
            "Activation between factors",
            BOTTLENECKS,
            format_func=_BOTTLENECK_NAMES.__getitem__,
            key="bottleneck",
            help="A nonlinearity between the two factors of a linear layer. PReLU starts as the identity and is learnt while "
            "fine-tuning; with ReLU, the paper's choice, the predicted variance does not hold.",
        )
    with middle:
        st.selectbox(
            "Table basis",
            BASES,
            format_func=_BASIS_NAMES.__getitem__,
            key="basis",
            disabled=not METHODS[method].keeps_latents,
            help="Each table has its own principal directions, which lose least; or all tables share one basis and rank, so that "
            "inner products need no projection.",
        )
    with right:
        order = st.selectbox("Order", list(_ORDER_NAMES), format_func=_ORDER_NAMES.__getitem__, key="order",
                             help="Fine-tuning follows each stage.")  # fmt: skip
    left, right, last = st.columns([1, 1, 1], gap="small")
    with last:
        st.selectbox(
            "Precision", PRECISIONS, key="precision", format_func=_PRECISION_NAMES.__getitem__,
            help="Bits of the weights of tables and linear layers when served; with any ranks, or with none.",
        )  # fmt: skip
    with left:
        epochs = st.number_input("Fine-tuning epochs", 0, 20, 1, key="epochs", help="After each stage; 0 only truncates.")
    with right:
        rate = st.number_input(
            "Learning rate", 1e-6, 1e-1, FINETUNE.learning_rate, step=1e-4, format="%.1e", key="rate", disabled=not epochs
        )
    rows = "train"
    if bench.finetune_rows:
        names = {"finetune": f"{count(bench.finetune_rows)} fine-tuning rows", "train": "training rows"}
        rows = st.segmented_control(
            "Fine-tune on",
            list(names),
            format_func=names.__getitem__,
            key="rows",
            default="finetune",
            required=True,
            disabled=not epochs,
        )
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="with-controls"):
        wanted = st.checkbox(
            "Run with controls", key="controls",
            help="Also queue the original with the same fine-tuning, truncation alone, and a model of the same size trained from "
            "scratch. The effect of the compression is the difference from these controls.",
        )  # fmt: skip
        if wanted:
            st.number_input(
                "Seeds",
                1,
                controls.MAX_SEEDS,
                1,
                key="seeds",
                width=130,
                help="Repeat the run and its controls with this many random seeds.",
            )
    finetune = FINETUNE.replace(epochs=epochs, learning_rate=rate, rows=rows) if epochs else None
    if METHODS[method].retrains:
        finetune, order = _whole_training(bench), "joint"
    return CompressConfig(
        plan=plan, method=method, bottleneck=bottleneck, basis=basis, order=order, finetune=finetune, precision=precision
    )


def _whole_training(bench: Bench) -> FitConfig:
    """The training of a method with new tables: the original's own training, or the default where that is not known."""
    known = bench.model.config.get("fit")
    training = FitConfig.from_dict(known) if known else FitConfig()
    epochs = "1 epoch" if training.epochs == 1 else f"up to {training.epochs} epochs"
    how = "like the original" if known else "with default settings, because the original's are not known"
    st.caption(
        f"The tables are initialised anew, so the whole model is trained {how}: {epochs} at learning rate "
        f"{training.learning_rate:g} on the training rows. Order and fine-tuning settings do not apply."
    )
    return training


def _done(bench: Bench, job: Job) -> None:
    compressed = cache.workspace().store.artifacts.get(job.result["model"])
    cost = compressed.summary["cost_serving"]
    st.success(
        f"{escape(compressed.name)} is ready: {count(cost['parameters_tables'] + cost['parameters_dense'])} parameters.",
        icon=":material/check_circle:",
    )
    st.page_link(
        PAGES["Compare"].path, label="Compare with the original", icon=":material/arrow_forward:",
        query_params=state.current().params(job=None) | {"models": f"{bench.model.id},{compressed.id}"},
    )  # fmt: skip

"""The Model page: the selected model, the form that trains one, the import of a checkpoint, and the list of all models."""

from pathlib import Path
from typing import Any

import streamlit as st

from ctrlab.figures.diagram import describe_model_diagram, model_diagram
from ctrlab.models.configs import MODELS, ModelConfig
from ctrlab.models.profile import ModelProfile
from ctrlab.reports.training import planned_training
from ctrlab.services import datasets, jobs, models, spectra
from ctrlab.services.capabilities import is_outside
from ctrlab.services.comparison import latest_evaluation
from ctrlab.services.doubts import model_doubts
from ctrlab.services.models import role_of
from ctrlab.services.outside import abilities
from ctrlab.storage import Artifact, Job
from ctrlab.training.configs import FitConfig
from ctrlab.ui import cache, format, state
from ctrlab.ui.components.artifact_picker import artifact_picker
from ctrlab.ui.components.bundle import bundle_options, bundle_progress, download_for_serving, score_rows
from ctrlab.ui.components.config_form import config_form
from ctrlab.ui.components.downloads import download_table, file_stem
from ctrlab.ui.components.job_progress import job_of_page, job_progress, watch
from ctrlab.ui.components.outside_model import weights_reader, what_is_not_offered
from ctrlab.ui.feedback import empty, escape, guarded, sentence, show_doubts
from ctrlab.ui.navigation import PAGES
from ctrlab.ui.path_sources import paths_offered

_KIND_NOTES = {"original": "", "compressed": ", compressed", "control": ", a control", "from_scratch": ", small from scratch"}


def render() -> None:
    """The page."""
    workspace, selection = cache.workspace(), state.current()
    known = models.list_models(workspace)
    job = job_of_page(("train", "import", "weights"))
    model = _selected_model(known) if known else None
    if selection.dataset is None:
        _choose_dataset()
        _progress(job)
        weights_reader(job)
        return
    dataset = workspace.store.artifacts.get(selection.dataset)
    training = job is not None and job.active and job.kind == "train"
    label = "Train another model" if model is not None else "Train a model"
    with st.expander(label, icon=":material/model_training:", expanded=model is None or training, key="train-drawer"):
        _train(dataset, job)
    _progress(job, "train")
    _import(dataset, job)
    weights_reader(job)


def _choose_dataset() -> None:
    """A picker over the encoded datasets; without any, the page that makes one."""
    known = datasets.list_datasets(cache.workspace())
    if not known:
        empty(
            "No dataset yet",
            "A model needs a dataset to train on: open the sample or encode a table first.",
            "Data",
            "Add a dataset",
        )
        return
    st.markdown("A model needs a dataset to train on. Choose one:")
    artifact_picker("dataset", known, label="Dataset")
    if state.current().dataset is not None:
        st.rerun()


def _progress(job: Job | None, kind: str | None = None) -> None:
    """The job below the button that queued it: its progress, then what was made of it."""
    if job is None or job.kind == "weights" or kind not in (None, job.kind):
        return
    job = job_progress(
        job.id, curves=job.kind == "train" and job.state != "succeeded", on_success=_select_result, quiet_success=True
    )
    if job.state != "succeeded":
        return
    model = cache.workspace().store.artifacts.get(job.result["model"])
    evaluation = latest_evaluation(cache.workspace(), model.id)
    found = evaluation.summary if evaluation else None
    auc = f" Its AUC is {format.auc(found['metrics']['auc'])} on {found['split']} rows." if found else ""
    st.success(f"{escape(model.name)} is ready and selected.{auc}", icon=":material/check_circle:")


def _select_result(job: Job) -> None:
    state.select(model=job.result["model"])
    st.rerun()


def _selected_model(known: list[Artifact]) -> Artifact | None:
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        model = artifact_picker("model", known, label="Selected model", describe=_describe)
    if model is None:
        return None
    with right:
        _spectra_link(model)
    _facts(model)
    with st.container(horizontal=True, key="serving"):
        download_for_serving(model)
        bundle_options(model)
    bundle_progress([model.id])
    show_doubts(model_doubts(cache.workspace(), model))
    _map(model)
    _learning_curve(model)
    _diagram(model)
    score_rows(model)
    what_is_not_offered(model)
    with st.expander(f"All models ({len(known)})", icon=":material/list:"):
        _table(known)
    return model


def _spectra_link(model: Artifact) -> None:
    """The way to the model's spectra; where it has none, the button that computes them on their page."""
    if spectra.latest_spectra(cache.workspace(), model.id) is not None:
        st.page_link(
            PAGES["Spectra"].path, label="View spectra", icon=":material/arrow_forward:",
            query_params=state.current().params(job=None),
        )  # fmt: skip
        return
    if reason := abilities(cache.workspace(), model).why_not("spectra"):
        st.caption(reason)
        return
    if st.button("Compute spectra", type="primary", icon=":material/bar_chart:", key="compute-spectra"):
        with guarded() as outcome:
            watch(spectra.submit_spectra(cache.workspace(), spectra.SpectraConfig(model_id=model.id)))
        if not outcome.failed:
            st.switch_page(PAGES["Spectra"].path, query_params=state.current().params())


def _describe(model: Artifact) -> str:
    cost = model.summary["cost_serving"]
    parameters = format.count(cost["parameters_tables"] + cost["parameters_dense"])
    return f"{parameters} parameters{_KIND_NOTES[role_of(model)]}"


def _facts(model: Artifact) -> None:
    """Accuracy and size at a glance."""
    cost = model.summary["cost_serving"]
    evaluation = latest_evaluation(cache.workspace(), model.id)
    metrics: dict[str, Any] = evaluation.summary.get("metrics", {}) if evaluation else {}
    split = evaluation.summary["split"] if evaluation else "registered" if is_outside(model) else "test"
    tables, dense = cost["parameters_tables"], cost["parameters_dense"]
    columns = st.columns(4)
    columns[0].metric(
        "Architecture", model.summary["architecture"], border=True, delta=_made(model), delta_color="off", delta_arrow="off"
    )
    columns[1].metric(
        f"AUC ({split})", format.auc(metrics.get("auc")), border=True, delta_color="off", delta_arrow="off",
        delta=_measured(evaluation),
    )  # fmt: skip
    columns[2].metric(
        "Parameters", format.count(tables + dense), border=True, delta_color="off", delta_arrow="off",
        delta=f"{format.count(tables)} in tables, {format.count(dense)} dense",
    )  # fmt: skip
    columns[3].metric(
        "Size", format.size(cost["bytes_tables"] + cost["bytes_dense"]), border=True, delta_color="off", delta_arrow="off",
        delta=f"{format.count(cost['macs'])} MACs per row",
    )  # fmt: skip
    trained = model.summary["cost"]["parameters_tables"] + model.summary["cost"]["parameters_dense"]
    if format.count(trained) != format.count(tables + dense):
        st.caption(
            f"Counted in the serving form. While training it has {format.count(trained)} parameters; what serving does not need "
            "is folded away."
        )


def _measured(evaluation: Artifact | None) -> str:
    """Log loss and clicks, or the number of an outside model's own function."""
    if evaluation is None:
        return "not measured yet"
    metrics, own = evaluation.summary["metrics"], evaluation.summary.get("measure")
    if metrics["log_loss"] is None and own is not None:
        return format.accuracy(evaluation.summary)
    return f"log loss {format.auc(metrics['log_loss'])}, {_clicks(metrics)}"


def _clicks(metrics: dict[str, Any]) -> str:
    """Number of clicks beside an AUC."""
    clicks = metrics["num_clicks"]
    return format.plural(clicks, "click") if clicks < 1000 else f"{format.count(clicks)} clicks"


def _map(model: Artifact) -> None:
    """The model's blocks with their layers by size and by the rank they need; a click on a layer leads to its spectrum."""
    from ctrlab.ui.components.figure import figure  # imports pandas and plotly, which a page without a model does not need

    found = spectra.latest_spectra(cache.workspace(), model.id)
    shares = _shares(found.id) if found is not None else None
    profile = cache.model_profile(cache.workspace(), model.id)
    with st.container(key="model-map-box"):
        selection = figure(
            "model_map", profile, shares, key="model-map", file=file_stem(model.name, "map"), title="", on_select="rerun",
            selection_mode="points",
        )  # fmt: skip
    clicked = [point["customdata"] for point in selection.selection.points if point.get("customdata")]
    if clicked:
        layer = clicked[0] if isinstance(clicked[0], str) else clicked[0][0]
        st.switch_page(PAGES["Spectra"].path, query_params=state.current().params(job=None) | {"layer": layer})


def _shares(spectra_id: str) -> dict[str, float]:
    """{layer: rank for 95 % of the variance, as a share of the width}."""
    layers = cache.layer_spectra(cache.workspace(), spectra_id)
    return {name: spectrum.rank_for(0.95) / spectrum.width for name, spectrum in layers.items()}


def _learning_curve(model: Artifact) -> None:
    """Loss and AUC of the training that made the model; nothing where none was recorded."""
    if model.job_id is None:
        return
    table = jobs.job_curves(cache.workspace(), model.job_id)
    if not table["name"].isin(["train_loss", "valid_auc"]).any():
        return
    from ctrlab.ui.components.figure import figure

    with st.expander("How it was trained", icon=":material/show_chart:", expanded=True, key="learning-curve"):
        figure("training_curves", table, key="learning-curve-chart", file=file_stem(model.name, "training"), title="")


def _diagram(model: Artifact) -> None:
    """Flow chart of the model with the parameters of each block."""
    profile = ModelProfile.from_dict(model.summary["profile"])
    sentence = describe_model_diagram(profile)
    with st.expander("Structure in words", icon=":material/account_tree:", key="diagram"):
        st.mermaid_chart(model_diagram(profile), alt=sentence)
        st.caption(escape(sentence))


def _made(model: Artifact) -> str:
    return ("compressed " if model.config.get("compression") else "created ") + format.ago(model.created_at)


def _table(known: list[Artifact]) -> None:
    import pandas as pd

    rows = []
    for model in known:
        cost, evaluation = model.summary["cost_serving"], latest_evaluation(cache.workspace(), model.id)
        rows.append(
            {
                "name": model.name,
                "kind": role_of(model).replace("_", " "),
                "architecture": model.summary["architecture"],
                "auc": evaluation.summary["metrics"]["auc"] if evaluation else None,
                "clicks": evaluation.summary["metrics"]["num_clicks"] if evaluation else None,
                "parameters_tables": cost["parameters_tables"],
                "parameters_dense": cost["parameters_dense"],
                "made": model.created_at,
                "id": model.id,
            }
        )
    table = pd.DataFrame(rows)
    st.dataframe(
        table,
        hide_index=True,
        key="models",
        alt="All models with their AUC and size",
        column_config={
            "name": st.column_config.TextColumn("Name", pinned=True),
            "kind": "Kind",
            "architecture": "Architecture",
            "auc": st.column_config.NumberColumn("AUC", format="%.4f"),
            "clicks": st.column_config.NumberColumn("Clicks measured on", format="localized"),
            "parameters_tables": st.column_config.NumberColumn("Parameters in tables", format="localized"),
            "parameters_dense": st.column_config.NumberColumn("Dense parameters", format="localized"),
            "made": st.column_config.DatetimeColumn("Created", format="YYYY-MM-DD HH:mm"),
            "id": "Id",
        },
    )
    download_table(table, "models")


def _train(dataset: Artifact, job: Job | None) -> None:
    busy = job is not None and job.active
    entries = {entry.name: entry for entry in MODELS}
    architecture = st.pills(
        "Architecture", list(entries), default=next(iter(entries)), required=True, key="architecture",
        format_func=lambda name: entries[name].title, persist_state="session",
    ) or next(iter(entries))  # fmt: skip
    entry = entries[architecture]
    st.caption(escape(entry.description))
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**Network**")
        network = config_form(entry.config_class, key=f"model-{architecture}", columns=2)
        name = st.text_input(
            "Name",
            key="model-name",
            placeholder=f"{entry.title} on {dataset.name}",
            persist_state="session",
            help="Shown in lists.",
        )
    with right:
        st.markdown("**Training**")
        fit = config_form(FitConfig, key="fit", columns=3, omit=("rows", "keep_initial", "distillation"))
    ready = network is not None and fit is not None
    lacking = "; ".join(network.schema_faults(models.schema_of(dataset))) if isinstance(network, ModelConfig) else ""
    if lacking:
        st.info(sentence(lacking), icon=":material/info:")
    reason = "A model is being trained" if busy else "Correct the settings first" if not ready else lacking or None
    clicked = st.button(
        f"Train {entry.title}", type="primary", key="train", icon=":material/model_training:", disabled=reason is not None,
        help=reason,
    )  # fmt: skip
    if fit is not None:
        rows = dataset.summary["rows"]["train"]
        planned = planned_training(fit, rows, round(rows * dataset.summary["ctr"]["train"]))
        st.caption(f"On {escape(dataset.name)}, {planned}.")
    if clicked and network is not None and fit is not None:
        with guarded() as outcome:
            config = models.TrainConfig(
                dataset_id=dataset.id, architecture=architecture, model=network.to_dict(), fit=fit, name=(name or "").strip()
            )
            watch(models.submit_train(cache.workspace(), config))
        if not outcome.failed:
            st.rerun()


def _import(dataset: Artifact, job: Job | None) -> None:
    importing = job is not None and job.kind == "import"
    with st.expander("Import a checkpoint", icon=":material/upload_file:", expanded=importing):
        st.caption(
            f"A .safetensors file that ctrlab wrote, trained on {escape(dataset.name)}. "
            "Other formats are refused unopened, because loading a pickle can run code."
        )
        left, right = st.columns(2, gap="large")
        with left:
            upload = st.file_uploader("Upload a checkpoint", key="checkpoint-upload")
        with right:
            typed = None
            if paths_offered():
                typed = st.text_input(
                    "Or the path of a checkpoint on this machine", key="checkpoint-path", persist_state="session"
                )
        busy = job is not None and job.active
        if st.button("Import", key="import", disabled=busy or not (upload or typed), icon=":material/download:"):
            with guarded() as outcome:
                workspace = cache.workspace()
                path = datasets.stage_upload(workspace, upload.name, upload) if upload else Path(typed or "")
                uploaded = upload is not None
                watch(models.import_checkpoint(workspace, dataset.id, path, in_child=True, uploaded=uploaded))
            if not outcome.failed:
                st.rerun()
        _progress(job, "import")

"""The bundle of a model: made, downloaded, and used to score a table."""

import streamlit as st

from ctrlab.services import bundles, export, scores
from ctrlab.services.datasets import stage_upload
from ctrlab.services.outside import abilities
from ctrlab.storage import Artifact
from ctrlab.ui import cache
from ctrlab.ui.components.downloads import file_name
from ctrlab.ui.components.integers import integers
from ctrlab.ui.components.job_progress import job_of_page, job_progress, watch
from ctrlab.ui.feedback import escape, guarded, sentence

#: Kinds of jobs that these buttons queue.
KINDS = ("bundle", "integers", "scores")


def download_for_serving(model: Artifact) -> None:
    """The button of everything that serving needs; the one that makes the bundle where there is none yet."""
    workspace = cache.workspace()
    reason = abilities(workspace, model).why_not("serve")
    made = bundles.latest_bundle(workspace, model.id)
    if made is None and not reason:
        if st.button(
            "Prepare for serving", key="prepare-serving", type="primary", icon=":material/deployed_code:",
            help="Makes a bundle: encoder and model in one ONNX file that reads raw rows, checked row by row against the model.",
        ):  # fmt: skip
            _queue(bundles.BundleConfig(model_id=model.id))
        return
    what = f"its weights. {reason}"
    if made is not None:
        what = f"the bundle that reads raw rows (version {made.summary['version']}, {made.summary['form']}), and its checkpoints"
    st.download_button(
        "Download weights" if made is None else "Download for serving",
        lambda: export.model_archive(workspace, model.id), file_name(model.name, suffix="zip"), "application/zip",
        key="download-model", icon=":material/download:", type="primary", on_click="ignore", help=f"{model.name}: {what}",
    )  # fmt: skip


def bundle_options(model: Artifact) -> None:
    """Other forms of the bundle than the one that the button makes; nothing where there can be none."""
    if not abilities(cache.workspace(), model).allows("serve"):
        return
    with st.popover("Bundle", icon=":material/deployed_code:"):
        st.caption(
            "A bundle is a folder with the encoder and the model in one ONNX file that reads raw rows and needs ONNX Runtime "
            "alone. It is written only where it answers as the model does."
        )
        form = st.segmented_control(
            "Form",
            ["float", "integers"],
            default="float",
            required=True,
            format_func=str.capitalize,
            key=f"bundle-form-{model.id}",
        )
        calibrate = st.checkbox(
            "Calibrate probabilities", key=f"bundle-calibrate-{model.id}",
            help="Fits scale and intercept of the logit on the validation rows. AUC does not change, predicted clicks do.",
        )  # fmt: skip
        if form == "integers":
            st.caption("Tables are bytes and layers multiply bytes; refused where answers would be others than the float form's.")
        config = bundles.BundleConfig(model_id=model.id, form=form or "float", calibrate=calibrate)
        made = bundles.latest_bundle(cache.workspace(), model.id, config)
        label = f"Version {made.summary['version']} has this form" if made else "Make this bundle"
        if st.button(label, key=f"make-bundle-{model.id}", disabled=made is not None):
            _queue(config)
        integers(model.id)


def bundle_progress(model_ids: list[str]) -> None:
    """The job that one of these buttons queued."""
    job = job_of_page(KINDS, lambda job: job.config.get("model_id") in model_ids)
    if job is not None:
        job_progress(job.id, quiet_success=True)


def score_rows(model: Artifact) -> None:
    """An upload becomes a file of probabilities."""
    workspace = cache.workspace()
    if not abilities(workspace, model).allows("serve"):
        return
    with st.expander("Score new rows", icon=":material/table_view:", key="score-rows"):
        st.caption(
            "A table as the model was trained on, with or without the label: every row gets its probability of a click, in the "
            "order of the table."
        )
        upload = st.file_uploader("Table", key="score-upload", label_visibility="collapsed")
        keep = st.text_input("Columns to keep beside the probabilities", key="score-keep", placeholder="id, user_id")
        if st.button("Score", key="score", disabled=upload is None, help=None if upload else "Choose a table first."):
            assert upload is not None
            with guarded() as outcome:
                path = stage_upload(workspace, upload.name, upload)
                names = tuple(name.strip() for name in keep.split(",") if name.strip())
                config = scores.ScoresConfig(model_id=model.id, path=str(path), keep=names, uploaded=True)
                watch(scores.submit_scores(workspace, config))
            if not outcome.failed:
                st.rerun()
        made = scores.latest_scores(workspace, model.id)
        if made is not None:
            _scored(made)


def _scored(made: Artifact) -> None:
    summary = made.summary
    st.markdown(f"{summary['rows']:,} rows scored, mean probability {summary['mean']:.4f}.")
    for note in summary["notes"]:
        st.warning(escape(sentence(f"{note['text']}; {note['remedy']}")), icon=":material/warning:")
    st.download_button(
        f"Probabilities of {summary['rows']:,} rows", (made.path / scores.SCORES_FILE).read_bytes, "scores.csv", "text/csv",
        key="download-scores", icon=":material/download:", on_click="ignore",
    )  # fmt: skip


def _queue(config: bundles.BundleConfig) -> None:
    with guarded() as outcome:
        watch(bundles.submit_bundle(cache.workspace(), config))
    if not outcome.failed:
        st.rerun()

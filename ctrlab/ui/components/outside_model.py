"""Models from outside on the Model page: reading a file of weights, and what is not offered for one, with the reason."""

from pathlib import Path

import streamlit as st

from ctrlab.services import datasets
from ctrlab.services import outside as service
from ctrlab.services.capabilities import is_outside
from ctrlab.storage import Artifact, Job
from ctrlab.ui import cache, state
from ctrlab.ui.components.job_progress import job_progress, watch
from ctrlab.ui.feedback import escape, guarded
from ctrlab.ui.path_sources import paths_offered

_ABILITIES = {
    "spectra": "Spectra of outputs", "compress": "Compression", "measure": "AUC", "sensitivity": "Live AUC and sensitivity",
    "finetune": "Fine-tuning", "methods": "Other methods", "time": "Timing", "serve": "ONNX", "segments": "AUC by segment",
}  # fmt: skip


def what_is_not_offered(model: Artifact) -> None:
    """The reasons why parts of the pages are not there for a model from outside; nothing for one that ctrlab trained."""
    if not is_outside(model):
        return
    found = service.abilities(cache.workspace(), model)
    grouped: dict[str, list[str]] = {}
    for ability, reason in found.reasons.items():
        grouped.setdefault(reason, []).append(_ABILITIES[ability])
    with st.expander("What is not offered for this model, and why", icon=":material/info:", key="not-offered"):
        st.markdown("\n".join(f"- **{', '.join(names)}.** {reason}" for reason, names in grouped.items()))
        other = model.summary.get("other", {})
        layers = model.summary["profile"]["layers"]
        skipped = {layer["layer_name"]: layer["skip_reason"] for layer in layers if layer["skip_reason"]}
        lines = [f"- `{name or 'the module itself'}`: {escape(reason)}" for name, reason in {**skipped, **other}.items()]
        if lines:
            st.markdown("**Not compressed**\n" + "\n".join(lines))


def weights_reader(job: Job | None) -> None:
    """A file of weights without its architecture: its layers, sizes and weight spectra."""
    reading = job is not None and job.kind == "weights"
    with st.expander("Look at weights trained elsewhere", icon=":material/visibility:", expanded=reading, key="weights-drawer"):
        st.caption(
            "A .safetensors, .onnx or .npy file: its layers, sizes and the spectra of its weights. A model with its "
            "architecture, for AUC and compression, comes in from the command line: `ctrlab register module:function`."
        )
        left, right = st.columns(2, gap="large")
        with left:
            upload = st.file_uploader("Upload weights", key="weights-upload", type=[name[1:] for name in service.WEIGHT_FILES])
        with right:
            typed = None
            if paths_offered():
                typed = st.text_input("Or the path of a file on this machine", key="weights-path", persist_state="session")
        busy = job is not None and job.active
        if st.button("Read weights", key="read-weights", disabled=busy or not (upload or typed), icon=":material/visibility:"):
            with guarded() as outcome:
                workspace = cache.workspace()
                path = datasets.stage_upload(workspace, upload.name, upload) if upload else Path(typed or "")
                watch(service.submit_weights(workspace, path, uploaded=upload is not None))
            if not outcome.failed:
                st.rerun()
        if job is not None and reading:
            job_progress(job.id, on_success=_show, quiet_success=True)


def _show(job: Job) -> None:
    state.select(dataset=None, model=job.result["model"])
    state.select(spectra=job.result["spectra"])
    st.rerun()

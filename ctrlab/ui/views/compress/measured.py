"""The accuracy of the current plan before fine-tuning: predicted from sensitivity, and measured in the preview process."""

import uuid
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass

import streamlit as st

from ctrlab.errors import CtrlabError
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.cost_prediction import Prediction
from ctrlab.services import previews
from ctrlab.services.previews import Answer, OwnMeasure, Preview, PreviewError, PreviewRequest, Superseded
from ctrlab.ui.feedback import sentence
from ctrlab.ui.views.compress.context import CompressContext

#: How long a run waits for a measurement: most are done by then, and the page shows it without another run.
_WAIT_SECONDS = 0.2
#: Key of whether this session has seen a measurement.
_MEASURED = "preview-measured"
#: Time limit of a measurement. The first one includes starting the process and loading the model.
_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class Measurement:
    """preview: None until it is there. note: shown in its place. waiting: whether it is worth asking again."""

    preview: Preview | None = None
    note: str = ""
    waiting: bool = False


def request(context: CompressContext, spec: CompressionSpec) -> "Future[Answer]":
    """Request the measurement of the plan, in float32; the future is done at once for a plan that was measured before.

    It fails at once where plans of the model cannot be measured.
    """
    if reason := context.abilities.why_not("measure"):
        refused: Future[Answer] = Future()
        refused.set_exception(PreviewError(reason.rstrip(".")))
        return refused
    wanted = PreviewRequest(model_id=context.model.id, spectra_id=context.spectra_id, spec=spec.replace(precision="float32"))
    client = st.session_state.setdefault("preview-client", uuid.uuid4().hex)
    return previews.preview_process(context.workspace).ask(wanted, client)


def predicts_auc(prediction: Prediction) -> bool:
    """Whether the sensitivity, which is measured by truncation as AFM does it, is one of the method chosen."""
    return prediction.method.projects_outputs and prediction.method.keeps_latents


def wait(answer: "Future[Answer]") -> Measurement:
    """What is known of the measurement after a moment.

    Not for long: Streamlit does not interrupt the run of a fragment for another, so that a newer plan would wait as well.
    """
    futures.wait([answer], _WAIT_SECONDS)
    error = answer.exception() if answer.done() else None
    if answer.done() and error is None:
        st.session_state[_MEASURED] = True
        found = answer.result()
        if isinstance(found, OwnMeasure):
            return Measurement(note=f"Own measure {found.value:.6g}, where the original has {found.original:.6g}.")
        return Measurement(found)
    if isinstance(error, CtrlabError) and not isinstance(error, Superseded):
        return Measurement(note=f"Not measured. {sentence(str(error))}")
    seen = st.session_state.get(_MEASURED)
    return Measurement(note="measuring" if seen else "loading the model and the validation rows", waiting=True)

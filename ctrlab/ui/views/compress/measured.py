"""The accuracy of the current plan before fine-tuning: predicted from sensitivity, and measured in the preview process."""

import time
import uuid
from concurrent.futures import Future

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ctrlab.errors import CtrlabError
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.cost_prediction import Prediction
from ctrlab.plans.sensitivity import Sensitivity
from ctrlab.services import previews
from ctrlab.services.previews import Preview, PreviewRequest, Superseded
from ctrlab.ui import format
from ctrlab.ui.feedback import sentence
from ctrlab.ui.views.compress.context import CompressContext

#: Polling interval; each poll also lets a newer slider step interrupt this one.
_POLL_SECONDS = 0.05
#: Time limit of a measurement. The first one includes starting the process and loading the model.
_TIMEOUT_SECONDS = 120.0


def request(context: CompressContext, spec: CompressionSpec) -> "Future[Preview]":
    """Request the measurement of the plan, in float32; the future is done at once for a plan that was measured before."""
    wanted = PreviewRequest(model_id=context.model.id, spectra_id=context.spectra_id, spec=spec.replace(precision="float32"))
    client = st.session_state.setdefault("preview-client", uuid.uuid4().hex)
    return previews.preview_process(context.workspace).ask(wanted, client)


def known(answer: "Future[Preview]") -> Preview | None:
    """The measurement, if it is finished and did not fail."""
    return answer.result() if answer.done() and answer.exception() is None else None


def predicts_auc(prediction: Prediction) -> bool:
    """Whether the sensitivity, which is measured by truncation as AFM does it, is one of the method chosen."""
    return prediction.method.projects_outputs and prediction.method.keeps_latents


def show(slot: DeltaGenerator, answer: "Future[Preview]", prediction: Prediction, sensitivity: Sensitivity | None) -> bool:
    """Fill `slot` with the measurement, waiting for it if need be; call this after the rest of the page is drawn.

    Returns:
        Whether the measurement arrived while waiting.
    """
    ranks = prediction.ranks
    if not predicts_auc(prediction):
        sensitivity = None
    predicted = (sensitivity.predicted_auc(ranks), sensitivity.predicted_log_loss(ranks)) if sensitivity else None
    if answer.done():
        _fill(slot, answer, predicted)
        return False
    started = time.monotonic()
    while not answer.done() and time.monotonic() - started < _TIMEOUT_SECONDS:
        # Streamlit interrupts a run for a newer slider step when the run draws.
        waited = time.monotonic() - started
        slot.html(_table(None, predicted, "measuring" if waited < 1.5 else "loading the model and the validation rows"))
        time.sleep(_POLL_SECONDS)
    if answer.done():
        _fill(slot, answer, predicted)
    return answer.done()


def _fill(slot: DeltaGenerator, answer: "Future[Preview]", predicted: tuple[float, float] | None) -> None:
    try:
        slot.html(_table(answer.result(), predicted, ""))
    except Superseded:
        return
    except CtrlabError as error:
        slot.caption(f"Not measured. {sentence(str(error))}")


def _table(preview: Preview | None, predicted: tuple[float, float] | None, state: str) -> str:
    rows = [
        ("AUC", "higher is better", _numbers(preview, predicted, 0)),
        ("Log loss", "lower is better", _numbers(preview, predicted, 1)),
    ]  # fmt: skip
    body = "".join(
        f"<tr><th scope='row' title='{hint}'>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, hint, cells in rows
    )
    heads = "".join(f"<th scope='col'>{head}</th>" for head in ("Before fine-tuning", "Predicted", "Measured", "Change, 95 %"))
    note = f"on {preview.num_rows:,} validation rows" if preview is not None else state
    return (
        f"<table class='costs measured' aria-live='polite'><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
        f"<p class='measured-note'>{note or '&nbsp;'}</p>"
    )


def _numbers(preview: Preview | None, predicted: tuple[float, float] | None, which: int) -> tuple[str, str, str]:
    """Cells of a row: predicted, measured, change with its interval."""
    expected = f"{predicted[which]:.4f}" if predicted is not None else format.NONE
    if preview is None:
        return expected, format.NONE, format.NONE
    value = preview.auc.estimate if which == 0 else preview.log_loss
    change = preview.auc_change if which == 0 else preview.log_loss_change
    interval = f"<small>{format.difference(change.low)} to {format.difference(change.high)}</small>"
    return expected, f"{value:.4f}", f"{format.difference(change.estimate)} {interval}"

"""The planned model's accuracy, measured while the sliders are warm, beside what its layers were predicted to lose."""

import time
import uuid
from concurrent.futures import Future

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ctrlab.errors import CtrlabError
from ctrlab.plans.configs import Basis, Bottleneck, RankPlan
from ctrlab.plans.cost_prediction import Prediction
from ctrlab.plans.sensitivity import Sensitivity
from ctrlab.services import previews
from ctrlab.services.previews import Preview, PreviewRequest, Superseded
from ctrlab.ui import cache
from ctrlab.ui.components.bench import Bench
from ctrlab.ui.feedback import sentence

#: Between two looks for the answer; each also lets a newer slider step begin.
_LOOK_SECONDS = 0.05
#: The first answer waits for the process to start and for the model to be read; a later one that takes so long never comes.
_PATIENCE_SECONDS = 120.0
_DASH = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def ask(bench: Bench, plan: RankPlan, method: str, bottleneck: Bottleneck, basis: Basis) -> "Future[Preview]":
    """Have the plan measured; done at once where it was before."""
    request = PreviewRequest(
        model_id=bench.model.id, spectra_id=bench.spectra_id, plan=plan, method=method, bottleneck=bottleneck, basis=basis
    )
    asker = st.session_state.setdefault("preview-asker", uuid.uuid4().hex)
    return previews.preview_process(cache.workspace()).ask(request, asker)


def known(answer: "Future[Preview]") -> Preview | None:
    """The answer, if it is there and good."""
    return answer.result() if answer.done() and answer.exception() is None else None


def show(slot: DeltaGenerator, answer: "Future[Preview]", prediction: Prediction, sensitivity: Sensitivity | None) -> bool:
    """Fill `slot` with the figures as soon as they are there; the rest of the page is drawn already.

    Returns:
        Whether the answer came while waiting.
    """
    ranks = prediction.ranks
    predicted = (sensitivity.predicted_auc(ranks), sensitivity.predicted_log_loss(ranks)) if sensitivity else None
    if answer.done():
        _fill(slot, answer, predicted)
        return False
    started = time.monotonic()
    while not answer.done() and time.monotonic() - started < _PATIENCE_SECONDS:
        # Drawing is also where a newer slider step takes over from this one.
        waited = time.monotonic() - started
        slot.html(_table(None, predicted, "measuring" if waited < 1.5 else "reading the model and its validation rows"))
        time.sleep(_LOOK_SECONDS)
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
    """Predicted, measured, change with its interval."""
    guess = f"{predicted[which]:.4f}" if predicted is not None else _DASH
    if preview is None:
        return guess, _DASH, _DASH
    value = preview.auc.estimate if which == 0 else preview.log_loss
    change = preview.auc_change if which == 0 else preview.log_loss_change
    return guess, f"{value:.4f}", f"{_signed(change.estimate)} <small>{_signed(change.low)} to {_signed(change.high)}</small>"


def _signed(value: float) -> str:
    text = f"{abs(value):.4f}"
    return text if float(text) == 0 else (_MINUS if value < 0 else "+") + text

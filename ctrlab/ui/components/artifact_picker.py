"""Choosing a dataset, a model or a spectrum: what is chosen is in hand on every page."""

from collections.abc import Callable, Sequence

import streamlit as st

from ctrlab.storage import Artifact
from ctrlab.ui import format, state


def artifact_picker(
    kind: str, artifacts: Sequence[Artifact], *, label: str, describe: Callable[[Artifact], str] = lambda artifact: ""
) -> Artifact | None:
    """A select box over `artifacts` that takes the chosen one in hand; None when there is none to choose.

    Args:
        kind: which id in hand this sets: "dataset", "model" or "spectra".
        describe: a few words after the name, e.g. its AUC.
    """
    if not artifacts:
        return None
    by_id = {artifact.id: artifact for artifact in artifacts}
    in_hand = getattr(state.current(), kind)
    key = f"pick-{kind}"
    if st.session_state.get(key) != in_hand or in_hand not in by_id:
        st.session_state[key] = in_hand if in_hand in by_id else None

    def take() -> None:
        state.hold(**{kind: st.session_state[key]})

    st.selectbox(
        label, list(by_id), key=key, on_change=take, placeholder=f"Choose one of {len(by_id)}",
        format_func=lambda artifact_id: _line(by_id[artifact_id], describe),
    )  # fmt: skip
    return by_id.get(st.session_state[key])


def _line(artifact: Artifact, describe: Callable[[Artifact], str]) -> str:
    parts = (artifact.name, describe(artifact), format.ago(artifact.created_at))
    return " · ".join(part for part in parts if part)

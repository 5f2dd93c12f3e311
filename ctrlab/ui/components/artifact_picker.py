"""A select box for a dataset, a model or spectra; the choice is the selection on every page."""

from collections.abc import Callable, Sequence

import streamlit as st

from ctrlab.storage import Artifact
from ctrlab.ui import format, state


def artifact_picker(
    kind: str, artifacts: Sequence[Artifact], *, label: str, describe: Callable[[Artifact], str] = lambda artifact: ""
) -> Artifact | None:
    """The artifact chosen in a select box over `artifacts`; None where nothing is chosen or there is nothing to choose.

    Args:
        kind: which id of the selection this sets: "dataset", "model" or "spectra".
        describe: text after the name, e.g. the number of parameters.
    """
    if not artifacts:
        return None
    by_id = {artifact.id: artifact for artifact in artifacts}
    selected = getattr(state.current(), kind)
    key = f"pick-{kind}"
    if st.session_state.get(key) != selected or selected not in by_id:
        st.session_state[key] = selected if selected in by_id else None

    def select() -> None:
        state.select(**{kind: st.session_state[key]})

    st.selectbox(
        label, list(by_id), key=key, on_change=select, placeholder=f"Choose one of {len(by_id)}",
        format_func=lambda artifact_id: _line(by_id[artifact_id], describe),
    )  # fmt: skip
    return by_id.get(st.session_state[key])


def _line(artifact: Artifact, describe: Callable[[Artifact], str]) -> str:
    parts = (artifact.name, describe(artifact), format.ago(artifact.created_at))
    return " · ".join(part for part in parts if part)

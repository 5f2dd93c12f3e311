"""A select box for a dataset, a model or spectra; the choice is the selection on every page.

Streamlit sends the label of an option back, not the option. Labels are therefore unique and hold nothing that changes by itself;
a label that belongs to no artifact (any more) is refused.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import streamlit as st

from ctrlab.services.annotations import unarchived
from ctrlab.storage import Artifact
from ctrlab.ui import state


def artifact_picker(
    kind: str, artifacts: Sequence[Artifact], *, label: str, describe: Callable[[Artifact], str] = lambda artifact: ""
) -> Artifact | None:
    """The artifact chosen in a select box over `artifacts`; None where nothing is chosen or there is nothing to choose.

    Args:
        kind: which id of the selection this sets: "dataset", "model" or "spectra".
        describe: text after the name, e.g. the number of parameters.
    """
    selected = getattr(state.current(), kind)
    artifacts = unarchived(artifacts, selected)
    if not artifacts:
        return None
    by_id = {artifact.id: artifact for artifact in artifacts}
    key = f"pick-{kind}"
    if st.session_state.get(key) != selected or selected not in by_id:
        st.session_state[key] = selected if selected in by_id else None

    def select() -> None:
        if st.session_state[key] in by_id:
            state.select(**{kind: st.session_state[key]})

    labels = unique_labels(artifacts, describe)
    st.selectbox(
        label, list(by_id), key=key, on_change=select, placeholder=f"Choose one of {len(by_id)}", format_func=labels.__getitem__,
    )  # fmt: skip
    return by_id.get(st.session_state[key])


def unique_labels(artifacts: Sequence[Artifact], describe: Callable[[Artifact], str] = lambda artifact: "") -> dict[str, str]:
    """{id: label}: name and description; equal ones get their id too."""
    lines = {a.id: " \N{MIDDLE DOT} ".join(filter(None, (a.name, describe(a)))) for a in artifacts}
    times = Counter(lines.values())
    return {key: line if times[line] == 1 else f"{line} \N{MIDDLE DOT} {key}" for key, line in lines.items()}

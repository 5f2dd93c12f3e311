"""The line at the top of every page: dataset, model and compressed models, each a menu; theme and link."""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from ctrlab.services.annotations import unarchived
from ctrlab.services.models import role_of
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact
from ctrlab.ui import state
from ctrlab.ui.components.artifact_picker import unique_labels
from ctrlab.ui.feedback import escape
from ctrlab.ui.navigation import PAGES

_BUTTONS = (Path(__file__).parent / "assets" / "header_buttons.html").read_text()
#: Menus list this many artifacts, newest first; a select box has the others.
_LISTED = 8
_NAME_LENGTH = 24


def header(workspace: Workspace) -> None:
    """Three menus, and the buttons for the theme and the link."""
    selection, artifacts = state.current(), workspace.store.artifacts
    datasets = artifacts.list(kind="dataset")
    known = [
        model for model in artifacts.list(kind="model")
        if selection.dataset is None or model.config.get("dataset_id") in (selection.dataset, None)
    ]  # fmt: skip
    children = artifacts.list(kind="model", parent=selection.model) if selection.model else []
    compressed = [child for child in children if role_of(child) == "compressed" and not child.config.get("is_control")]
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="header"):
        with st.container(horizontal=True, vertical_alignment="center", gap=None, width="stretch", key="selected"):
            _menu("dataset", "Data", datasets, selection.dataset)
            _menu("model", "Model", [model for model in known if role_of(model) != "control"], selection.model)
            _compressed(selection, compressed)
        st.html(_BUTTONS, width="content", unsafe_allow_javascript=True)


def _menu(kind: str, page: str, artifacts: Sequence[Artifact], selected: str | None) -> None:
    """The name of the selected artifact; opened, the others to select instead, and the way to their page."""
    artifacts = unarchived(artifacts, selected)
    by_id = {artifact.id: artifact for artifact in artifacts}
    labels = unique_labels(artifacts)
    shown = by_id.get(selected or "")
    with st.container(width="content", key=f"menu-{kind}"), st.popover(_label(kind, shown), type="tertiary"):
        for artifact in artifacts[:_LISTED]:
            st.button(
                escape(labels[artifact.id]), key=f"menu-{kind}-{artifact.id}", type="tertiary", on_click=_select,
                args=(kind, artifact.id), icon=":material/check:" if artifact is shown else None,
            )  # fmt: skip
        if len(artifacts) > _LISTED:
            # One key per selection: a poll that was sent before the selection changed reports the box's old value.
            key = f"menu-{kind}-all-{selected}"
            st.selectbox(
                f"All {len(artifacts):,}", list(by_id), index=None, key=key, format_func=labels.__getitem__,
                placeholder="Type to search", on_change=lambda: _select(kind, st.session_state[key]),
            )  # fmt: skip
        if not artifacts:
            st.caption(f"No {kind} yet.")
        _link(page, f"Open {page}", state.current().params(job=None))


def _select(kind: str, artifact_id: str | None) -> None:
    if artifact_id is not None:
        state.select(**{kind: artifact_id, "job": None})


def _compressed(selection: state.Selection, compressed: Sequence[Artifact]) -> None:
    """The newest compressed model; opened, each one's comparison with the original."""
    newest = compressed[0] if compressed else None
    labels = unique_labels(compressed)
    params = selection.params(job=None)
    with st.container(width="content", key="menu-compressed"), st.popover(_label("compressed", newest), type="tertiary"):
        for model in compressed[:_LISTED]:
            _link("Compare", escape(labels[model.id]), params | {"models": f"{selection.model},{model.id}"})
        if not compressed:
            st.caption("No compressed model yet.")
            _link("Compress", "Open Compress", params)
        else:
            _link("Compare", "Open Compare", params)


def _link(page: str, label: str, params: dict[str, str]) -> None:
    st.page_link(PAGES[page].path, label=label, icon=PAGES[page].icon, query_params=params)


def _label(kind: str, artifact: Artifact | None) -> str:
    """The name, cut to what the line has room for; what is missing where there is none."""
    if artifact is None:
        return ":gray[not compressed]" if kind == "compressed" else f":gray[no {kind}]"
    name = artifact.name
    return escape(name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}\N{HORIZONTAL ELLIPSIS}")

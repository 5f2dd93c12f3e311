"""The table of everything stored of one kind: search, filter, choose rows, and what can be done with them."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st

from ctrlab.services import annotations, models
from ctrlab.services.annotations import Subject
from ctrlab.services.comparison import original_id_of
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact, Job
from ctrlab.storage.folders import folder_bytes
from ctrlab.storage.records import ID_PREFIXES
from ctrlab.ui import address, cache, format, state
from ctrlab.ui.components import manage
from ctrlab.ui.navigation import PAGES

if TYPE_CHECKING:
    import pandas as pd

_SEARCH, _STARRED, _ARCHIVED, _TAGS = "find", "starred", "archived", "tags"
_ROW_HEIGHT, _MOST_HEIGHT = 35, 460


@dataclass(frozen=True)
class _Kind:
    """What one choice of the page lists, its own columns, and the page that shows one of them."""

    kinds: tuple[str, ...]
    facts: Callable[[Workspace, Sequence[Any]], dict[str, dict[str, Any]]]
    page: str | None


def library(kind: str) -> None:
    """Search, table and actions of one of `KINDS`."""
    workspace, of = cache.workspace(), KINDS[kind]
    every: list[Subject] = [*_listed(workspace, of)]
    found = _filtered(kind, every)
    if not found:
        st.caption(f"No {kind.lower()} match." if every else f"No {kind.lower()} yet.")
        return
    shown = f"{len(found):,} of {len(every):,}" if len(found) < len(every) else f"{len(found):,}"
    st.caption(f"{shown} {kind.lower()}. Choose rows to rename, note, tag, archive or delete them.")
    chosen = _table(workspace, of, found)
    if chosen:
        _actions(of, chosen)


def _listed(workspace: Workspace, of: _Kind) -> list[Artifact] | list[Job]:
    if not of.kinds:
        return workspace.store.jobs.list()
    return [artifact for artifact in workspace.store.artifacts.list() if artifact.kind in of.kinds]


def _filtered(kind: str, every: Sequence[Subject]) -> list[Subject]:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="storage-filter"):
        search = st.text_input("Search", address.start(_SEARCH), key=f"{_SEARCH}-{kind}", placeholder="name, id, note or tag",
                               icon=":material/search:")  # fmt: skip
        known = annotations.all_tags(every)
        linked = [tag for tag in address.start(_TAGS).split(",") if tag in known]
        tags = st.multiselect("Tags", known, linked, key=f"{_TAGS}-{kind}", placeholder="any") if known else []
        starred = st.toggle("Starred", address.start(_STARRED) == "1", key=f"{_STARRED}-{kind}")
        archived = st.toggle("Archived", address.start(_ARCHIVED) == "1", key=f"{_ARCHIVED}-{kind}")
    for parameter, text in ((_SEARCH, search), (_TAGS, ",".join(tags)), (_STARRED, "1" if starred else ""),
                            (_ARCHIVED, "1" if archived else "")):  # fmt: skip
        address.write(parameter, text)
    return annotations.select(every, search, tags=tags, starred=starred, archived=archived)


def _table(workspace: Workspace, of: _Kind, found: Sequence[Subject]) -> list[Subject]:
    """The table; its chosen rows. Another list of ids is another table, so that no choice moves to another row."""
    ids = ",".join(subject.id for subject in found)
    chosen = st.dataframe(
        _rows(workspace, of, found), key=f"storage-rows-{zlib.crc32(ids.encode())}", hide_index=True, on_select="rerun",
        selection_mode="multi-row", width="stretch", row_height=_ROW_HEIGHT,
        height=min(_ROW_HEIGHT * (len(found) + 1) + 3, _MOST_HEIGHT),
        column_config={
            "Name": st.column_config.TextColumn(width="large"),
            "Disk (MB)": st.column_config.NumberColumn(format="%.2f"),
            "Served (MB)": st.column_config.NumberColumn(format="%.2f"),
            "AUC": st.column_config.NumberColumn(format="%.4f"),
            "Rows": st.column_config.NumberColumn(format="localized"),
            "Created": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        },
    )  # fmt: skip
    return [found[row] for row in chosen.selection.rows if row < len(found)]


def _rows(workspace: Workspace, of: _Kind, found: Sequence[Subject]) -> "pd.DataFrame":
    import pandas as pd

    facts = of.facts(workspace, found)
    return pd.DataFrame(
        {
            "Star": "\N{BLACK STAR}" if subject.annotation.star else "",
            "Name": annotations.name_of(subject),
            **facts[subject.id],
            "Disk (MB)": folder_bytes(subject.folder if isinstance(subject, Job) else subject.path) / 1e6,
            "Tags": ", ".join(subject.annotation.tags),
            "Note": subject.annotation.note.partition("\n")[0],
            "Created": subject.created_at,
            "Id": subject.id,
        }
        for subject in found
    )


def _actions(of: _Kind, chosen: Sequence[Subject]) -> None:
    """What can be done with the chosen rows; one alone can also be renamed, noted and opened."""
    with st.container(border=True, key="storage-actions"):
        if len(chosen) == 1:
            manage.edit(chosen[0])
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            if len(chosen) == 1 and of.page is not None:
                _open(of.page, chosen[0])
            if len(chosen) > 1:
                st.markdown(f"**{len(chosen)} chosen**", width="content")
                manage.marks(chosen)
            _compare(chosen)
            manage.delete_panel(chosen)


def _open(page: str, subject: Subject) -> None:
    params = state.current().params(**{"job" if isinstance(subject, Job) else subject.kind: subject.id})
    st.page_link(PAGES[page].path, label=f"Open in {page}", icon=PAGES[page].icon, query_params=params)


def _compare(chosen: Sequence[Subject]) -> None:
    """A link to the comparison of chosen models of one dataset, or of one outside model."""
    found = [subject for subject in chosen if isinstance(subject, Artifact) and subject.kind == "model"]
    rows = {("dataset", own) if (own := model.config.get("dataset_id")) else ("model", original_id_of(model)) for model in found}
    if len(found) < 2 or len(rows) != 1:
        return
    page = PAGES["Compare"]
    key, value = rows.pop()
    params = {key: value, "models": ",".join(model.id for model in found)}
    st.page_link(page.path, label=f"Compare {len(found)}", icon=page.icon, query_params=params)


def _dataset_facts(workspace: Workspace, found: Sequence[Artifact]) -> dict[str, dict[str, Any]]:
    return {dataset.id: {"Rows": sum(dataset.summary.get("rows", {}).values())} for dataset in found}


def _model_facts(workspace: Workspace, found: Sequence[Artifact]) -> dict[str, dict[str, Any]]:
    newest: dict[str, Artifact] = {}
    for evaluation in workspace.store.artifacts.list(kind="evaluation"):  # newest first
        newest.setdefault(evaluation.parents[0], evaluation)
    facts = {}
    for model in found:
        measured, cost = newest.get(model.id), model.summary["cost_serving"]
        facts[model.id] = {
            "Role": models.role_of(model).replace("_", " "),
            "AUC": measured.summary["metrics"].get("auc") if measured else None,
            "Served (MB)": (cost["bytes_tables"] + cost["bytes_dense"]) / 1e6,
        }
    return facts


def _result_facts(workspace: Workspace, found: Sequence[Artifact]) -> dict[str, dict[str, Any]]:
    return {result.id: {"Kind": result.kind} for result in found}


def _job_facts(workspace: Workspace, found: Sequence[Job]) -> dict[str, dict[str, Any]]:
    return {job.id: {"State": job.state, "Took": format.duration(job.duration_seconds)} for job in found}


_RESULTS = tuple(kind for kind in ID_PREFIXES if kind not in ("dataset", "model"))
#: What the page lists; results are everything that was measured or planned of a model.
KINDS: dict[str, _Kind] = {
    "Models": _Kind(("model",), _model_facts, "Model"),
    "Datasets": _Kind(("dataset",), _dataset_facts, "Data"),
    "Results": _Kind(_RESULTS, _result_facts, None),
    "Jobs": _Kind((), _job_facts, "Jobs"),
}

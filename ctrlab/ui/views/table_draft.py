"""The review of an inspected table before it is encoded: findings, label, columns, split and name."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from ctrlab.data.configs import ColumnConfig, DatasetConfig, SourceConfig, SplitConfig
from ctrlab.data.tables.notes import Note
from ctrlab.errors import CtrlabError
from ctrlab.services import datasets
from ctrlab.ui import cache, format
from ctrlab.ui.components.column_editor import (
    column_configs,
    column_editor,
    column_faults,
    column_table,
    followed,
    summary_line,
)
from ctrlab.ui.components.config_form import config_form, show_faults
from ctrlab.ui.components.explain import explain
from ctrlab.ui.components.job_progress import watch
from ctrlab.ui.components.label_form import label_form
from ctrlab.ui.components.notes import notes_list
from ctrlab.ui.feedback import escape, guarded

if TYPE_CHECKING:
    import pandas as pd

    from ctrlab.data.tables.inspect import TableInspection

_SEVERAL = {"table": "Parts of one table", "splits": "The train, valid, test and finetune rows"}
#: Ignored columns named before the others are counted.
_NAMED = 4


@dataclass
class Draft:
    """A table that was inspected and is not encoded yet; lives in the session.

    number: part of the widgets' keys, so that each draft has its own. revision: likewise of the column editor, for changes made
    elsewhere. config: of a known format, else None. drafted: the columns as `inspection` suggests them.
    """

    number: int
    inspection: "TableInspection"
    name: str
    uploaded: bool
    columns: "pd.DataFrame"
    drafted: tuple[ColumnConfig, ...]
    config: DatasetConfig | None = None
    label: ColumnConfig | None = None
    revision: int = 0


def start_draft(inspection: "TableInspection", name: str, *, uploaded: bool, config: DatasetConfig | None = None) -> None:
    """Begin the review of an inspection, in place of any other.

    Args:
        config: where the settings are known already, as those of a public dataset.
    """
    number = st.session_state.get("draft-number", 0) + 1
    st.session_state["draft-number"] = number
    label = inspection.label if config is None else config.label
    columns = datasets.draft_columns(inspection, ColumnConfig(name=label, role="label") if label else None)
    drafted = config.columns if config else columns
    st.session_state["draft"] = Draft(
        number, inspection, name, uploaded, column_table(inspection, drafted), drafted, config=config
    )  # fmt: skip


def edit_draft(draft: Draft, *, busy: bool) -> None:
    """Draw the review and the buttons that encode or discard the draft."""
    st.divider()
    _head(draft)
    # The question for the label is asked by the form below, in place of flags of the command line.
    notes = [note for note in draft.inspection.notes if (note.kind, note.severity) != ("label", "fault")]
    notes_list(notes, key=f"draft-{draft.number}", remedies=_remedies(draft))
    with st.container(border=True, key="draft-label"):
        label = label_form(draft.inspection, _label_name(draft) or _likely_label(draft.inspection), key=f"label-{draft.number}")
    _take_label(draft, label)
    _judge_by(draft, label)
    _first_rows(draft)
    _file_format(draft, busy)
    _columns(draft)
    faults = [] if label is None else column_faults(draft.columns)
    several = _several(draft)
    left, right = st.columns([1, 3], gap="medium")
    with left:
        name = st.text_input("Name", draft.name, key=f"name-{draft.number}", persist_state="session")
    with right:
        split = _split_form(draft, several)
    if not (name or "").strip():
        faults.append("the dataset needs a name; type one")
    config = None
    if faults:
        show_faults(faults)
    elif label is not None and split is not None and (several or len(draft.inspection.source.paths) == 1):
        chosen = label
        config = _config(lambda: _dataset_config(draft, name.strip(), chosen, split))
    _actions(config, busy)


def _head(draft: Draft) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="draft-head"):
        st.markdown(f"**{escape(Path(draft.inspection.source.paths[0]).name)}**")
        st.caption(escape(summary_line(draft.inspection)), width="stretch")
        explain("encoding")


def _label_name(draft: Draft) -> str | None:
    labels = draft.columns.loc[draft.columns["role"] == "label", "name"]
    return str(labels.iloc[0]) if len(labels) else None


def _likely_label(inspection: "TableInspection") -> str | None:
    """The one column that is named like a label, though it must be said what in it is a click."""
    named = [found.column for found in inspection.label_candidates if found.named]
    return named[0] if len(named) == 1 else None


def _take_label(draft: Draft, label: ColumnConfig | None) -> None:
    """Give the columns the roles that another label, or another reading of it, means for them."""
    if label is None or label == draft.label:
        return
    changes: dict[str, dict[str, Any]] = {}
    for column in datasets.draft_columns(draft.inspection, None):
        if column.name in (_label_name(draft), draft.label and draft.label.label_total):
            changes[column.name] = {"role": column.role}
    changes[label.name] = {"role": "label"}
    if label.label_total is not None:
        changes[label.label_total] = {"role": "weight"}
    draft.label = label
    if any(dict(draft.columns.set_index("name").loc[name, list(new)]) != new for name, new in changes.items()):
        _change(draft, changes)


def _judge_by(draft: Draft, label: ColumnConfig | None) -> None:
    """Inspect again with a label that the user chose: leaks and roles are found by comparing each column with it."""
    if label is None or label == draft.inspection.judged_by:
        return
    with st.spinner("Comparing every column with this label", show_time=True):
        try:
            inspection = datasets.inspect_source_in_child(
                cache.workspace(), draft.inspection.source, label=label, uploaded=draft.uploaded
            )
        except CtrlabError as error:
            draft.inspection = _not_judged(draft.inspection, label, str(error))
            st.rerun()
    drafted = draft.config.columns if draft.config else datasets.draft_columns(inspection, label)
    draft.columns = followed(draft.columns, draft.drafted, inspection, drafted)
    draft.inspection, draft.drafted = replace(inspection, judged_by=label), drafted
    draft.revision += 1
    st.rerun()


def _not_judged(inspection: "TableInspection", label: ColumnConfig, reason: str) -> "TableInspection":
    """The inspection without what was found by another label, and with a note that says why."""
    note = Note("label", label.name, f"{label.name} could not be compared with the other columns: {reason}", "warning")
    others = tuple(note for note in inspection.notes if note.kind not in ("label", "leak", "ids_or_numbers"))
    return replace(inspection, judged_by=label, notes=(*others, note))


def _change(draft: Draft, changes: dict[str, dict[str, Any]]) -> None:
    """Set {column: {setting: value}}; the editor starts again from the changed table."""
    table = draft.columns.copy()
    for name, settings in changes.items():
        for setting, value in settings.items():
            table.loc[table["name"] == name, setting] = value
    draft.columns = table
    draft.revision += 1


def _remedies(draft: Draft) -> dict[str, Callable[[Note, str], None]]:
    """The controls beside notes, by kind of note."""

    def ignore(note: Note, key: str) -> None:
        if _role(draft, note.column) == "ignore":
            st.caption("Ignored")
        else:
            st.button(
                "Ignore this column", key=f"{key}-ignore", type="tertiary", icon=":material/visibility_off:",
                on_click=_change, args=(draft, {note.column: {"role": "ignore"}}),
            )  # fmt: skip

    def other_role(note: Note, key: str) -> None:
        other = "numeric" if _role(draft, note.column) == "categorical" else "categorical"
        st.button(
            f"Make it {other}", key=f"{key}-role", type="tertiary", icon=":material/swap_horiz:",
            on_click=_change, args=(draft, {note.column: {"role": other}}),
        )  # fmt: skip

    def column_settings(note: Note, key: str) -> None:
        with st.popover("Change", key=f"{key}-settings", type="tertiary", icon=":material/tune:"):
            _column_form(draft, str(note.column), key)

    return {"leak": ignore, "ids_or_numbers": other_role, "time_format": column_settings, "number_format": column_settings}


def _role(draft: Draft, name: str | None) -> str:
    return str(draft.columns.loc[draft.columns["name"] == name, "role"].iloc[0])


def _column_form(draft: Draft, name: str, key: str) -> None:
    """The settings of one column that a note is about."""
    row = draft.columns.set_index("name").loc[name]
    only = {"timestamp": ("timestamp_format",), "numeric": ("number_format", "transform")}.get(str(row["role"]), ("role",))
    config = config_form(
        ColumnConfig, key=f"{key}-form", columns=1, only=(*only, "role"),
        values={"name": name, **{setting: row[setting] for setting in (*only, "role")}},
    )  # fmt: skip
    if config is not None and st.button("Apply", key=f"{key}-apply", type="primary"):
        _change(draft, {name: {setting: getattr(config, setting) for setting in (*only, "role")}})
        st.rerun()


def _first_rows(draft: Draft) -> None:
    import pandas as pd

    names = [column.name for column in draft.inspection.columns]
    with st.expander(f"First {len(draft.inspection.first_rows)} rows", icon=":material/table_rows:"):
        table = pd.DataFrame(draft.inspection.first_rows, columns=names)
        st.dataframe(table, hide_index=True, key=f"rows-{draft.number}", alt="The first rows of the file, as they were read")


def _file_format(draft: Draft, busy: bool) -> None:
    """How the file was read, to be corrected and read again."""
    with st.expander("How the file is read", icon=":material/description:"):
        source = config_form(
            SourceConfig, key=f"source-{draft.number}", omit=("paths",), values=draft.inspection.source, columns=3
        )
        if st.button("Read again", key="read-again", disabled=busy or source is None, icon=":material/refresh:") and source:
            with guarded() as outcome, st.spinner("Reading the first rows", show_time=True):
                inspection = datasets.inspect_source_in_child(cache.workspace(), source, uploaded=draft.uploaded)
                start_draft(inspection, draft.name, uploaded=draft.uploaded)
            if not outcome.failed:
                st.rerun()


def _columns(draft: Draft) -> None:
    key = f"columns-{draft.number}-{draft.revision}"
    if f"{key}-start" not in st.session_state or key not in st.session_state:
        # On returning from another page: start from the edited table.
        st.session_state[f"{key}-start"] = draft.columns
    before = _label_name(draft)
    draft.columns = column_editor(st.session_state[f"{key}-start"], key)
    ignored = draft.columns[draft.columns["role"] == "ignore"]
    if len(ignored):
        named = "; ".join(f"{row['name']}: {row['reason']}" for row in ignored.head(_NAMED).to_dict("records"))
        more = f"; and {len(ignored) - _NAMED} more" if len(ignored) > _NAMED else ""
        st.caption(escape(f"{format.plural(len(ignored), 'column')} not used: {named}{more}"))
    labels = list(draft.columns.loc[draft.columns["role"] == "label", "name"])
    if before is not None and len(labels) > 1:  # the role of another column was set to label: it is the label now
        chosen = next(name for name in labels if name != before)
        roles = {column.name: column.role for column in datasets.draft_columns(draft.inspection, None)}
        _change(draft, {before: {"role": roles[before]}, chosen: {"role": "label"}})
        st.session_state[f"label-{draft.number}-label"] = chosen
        st.rerun()


def _several(draft: Draft) -> str | None:
    """What several files are; None for one file, or while it is not chosen."""
    paths = draft.inspection.source.paths
    if len(paths) == 1:
        return None
    if draft.config is not None:
        return "splits" if draft.config.split.method == "files" else "table"
    return st.radio(
        f"The {len(paths)} files are", list(_SEVERAL), index=None, format_func=_SEVERAL.__getitem__, horizontal=True,
        key=f"several-{draft.number}", persist_state="session",
    )  # fmt: skip


def _split_form(draft: Draft, several: str | None) -> SplitConfig | None:
    if several == "splits":
        return SplitConfig(method="files")
    start = datasets.draft_split(draft.inspection.source, "table") if draft.config is None else draft.config.split
    times = [row["name"] for row in draft.columns.to_dict("records") if row["role"] == "timestamp"]
    values = {name: getattr(start, name) for name in start.__dataclass_fields__}
    if values["time_column"] is None and times:
        values["time_column"] = times[0]
    return config_form(SplitConfig, key=f"split-{draft.number}", values=values, columns=4)


def _dataset_config(draft: Draft, name: str, label: ColumnConfig, split: SplitConfig) -> DatasetConfig:
    columns = tuple(label if column.name == label.name else column for column in column_configs(draft.columns))
    return DatasetConfig(name=name, source=draft.inspection.source, columns=columns, split=split)


def _config(make: Callable[[], DatasetConfig]) -> DatasetConfig | None:
    try:
        return make()
    except CtrlabError as error:
        show_faults(str(error).split(": ", 1)[-1].split("; "))
        return None


def _actions(config: DatasetConfig | None, busy: bool) -> None:
    with st.container(horizontal=True, key="draft-actions"):
        label = "Encode" if config is None else f"Encode {format.plural(len(config.features), 'field')}"
        if st.button(label, type="primary", key="encode", disabled=busy or config is None, icon=":material/memory:") and config:
            with guarded() as outcome:
                watch(datasets.submit_encode(cache.workspace(), config))
            if not outcome.failed:
                st.rerun()
        st.button("Discard", key="discard-draft", type="tertiary", on_click=st.session_state.pop, args=("draft", None))

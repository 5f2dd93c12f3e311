"""The forms that add a dataset: the sample, a table of the user, a known public format. Each queues a job."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from ctrlab.data.configs import SPLIT_NAMES, DatasetConfig, SourceConfig, SplitConfig
from ctrlab.errors import CtrlabError, DataError
from ctrlab.services import datasets, sample
from ctrlab.services.inspector import inspector
from ctrlab.ui import cache, format, state
from ctrlab.ui.components.column_editor import column_configs, column_editor, column_faults, column_table, summary_line
from ctrlab.ui.components.config_form import config_form, show_faults
from ctrlab.ui.components.explain import explain
from ctrlab.ui.components.job_progress import watch
from ctrlab.ui.feedback import escape, guarded
from ctrlab.ui.path_sources import paths_offered

if TYPE_CHECKING:
    import pandas as pd
    from streamlit.runtime.uploaded_file_manager import UploadedFile

    from ctrlab.data.catalog import KnownDataset
    from ctrlab.data.tables.inspect import TableInspection

_SOURCES = ("Sample", "Your table", "Known format")


@dataclass
class Draft:
    """A table that was inspected and is not encoded yet; lives in the session.

    number: part of the editors' keys, so that each draft has its own.
    """

    number: int
    inspection: "TableInspection"
    config: DatasetConfig
    columns: "pd.DataFrame"


def new_dataset(*, busy: bool) -> None:
    """The form of the chosen source, and the draft where a table has been inspected."""
    way = st.segmented_control(
        "Where the data comes from", _SOURCES, default=_SOURCES[0], required=True, key="data-way", label_visibility="collapsed",
        persist_state="session",
    )  # fmt: skip
    if way != "Sample":
        inspector(cache.workspace()).warm_up()
    {"Sample": _sample, "Your table": _table, "Known format": _known}[way or _SOURCES[0]](busy)
    draft: Draft | None = st.session_state.get("draft")
    if draft is not None and way != "Sample":
        _edit(draft, busy)


def _sample(busy: bool) -> None:
    st.caption(
        "A generated click log with numeric and categorical fields, missing values and a few very frequent ids, "
        "and a DeepFM trained on it. Its true ranks are known, so the spectra can be checked against them."
    )
    if st.button("Open the sample", type="primary", key="open-sample-data", disabled=busy, icon=":material/play_arrow:"):
        with guarded():
            workspace = cache.workspace()
            ids = sample.sample_ids(workspace)
            if ids is None:
                watch(sample.submit_open_sample(workspace))
            else:
                state.select(**ids, job=None)
            st.rerun()


def _table(busy: bool) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        upload = st.file_uploader(
            "Upload a table", key="data-upload", help="CSV, TSV (with or without header) or Parquet; plain, gz or zst."
        )
    with right:
        typed = None
        if paths_offered():
            typed = st.text_input(
                "Or the path of a table on this machine", key="data-path", persist_state="session",
                placeholder="/data/train.tsv.gz",
                help="Read in place, nothing is copied: for large files. For a table that is already split, "
                "give the train, valid and test files separated by semicolons.",
            )  # fmt: skip
        with st.expander("File format"):
            source = config_form(SourceConfig, key="source", omit=("paths",), values={"paths": ("-",)}, columns=2)
    if st.button("Inspect table", type="primary", key="inspect", disabled=busy or source is None, icon=":material/search:"):
        with guarded(), st.spinner("Reading the first rows", show_time=True):
            if source is not None:
                _inspect(source, _given([upload], typed))


@dataclass(frozen=True)
class _Given:
    """Files that were uploaded or whose paths were typed. name: of the first file."""

    paths: tuple[str, ...]
    name: str
    uploaded: bool


def _given(uploads: "Sequence[UploadedFile | None]", typed: str | None) -> _Given:
    """The files to read: the uploads, else the typed paths, separated by semicolons."""
    found = [upload for upload in uploads if upload is not None]
    if found:
        staged = tuple(str(datasets.stage_upload(cache.workspace(), upload.name, upload)) for upload in found)
        return _Given(staged, found[0].name, uploaded=True)
    paths = tuple(str(Path(part.strip()).expanduser()) for part in (typed or "").split(";") if part.strip())
    if not paths:
        raise DataError("no table given; upload a file or type its path")
    return _Given(paths, Path(paths[0]).name, uploaded=False)


def _inspect(source: SourceConfig, given: _Given) -> None:
    source = source.replace(paths=given.paths)
    inspection = datasets.inspect_source_in_child(cache.workspace(), source, uploaded=given.uploaded)
    _start_draft(inspection, datasets.draft_config(inspection, given.name.split(".")[0] or "table", several="splits"))


def _start_draft(inspection: "TableInspection", config: DatasetConfig) -> None:
    number = st.session_state.get("draft-number", 0) + 1
    st.session_state["draft-number"] = number
    st.session_state["draft"] = Draft(number, inspection, config, column_table(inspection, config.columns))


def _known(busy: bool) -> None:
    known_by_name = {known.name: known for known in datasets.known_datasets()}
    name = st.selectbox(
        "Format",
        list(known_by_name),
        format_func=lambda name: known_by_name[name].title,
        key="known-format",
        persist_state="session",
    )
    known = known_by_name[name]
    st.caption(escape(known.description))
    _facts(known)
    uploads: list[UploadedFile | None] = []
    typed = None
    if paths_offered():
        typed = st.text_input(
            "Path of the file you downloaded"
            if known.num_files == 1
            else "Paths of the train, valid and test files, separated by semicolons",
            key=f"known-path-{name}",
            persist_state="session",
        )
    else:
        parts = ("file",) if known.num_files == 1 else SPLIT_NAMES[: known.num_files]
        uploads = [st.file_uploader(f"Upload the {part} you downloaded", key=f"known-upload-{name}-{part}") for part in parts]
    if st.button("Inspect table", type="primary", key="inspect-known", disabled=busy, icon=":material/search:"):
        with guarded(), st.spinner("Reading the first rows", show_time=True):
            given = _given(uploads, typed)
            config = known.config_for(given.paths)
            inspection = datasets.inspect_known_in_child(cache.workspace(), known, given.paths, uploaded=given.uploaded)
            _start_draft(inspection, config.replace(source=inspection.source))


def _facts(known: "KnownDataset") -> None:
    """Address, size, checksum and licence of the full file."""
    facts = {
        "Address": f"`{known.address}`",
        "File": escape(known.files),
        "Size": f"{escape(known.size)} ({escape(known.size_source)}); {format.count(known.num_rows)} rows",
        "Checksum": escape(known.checksum) + (f" ({escape(known.checksum_source)})" if known.checksums else ""),
        "Licence": escape(known.licence),
    }
    st.markdown("\n".join(f"- **{name}**: {value}" for name, value in facts.items()))


def _edit(draft: Draft, busy: bool) -> None:
    """The draft: columns, split, name, and the buttons that encode or discard it."""
    st.divider()
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="draft-head"):
        st.markdown(f"**{escape(Path(draft.config.source.paths[0]).name)}**")
        st.caption(escape(summary_line(draft.inspection)), width="stretch")
        explain("encoding")
    key = f"columns-{draft.number}"
    if key not in st.session_state:  # on returning from another page: start from the edited table
        st.session_state[f"{key}-start"] = draft.columns
    draft.columns = column_editor(st.session_state[f"{key}-start"], key)
    faults = column_faults(draft.columns)
    left, right = st.columns([1, 3], gap="medium")
    with left:
        name = st.text_input("Name", draft.config.name, key=f"name-{draft.number}", persist_state="session")
    with right:
        split = _split_form(draft)
    if not (name or "").strip():
        faults.append("the dataset needs a name; type one")
    config = None
    if faults:
        show_faults(faults)
    elif split is not None:
        config = _config(lambda: draft.config.replace(name=name.strip(), columns=column_configs(draft.columns), split=split))
    with st.container(horizontal=True, key="draft-actions"):
        label = "Encode" if config is None else f"Encode {len(config.features)} fields"
        if st.button(label, type="primary", key="encode", disabled=busy or config is None, icon=":material/memory:") and config:
            with guarded() as outcome:
                watch(datasets.submit_encode(cache.workspace(), config))
            if not outcome.failed:
                st.rerun()
        st.button("Discard", key="discard-draft", type="tertiary", on_click=st.session_state.pop, args=("draft", None))


def _split_form(draft: Draft) -> SplitConfig | None:
    times = [row["name"] for row in draft.columns.to_dict("records") if row["role"] == "timestamp"]
    values = {field: getattr(draft.config.split, field) for field in draft.config.split.__dataclass_fields__}
    if values["time_column"] is None and times:
        values["time_column"] = times[0]
    return config_form(SplitConfig, key=f"split-{draft.number}", values=values, columns=4)


def _config(make: Callable[[], DatasetConfig]) -> DatasetConfig | None:
    try:
        return make()
    except CtrlabError as error:
        show_faults(str(error).split(": ", 1)[-1].split("; "))
        return None

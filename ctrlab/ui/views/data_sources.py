"""The forms that add a dataset: the sample, a table of the user, a known public format. Each queues a job."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from ctrlab.data.configs import SPLIT_NAMES, SourceConfig
from ctrlab.errors import DataError
from ctrlab.services import datasets, sample
from ctrlab.services.inspector import inspector
from ctrlab.ui import cache, format, state
from ctrlab.ui.components.config_form import config_form
from ctrlab.ui.components.job_progress import watch
from ctrlab.ui.feedback import escape, guarded
from ctrlab.ui.path_sources import paths_offered
from ctrlab.ui.views.table_draft import Draft, edit_draft, start_draft

if TYPE_CHECKING:
    from streamlit.runtime.uploaded_file_manager import UploadedFile

    from ctrlab.data.catalog import KnownDataset

_SOURCES = ("Sample", "Your table", "Known format")


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
        edit_draft(draft, busy=busy)


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
        uploads = st.file_uploader(
            "Upload a table", key="data-upload", accept_multiple_files=True,
            help="CSV, TSV and other text, JSON lines, Parquet, Feather, ORC, libsvm; plain or compressed. Several files are "
            "parts of one table, or already split: you will be asked.",
        )  # fmt: skip
    with right:
        typed = None
        if paths_offered():
            typed = st.text_input(
                "Or the path of a table on this machine", key="data-path", persist_state="session",
                placeholder="/data/train.tsv.gz",
                help="A file, a folder of part files or a pattern such as logs/*.csv; several separated by semicolons. "
                "Read in place, nothing is copied.",
            )  # fmt: skip
        with st.expander("File format"):
            source = config_form(SourceConfig, key="source", omit=("paths",), values={"paths": ("-",)}, columns=2)
    if st.button("Inspect table", type="primary", key="inspect", disabled=busy or source is None, icon=":material/search:"):
        with guarded(), st.spinner("Reading the first rows", show_time=True):
            if source is not None:
                _inspect(source, _given(uploads, typed))


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


def inspect_uploads(uploads: "Sequence[UploadedFile | None]") -> None:
    """Inspect files that were uploaded on another page, with no settings; the Data page then shows the draft."""
    st.session_state["data-way"] = "Your table"
    _inspect(SourceConfig(paths=("-",)), _given(uploads, None))


def _inspect(source: SourceConfig, given: _Given) -> None:
    source = source.replace(paths=given.paths)
    inspection = datasets.inspect_source_in_child(cache.workspace(), source, uploaded=given.uploaded)
    start_draft(inspection, given.name.split(".")[0] or "table", uploaded=given.uploaded)


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
            start_draft(inspection, config.name, uploaded=given.uploaded, config=config)


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

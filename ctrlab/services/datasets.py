"""Datasets: inspect a file, upload one, queue the encoding, read the result."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ctrlab.data.catalog import DATASETS, KnownDataset
from ctrlab.data.catalog.recognise import inspect_and_recognise
from ctrlab.data.configs import ColumnConfig, DatasetConfig, SourceConfig
from ctrlab.data.tables.draft import draft_columns, draft_config, draft_label, draft_split
from ctrlab.data.tables.inspect import TableInspection
from ctrlab.errors import DataError
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.inspector import inspector
from ctrlab.services.paths import input_path, uploads_folder
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact

__all__ = [
    "MAX_UPLOAD_BYTES", "check_source", "dataset_summary", "draft_columns", "draft_config", "draft_label", "draft_split",
    "inspect_known_in_child", "inspect_source", "inspect_source_in_child", "known_datasets",
    "list_datasets", "stage_upload", "submit_encode",
]  # fmt: skip

#: Larger files are given by path: an upload passes through the server's memory and is copied once.
MAX_UPLOAD_BYTES = 1024**3
#: Longest name of an uploaded file in bytes; file systems allow 255, and a number may be added.
MAX_NAME_BYTES = 200

JOB_HANDLERS.register(
    "encode", builder="ctrlab.services.work.encode:run", title="Encode", description="Read, split and encode a table."
)(DatasetConfig)


def inspect_source(
    source: SourceConfig, max_rows: int = 200_000, *, label: ColumnConfig | None = None, workspace: Workspace | None = None
) -> TableInspection:
    """Column names, inferred roles, cardinalities and missing shares of the first `max_rows` rows; reads in this process.

    Args:
        label: the label with its settings, which roles and notes follow; by default the likeliest column.
        workspace: the workspace that is open in this process; its own files are refused.
    """
    return inspect_and_recognise(check_source(workspace, source) if workspace else source, max_rows, label=label)


def inspect_source_in_child(
    workspace: Workspace, source: SourceConfig, *, label: ColumnConfig | None = None, uploaded: bool = False
) -> TableInspection:
    """`inspect_source` in a child process, for the dashboard.

    Args:
        uploaded: the files are in the workspace's upload folder.
    """
    return inspector(workspace).inspect(check_source(workspace, source, uploaded=uploaded), label=label)


def inspect_known_in_child(
    workspace: Workspace, known: KnownDataset, paths: Sequence[str], *, uploaded: bool = False
) -> TableInspection:
    """`KnownDataset.inspect` in a child process, for the dashboard."""
    source = check_source(workspace, known.config_for(paths).source, uploaded=uploaded)
    return inspector(workspace).inspect_known(known.name, source.paths)


def check_source(workspace: Workspace, source: SourceConfig, *, uploaded: bool = False) -> SourceConfig:
    """The source with absolute paths; DataError if a path is one of the workspace's own files."""
    return source.replace(paths=tuple(str(input_path(workspace, path, uploaded=uploaded)) for path in source.paths))


def known_datasets() -> list[KnownDataset]:
    """The public datasets whose format ctrlab knows."""
    return list(DATASETS)


def stage_upload(workspace: Workspace, filename: str, file: BinaryIO, max_bytes: int = MAX_UPLOAD_BYTES) -> Path:
    """Copy an upload to `home/uploads` under a name of its own and return its path; safe for simultaneous uploads.

    Raises:
        DataError: the upload is larger than `max_bytes`, or its name cannot be a file name.
    """
    name = _checked_name(filename)
    folder = uploads_folder(workspace)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(prefix=".incoming-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as out:
            _copy(file, out, name, max_bytes)
        target = _reserve(folder, name)
        Path(partial).replace(target)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return target


def _checked_name(filename: str) -> str:
    name = Path(filename).name
    if "\0" in name:
        raise DataError("the name of the uploaded file holds a NUL character; rename the file")
    if name in ("", ".", ".."):
        raise DataError(f"the uploaded file has no name ({filename!r}); rename the file")
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise DataError(
            f"the name of the uploaded file has {len(name)} characters; shorten it to {MAX_NAME_BYTES} bytes or fewer"
        )
    return name


def _copy(file: BinaryIO, out: BinaryIO, name: str, max_bytes: int) -> None:
    size = 0
    while block := file.read(1 << 20):
        size += len(block)
        if size > max_bytes:
            raise DataError(
                f"{name} is larger than the upload limit of {max_bytes / 1e6:.0f} MB; give its path on this machine instead"
            )
        out.write(block)


def _reserve(folder: Path, name: str) -> Path:
    """Create an empty file under the first free name: `O_EXCL` gives each name to one upload only."""
    for candidate in _candidates(name):
        path = folder / candidate
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            continue
        return path
    raise AssertionError("the candidates never end")


def _candidates(name: str) -> Iterator[str]:
    """train.csv.gz, train-2.csv.gz, train-3.csv.gz, ..."""
    yield name
    stem, dot, suffixes = name.partition(".")
    number = 1
    while True:
        number += 1
        yield f"{stem}-{number}{dot}{suffixes}"


def submit_encode(workspace: Workspace, config: DatasetConfig) -> str:
    """Queue the encoding; the job's result holds the new `dataset` id.

    Raises:
        DataError: a file is one of the workspace's own.
    """
    # The worker runs in another folder, so paths are made absolute here.
    config = config.replace(source=check_source(workspace, config.source, uploaded=True))
    return workspace.store.jobs.submit("encode", f"Encode {config.name}", config.to_dict()).id


def list_datasets(workspace: Workspace) -> list[Artifact]:
    """Newest first."""
    return workspace.store.artifacts.list(kind="dataset")


def dataset_summary(workspace: Workspace, dataset_id: str) -> dict[str, Any]:
    """Rows, CTR, cardinalities, missing and head shares: `DatasetSummary.to_dict()` as stored with the dataset."""
    return dict(workspace.store.artifacts.get(dataset_id).summary)

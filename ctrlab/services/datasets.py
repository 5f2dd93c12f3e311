"""Datasets: look at a file, choose how to read its columns, encode it in the background, look at the result."""

from pathlib import Path
from typing import Any, BinaryIO

from ctrlab.data.catalog import DATASETS, KnownDataset
from ctrlab.data.configs import DatasetConfig, SourceConfig
from ctrlab.data.tables.inspect import TableInspection, draft_config, inspect_table
from ctrlab.errors import DataError
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact

__all__ = [
    "MAX_UPLOAD_BYTES", "dataset_summary", "draft_config", "inspect_source", "known_datasets", "list_datasets",
    "stage_upload", "submit_encode",
]  # fmt: skip

#: Larger files are given by path: an upload passes through the server's memory and is copied once.
MAX_UPLOAD_BYTES = 1024**3

JOB_HANDLERS.register(
    "encode", builder="ctrlab.services.work.encode:run", title="Encode", description="Read, split and encode a table."
)(DatasetConfig)


def inspect_source(source: SourceConfig, max_rows: int = 200_000) -> TableInspection:
    """Column names, inferred roles, cardinalities and missing shares of the first `max_rows` rows."""
    return inspect_table(source, max_rows=max_rows)


def known_datasets() -> list[KnownDataset]:
    """The public datasets whose format ctrlab knows."""
    return list(DATASETS)


def stage_upload(workspace: Workspace, filename: str, file: BinaryIO, max_bytes: int = MAX_UPLOAD_BYTES) -> Path:
    """Stream an upload to `home/uploads` and return its path; DataError beyond `max_bytes`."""
    folder = workspace.home / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    target = _unused(folder / Path(filename).name)
    partial = target.with_name(target.name + ".part")
    size = 0
    with partial.open("wb") as out:
        while block := file.read(1 << 20):
            size += len(block)
            if size > max_bytes:
                break
            out.write(block)
    if size > max_bytes:
        partial.unlink()
        raise DataError(
            f"{filename} is larger than the upload limit of {max_bytes / 1e6:.0f} MB; give its path on this machine instead"
        )
    partial.rename(target)
    return target


def _unused(path: Path) -> Path:
    stem, suffixes = path.name.split(".")[0], "".join(path.suffixes)
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{stem}-{number}{suffixes}")
    return path


def submit_encode(workspace: Workspace, config: DatasetConfig) -> str:
    """Queue the encoding; the job's result holds the new `dataset` id."""
    # The worker runs in another folder than whoever asks.
    absolute = tuple(str(Path(path).expanduser().absolute()) for path in config.source.paths)
    config = config.replace(source=config.source.replace(paths=absolute))
    return workspace.store.jobs.submit("encode", f"Encode {config.name}", config.to_dict()).id


def list_datasets(workspace: Workspace) -> list[Artifact]:
    """Newest first."""
    return workspace.store.artifacts.list(kind="dataset")


def dataset_summary(workspace: Workspace, dataset_id: str) -> dict[str, Any]:
    """Rows, CTR, cardinalities, missing and head shares: `DatasetSummary.to_dict()` as stored with the dataset."""
    return dict(workspace.store.artifacts.get(dataset_id).summary)

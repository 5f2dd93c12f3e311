"""What leaves: a model's checkpoints, ONNX files and bundle, as files of a folder or as one archive."""

import io
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ctrlab.errors import ConfigError
from ctrlab.registry import load
from ctrlab.services.bundles import BUNDLE_FOLDER, BUNDLE_MANIFEST, latest_bundle
from ctrlab.services.models import (
    DESCRIPTION_FILE,
    INTEGERS_FILE,
    MODEL_FILE,
    ONNX_FILE,
    SERVING_FILE,
    require_artifact,
    schema_of,
)
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact
from ctrlab.storage.records import ArtifactKind

#: (kind, file) of what is made from a model and exported with it.
_FILES_OF: tuple[tuple[ArtifactKind, str], ...] = (("evaluation", ONNX_FILE), ("serving", INTEGERS_FILE))


def model_files(workspace: Workspace, model_id: str, bundle: Artifact | None = None) -> dict[str, Path]:
    """{file name: path} of a model's trainable and serving checkpoints; once they were made its ONNX files and its bundle.

    The bundle's `model.ids.onnx` comes before that of the measurement: its other files belong to it.

    Args:
        bundle: one of the model's bundles; the newest by default.
    """
    model = require_artifact(workspace, model_id, "model")
    found = [model.path / name for name in (MODEL_FILE, SERVING_FILE, DESCRIPTION_FILE)]
    for kind, name in _FILES_OF:
        found += [made.path / name for made in workspace.store.artifacts.list(kind=kind, parent=model_id)[:1]]
    bundle = bundle or latest_bundle(workspace, model_id)
    # Without its manifest a folder is no bundle: it comes last, so that half a copy is none.
    files = (bundle.path / BUNDLE_FOLDER).iterdir() if bundle else ()
    found += sorted(files, key=lambda path: (path.name == BUNDLE_MANIFEST, path.name))
    return {path.name: path for path in found if path.exists()}


def export_model(
    workspace: Workspace, model_id: str, folder: Path, user_fields: Sequence[str] = (), *, bundle: Artifact | None = None
) -> list[Path]:
    """Copy a model's files into `folder`, which is made where it does not exist; returns the copies.

    Args:
        user_fields: fields of the user. Each ONNX file then comes with one for the candidates of one user, `...-user.onnx`,
            with the user's fields as inputs of one row (`serving.user_once`).
        bundle: as for `model_files`.

    Raises:
        ConfigError: the folder cannot be made or written; a field is unknown or the model has no ONNX file.
    """
    files = model_files(workspace, model_id, bundle)
    columns = _user_columns(workspace, model_id, user_fields)
    if user_fields and not any(name.endswith(".onnx") for name in files):
        raise ConfigError("the model has no ONNX file to split into user and candidates; measure it first")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        copies = [Path(shutil.copy2(path, folder / name)) for name, path in files.items()]
        if user_fields:
            split: Callable[..., list[Path]] = load("ctrlab.serving.user_once:write_with_user_once")
            copies += split([path for path in copies if path.name in (ONNX_FILE, INTEGERS_FILE)], *columns)
        return copies
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"the model cannot be written to {folder} ({reason}); give a folder that can be written") from error


def model_archive(workspace: Workspace, model_id: str) -> bytes:
    """The files that `export_model` copies, as one zip archive."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as target:  # weights hardly shrink
        for name, path in model_files(workspace, model_id).items():
            target.write(path, name)
    return archive.getvalue()


def _user_columns(workspace: Workspace, model_id: str, names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Columns of `ids` and of `values` of the named fields."""
    if not names:
        return [], []
    dataset_id = require_artifact(workspace, model_id, "model").config.get("dataset_id")
    if dataset_id is None:
        raise ConfigError("a model from outside has no named fields; export it without user fields")
    schema = schema_of(workspace.store.artifacts.get(dataset_id))
    unknown = [name for name in names if name not in (*schema.field_names, *schema.value_names)]
    if unknown:
        known = ", ".join((*schema.field_names, *schema.value_names))
        raise ConfigError(f"the data has no field {', '.join(unknown)}; give some of {known}")
    ids = [place for place, name in enumerate(schema.field_names) if name in names]
    return ids, [place for place, name in enumerate(schema.value_names) if name in names]

"""Checkpoints: one safetensors file per model, with everything needed to build the model again. Never pickle."""

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ctrlab.data.schema import FeatureSchema
from ctrlab.errors import CtrlabError, DataError, StorageError
from ctrlab.models.base import CTRModel, build_model
from ctrlab.models.configs import MODELS
from ctrlab.models.header import FORMAT_VERSION, METADATA_KEY, MODEL_KIND, read_document, read_model_header
from ctrlab.models.structure import Structure

#: "module:function" with the signature `(model, structure) -> model`, which replaces the layers of the uncompressed architecture;
#: weights are loaded afterwards. A path, because models come before compression in the order of imports, and one path alone: a
#: file must not choose the code that reads it.
_REBUILD = "ctrlab.compression.surgery:rebuild"


def save_model(model: CTRModel, path: str | Path) -> None:
    """Write `model` to one file, atomically: a killed process leaves the old file or the new one.

    A compressed model is saved with its `structure`, and without its original.
    """
    document = {
        "kind": MODEL_KIND,
        "architecture": MODELS.entry_for(model.config).name,
        "config": model.config.to_dict(),
        "schema": model.schema.to_dict(),
        "fingerprint": model.schema.fingerprint,
        "structure": None if model.structure is None else model.structure.to_dict(),
    }
    save_tensors(path, model.state_dict(), document)


def load_model(path: str | Path, schema: FeatureSchema | None = None) -> CTRModel:
    """The model of a checkpoint, on the CPU, in evaluation mode.

    Args:
        schema: of the data it will be used on; a model of other data is refused.

    Raises:
        StorageError: the file is missing, a pickle, damaged, of another version, or not ctrlab's.
        DataError: the model was trained on data of another fingerprint than `schema`'s.
    """
    path = Path(path)
    header = read_model_header(path)
    if schema is not None:
        _check_schema(header.schema, schema, path)
    with torch.random.fork_rng(devices=[]):  # initial weights are overwritten; the caller's random state is unchanged
        model = build_model(header.config, header.schema)
        if header.structure is not None:
            model = _rebuild(model, header.structure, path)
    try:
        model.load_state_dict(load_tensors(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise StorageError(
            f"the weights in {path.name} do not fit the model it describes ({reason}); save the model again"
        ) from None
    return model.eval()


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write tensors and a JSON document (with its `kind`) to one safetensors file, atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A fixed name, so that the next write overwrites the leftovers of a killed process.
    unfinished = path.with_name(f".{path.name}.part")
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {METADATA_KEY: json.dumps({"format_version": FORMAT_VERSION, **document})}
    try:
        safetensors.torch.save_file(whole, unfinished, metadata)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except (OSError, SafetensorError) as error:
        unfinished.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path} ({error}); free some space or choose another folder") from None


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU."""
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{Path(path).name} is truncated or damaged: {error}; copy it again or save the model again") from None
    return tensors


def load_document(path: str | Path, kind: str) -> dict[str, Any]:
    """The JSON document that `save_tensors` wrote; `StorageError` when the file is not such a `kind`."""
    return read_document(Path(path), kind)[0]


def _check_schema(found: FeatureSchema, wanted: FeatureSchema, path: Path) -> None:
    if found != wanted:
        raise DataError(
            f"{path.name} was trained on data of another encoding (fingerprint {found.fingerprint}, this dataset has "
            f"{wanted.fingerprint}); choose the dataset it was trained on"
        )


def _rebuild(model: CTRModel, structure: Structure, path: Path) -> CTRModel:
    module_name, _, function = _REBUILD.partition(":")
    try:
        rebuilt: CTRModel = getattr(importlib.import_module(module_name), function)(model, structure)
    except (KeyError, TypeError, ValueError, AttributeError, CtrlabError) as error:
        raise StorageError(
            f"{path.name} is truncated or damaged: its structure cannot be built ({error}); save the model again"
        ) from error
    return rebuilt

"""The header of a checkpoint file, read without torch and without the weights.

A checkpoint is one safetensors file: 8 bytes of header length, a JSON header, then raw tensors. ctrlab's description of the model
is a JSON document under the metadata key `ctrlab`. Nothing in it is ever executed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrlab.data.schema import FeatureSchema
from ctrlab.errors import CtrlabError, StorageError
from ctrlab.models.configs import MODELS, ModelConfig
from ctrlab.models.structure import FACTORED, Structure

METADATA_KEY = "ctrlab"
FORMAT_VERSION = 1
MODEL_KIND = "model"

_MAX_HEADER_BYTES = 100_000_000  # the safetensors format's own limit
_PICKLE_SUFFIXES = {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt"}


@dataclass(frozen=True)
class ModelHeader:
    """A stored model without its weights.

    architecture, config: which registered model, with which settings.
    schema: the fields it was built for; its fingerprint must match the data's.
    structure: what compression did to the layers; None for an original model.
    num_parameters: stored weights, buffers included.
    """

    architecture: str
    config: ModelConfig
    schema: FeatureSchema
    structure: Structure | None
    num_parameters: int


def read_model_header(path: str | Path) -> ModelHeader:
    """The header of a model checkpoint that ctrlab wrote.

    Raises:
        StorageError: the file is missing, a pickle, damaged, of another format version, or not ctrlab's.
    """
    path = Path(path)
    document, tensors = read_document(path, MODEL_KIND)
    try:
        config = MODELS[document["architecture"]].config_class.from_dict(document["config"])
        schema = FeatureSchema.from_dict(document["schema"])
    except CtrlabError as error:
        raise StorageError(f"{path.name} holds a model this ctrlab cannot build: {error}") from None
    except (KeyError, TypeError) as error:
        raise _damaged(path, f"its description lacks {error}") from None
    return ModelHeader(
        architecture=document["architecture"],
        config=config,  # type: ignore[arg-type]
        schema=schema,
        structure=_structure(path, document.get("structure")),
        num_parameters=sum(_num_elements(entry["shape"]) for entry in tensors.values()),
    )


def _structure(path: Path, document: Any) -> Structure | None:
    if document is None:
        return None
    kind = document.get("kind") if isinstance(document, dict) else None
    if isinstance(kind, str) and kind != FACTORED:
        raise StorageError(f"{path.name} has layers of kind {kind!r}; this ctrlab reads {FACTORED}; update ctrlab")
    try:
        return Structure.from_dict(document)
    except ValueError as error:
        raise _damaged(path, f"its structure cannot be built: {error}") from None


def read_document(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """ctrlab's JSON document in a safetensors file, and the header's entry of each tensor.

    Args:
        kind: the kind of document that is required, e.g. "model".

    Raises:
        StorageError: as in `read_model_header`.
    """
    header = _safetensors_header(path)
    text = (header.pop("__metadata__", None) or {}).get(METADATA_KEY)
    if text is None:
        raise StorageError(f"{path.name} is a safetensors file that ctrlab did not write; give a checkpoint that ctrlab saved")
    try:
        document = json.loads(text)
        found, version = document["kind"], document["format_version"]
    except (ValueError, KeyError, TypeError):
        raise _damaged(path, "its description is not readable") from None
    if version != FORMAT_VERSION:
        raise StorageError(
            f"{path.name} has checkpoint format {version}, this ctrlab reads {FORMAT_VERSION}; save it again with this version"
        )
    if found != kind:
        raise StorageError(f"{path.name} holds a {found}, not a {kind}; give a file that holds a {kind}")
    return document, header


def _safetensors_header(path: Path) -> dict[str, Any]:
    """The JSON header of a complete file."""
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            body = file.read(length) if length <= _MAX_HEADER_BYTES else b""
        size = path.stat().st_size
    except FileNotFoundError:
        raise StorageError(f"there is no checkpoint at {path}; give the path of a .safetensors file that ctrlab wrote") from None
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read ({error.strerror}); give the path of a .safetensors file that ctrlab wrote"
        ) from None
    if not body.startswith(b"{"):
        raise _foreign(path, prefix)
    try:
        header = json.loads(body)
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, IndexError):
        raise _damaged(path, "its header is not readable") from None
    expected = 8 + length + end
    if size != expected:
        raise _damaged(path, f"it has {size} bytes where its header promises {expected}")
    return header  # type: ignore[no-any-return]


def _foreign(path: Path, prefix: bytes) -> StorageError:
    """Why a file that does not begin like safetensors is refused."""
    pickled = prefix[:1] == b"\x80" or prefix[:4] == b"PK\x03\x04" or path.suffix.lower() in _PICKLE_SUFFIXES
    if pickled:
        return StorageError(
            f"{path.name} is a Python pickle (or an archive of one), which can run code when it is loaded; "
            "ctrlab reads only the .safetensors checkpoints that it wrote"
        )
    return StorageError(
        f"{path.name} is not a safetensors file, or is cut off at its beginning; give a checkpoint that ctrlab saved"
    )


def _damaged(path: Path, detail: str) -> StorageError:
    return StorageError(f"{path.name} is truncated or damaged: {detail}; copy it again or save the model again")


def _num_elements(shape: list[int]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count

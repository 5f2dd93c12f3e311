"""The `weights` job: the matrices of a file without an architecture, and the spectra of the weights themselves."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from ctrlab.anymodule.profiling import with_fixed_part
from ctrlab.decomposition.collect import table_moments, weight_singular_values
from ctrlab.decomposition.covariance import Moments, decompose
from ctrlab.decomposition.spectrum import LayerSpectrum, save_spectra
from ctrlab.errors import DataError
from ctrlab.models.profile import BlockProfile, Cost, EmbeddingProfile, LayerProfile, ModelProfile
from ctrlab.services.annotations import free_name
from ctrlab.services.capabilities import SOURCE
from ctrlab.services.handlers import JobContext
from ctrlab.services.outside import WeightsConfig
from ctrlab.services.paths import input_path
from ctrlab.services.work.shared import stage_folder
from ctrlab.storage import NewArtifact

#: A matrix with so many times as many rows as columns is a table of ids.
_TABLE_RATIO = 20
#: What the spectra of a file are of, in place of a split's name.
WEIGHTS = "weights"


@dataclass(frozen=True, eq=False)
class Matrix:
    """A matrix of a file. values: (out, in) of a linear layer, (ids, d) of a table. macs: of one row."""

    name: str
    kind: Literal["linear", "embedding"]
    values: torch.Tensor
    macs: int


def run(config: WeightsConfig, context: JobContext) -> dict[str, str]:
    """Read the file, store its layers and the spectra of its weights."""
    path = input_path(context.workspace, config.path, uploaded=True)
    context.report(0.1, f"reading {path.name}")
    found, rest = read_matrices(path)
    if not found:
        raise DataError(f"{path.name} holds no matrix of two or more rows and columns, so there is no spectrum to show")
    spectra: dict[str, LayerSpectrum] = {}
    for number, matrix in enumerate(found):
        context.stop_if_requested()
        context.report(0.1 + 0.9 * number / len(found), f"{matrix.name}, {number + 1:,} of {len(found):,}")
        spectra[matrix.name] = weight_spectrum(matrix)
    profile = _profile(path, found, rest)
    folder = stage_folder(context, "spectra")
    save_spectra(folder, spectra)
    facts = {"kind": "file", "measure": "none", "file": path.name}
    name = free_name(context.workspace, "model", config.name or path.stem)
    cost = profile.cost.to_dict()
    model = context.add_artifact(NewArtifact(
        "model", name, config={SOURCE: facts},
        summary={"role": "original", "architecture": profile.architecture, "profile": profile.to_dict(), "cost": cost,
                 "cost_serving": cost, "other": {one.name: _why_no_layer(one.values) for one in rest if one.values.ndim > 1}},
    ))  # fmt: skip
    filed = context.add_artifact(NewArtifact(
        "spectra", f"Weight spectra of {name}"[:200], parents=[model.id], config={"model_id": model.id}, files_from=folder,
        summary={"num_layers": len(spectra), "calibration_rows": None, "split": WEIGHTS},
    ))  # fmt: skip
    return {"model": model.id, "spectra": filed.id}


def read_matrices(path: Path) -> tuple[list[Matrix], list[Matrix]]:
    """(the matrices of a file that are layers or tables, all its other weights).

    Raises:
        DataError: the file cannot be read, or is a pickle.
    """
    readers = {".safetensors": _of_safetensors, ".npy": _of_npy, ".onnx": _of_onnx}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path.name} is none of {', '.join(readers)}")
    found: list[Matrix] = []
    rest: list[Matrix] = []
    for matrix in reader(path):
        (rest if _why_no_layer(matrix.values) else found).append(matrix)
    return found, rest


def _why_no_layer(values: torch.Tensor) -> str:
    """Why a tensor has no spectrum here; "" where it has one."""
    if values.ndim != 2:
        return f"a tensor of {values.ndim} dimensions, not a matrix"
    if min(values.shape) < 2:
        return "one row or one column"
    return "" if values.is_floating_point() else f"it holds {str(values.dtype).removeprefix('torch.')}, not floats"


def weight_spectrum(matrix: Matrix) -> LayerSpectrum:
    """The spectrum of a matrix alone: W W^T of a linear layer, as if its inputs were independent and alike; of a table every id
    counts once.

    >>> found = weight_spectrum(Matrix("mlp.0", "linear", torch.diag(torch.tensor([3.0, 1.0])), 4))
    >>> found.eigenvalues.tolist()
    [9.0, 1.0]
    """
    values = matrix.values.detach().float()
    if matrix.kind == "embedding":
        moments = table_moments(values, torch.ones(len(values), dtype=torch.int64))
    else:
        gram = values.double() @ values.double().T
        moments = Moments(len(values), values.device)
        moments.n, moments.scatter = 1.0, gram
    return decompose(matrix.name, matrix.kind, moments, weight_singular_values(values))


def _of_safetensors(path: Path) -> Iterator[Matrix]:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path.name} is no safetensors file that can be read: {error}") from error
    for name, values in tensors.items():
        yield _matrix(_layer_name(name, tensors), values)


def _of_npy(path: Path) -> Iterator[Matrix]:
    try:
        values: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} is no NumPy array that can be read without running code: {error}") from error
    if values.ndim != 2 or values.dtype.kind != "f":
        raise DataError(f"{path.name} holds {values.dtype} of shape {values.shape}; a table is a matrix (ids, d) of floats")
    yield Matrix(path.stem, "embedding", torch.from_numpy(np.ascontiguousarray(values)), 0)


def _of_onnx(path: Path) -> Iterator[Matrix]:
    import onnx  # half a second
    from onnx import numpy_helper

    try:
        model = onnx.load(str(path), load_external_data=False)  # a file names no other file that is then opened
    except Exception as error:  # protobuf has its own exceptions
        raise DataError(f"{path.name} is no ONNX file that can be read: {error}") from error
    weights = {one.name: one for one in model.graph.initializer}
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in weights.values()):
        raise DataError(f"{path.name} keeps weights in another file; save it with its weights inside")
    uses: dict[str, tuple[str, bool]] = {}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name in weights:
                transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
                uses.setdefault(name, (f"{node.op_type}:{place}", transposed))
    for name, tensor in weights.items():
        values = np.array(numpy_helper.to_array(tensor))
        use, transposed = uses.get(name, ("", False))
        found = torch.from_numpy(values) if values.dtype.kind in "fiub" else torch.zeros(0)
        layer = _layer_name(name, weights)
        if use == "Gather:0":
            yield Matrix(layer, "embedding", found, 0)
        elif use in ("MatMul:1", "Gemm:1") and found.ndim == 2:
            yield Matrix(layer, "linear", found if transposed else found.T.contiguous(), found.numel())
        else:
            yield Matrix(name, "linear", found if found.ndim != 2 else found.reshape(-1), 0)


def _layer_name(name: str, names: Collection[str]) -> str:
    """The layer of a weight, "mlp.0" of "mlp.0.weight", unless that is the name of another weight."""
    layer = name.removesuffix(".weight")
    return name if layer in names else layer


def _matrix(name: str, values: torch.Tensor) -> Matrix:
    """A matrix of a state dict: a table where its name says so or it has many more rows than columns."""
    tall = values.ndim == 2 and values.shape[0] >= _TABLE_RATIO * values.shape[1]
    is_table = values.ndim == 2 and ("embed" in name.lower() or tall)
    kind: Literal["linear", "embedding"] = "embedding" if is_table else "linear"
    return Matrix(name, kind, values, 0 if kind == "embedding" else values.numel())


def _profile(path: Path, found: list[Matrix], rest: list[Matrix]) -> ModelProfile:
    layers = tuple(_layer(matrix) for matrix in found)
    size = found[0].values.element_size()
    tables = [matrix.values for matrix in found if matrix.kind == "embedding"]
    dense = [matrix.values for matrix in found if matrix.kind == "linear"] + [matrix.values for matrix in rest]
    cost = Cost(
        parameters_tables=sum(map(torch.numel, tables)), parameters_dense=sum(map(torch.numel, dense)),
        bytes_tables=sum(values.nbytes for values in tables), bytes_dense=sum(values.nbytes for values in dense),
        macs=sum(matrix.macs for matrix in found),
    )  # fmt: skip
    return with_fixed_part(ModelProfile(
        architecture=f"{path.suffix.lstrip('.').lower()} file", layers=layers, cost=cost, folded_fixed=Cost(),
        embeddings=tuple(
            EmbeddingProfile(name=layer.layer_name, embed_dim=layer.out_features, num_vectors=1, num_values=0, raw_values=True)
            for layer in layers if layer.kind == "embedding"
        ),
        element_bytes=size, blocks=_blocks(layers, size),
    ))  # fmt: skip


def _layer(matrix: Matrix) -> LayerProfile:
    rows, columns = matrix.values.shape
    table = matrix.kind == "embedding"
    return LayerProfile(
        layer_name=matrix.name, kind=matrix.kind, in_features=rows if table else columns,
        out_features=columns if table else rows, parameters=rows * columns, embedding=matrix.name if table else "",
    )  # fmt: skip


def _blocks(layers: tuple[LayerProfile, ...], size: int) -> tuple[BlockProfile, ...]:
    groups: Mapping[str, list[LayerProfile]] = {}
    for layer in layers:
        groups.setdefault(layer.layer_name.partition(".")[0], []).append(layer)  # type: ignore[attr-defined]
    return tuple(
        BlockProfile(
            name=name, kind="tables" if all(layer.kind == "embedding" for layer in own) else "layers", module="weights",
            cost=Cost(parameters_dense=sum(layer.parameters for layer in own),
                      bytes_dense=size * sum(layer.parameters for layer in own)),
        )
        for name, own in groups.items()
    )  # fmt: skip

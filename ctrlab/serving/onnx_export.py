"""Export of models to ONNX, by torch's TorchScript exporter, which is deprecated.

Its successor, built on torch.export (`dynamo=True`), was tried with torch 2.13 on every registered architecture, and on the
compressed, folded and quantised forms of four. It is not used yet because

- torch.export refuses DIN: the number of list elements in a batch depends on the data (`GuardOnDataDependentSymNode`);
- ONNX Runtime refuses its files of models with packed 4-bit tables (uint8 and int8 in one Concat);
- an export takes 20 to 90 times as long (DeepFM 91 s against 1.1 s on a busy machine), and a file is 8 to 150 kB larger.

Everywhere else its logits agree, at any batch size. `tests/serving/test_onnx_export.py` has a test that fails once torch.export
accepts DIN; this module changes then, or with the torch release that removes the TorchScript exporter.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ctrlab.data.schema import Fields
from ctrlab.errors import StorageError
from ctrlab.models.base import CTRModel
from ctrlab.serving.first_order import with_squares_in_first_order
from ctrlab.serving.graph import Array, Graph, save
from ctrlab.serving.shapes import fold_shapes

OPSET = 20


class _Positional(nn.Module):
    """The model with positional tensors as inputs, as the exporter requires; parts of `Fields` without columns are no inputs."""

    def __init__(self, model: CTRModel, example: Fields) -> None:
        super().__init__()
        self.model = model
        self.names = [name for name, part in zip(Fields._fields, example, strict=True) if part.shape[1]]
        self.empty = {name: part for name, part in zip(Fields._fields, example, strict=True) if not part.shape[1]}

    def forward(self, *parts: Tensor) -> Tensor:
        absent = {name: part.new_zeros(parts[0].shape[0], 0) for name, part in self.empty.items()}
        return self.model(Fields(**dict(zip(self.names, parts, strict=True)), **absent))  # type: ignore[no-any-return]


def export_onnx(model: CTRModel, path: str | Path) -> None:
    """Write the model as an ONNX file, atomically; its training mode is unchanged.

    Inputs: `ids` int32 (batch, F), `values` float32 (batch, V) and `lists` int32 (batch, total length), each absent if the model
    reads no such field.
    Output: `logits` float32 (batch,).

    Raises:
        StorageError: the file cannot be written.
    """
    path = Path(path)
    was_training, device = model.training, next(model.parameters()).device
    schema = model.schema
    # Two rows, for with one the exporter might treat the batch size 1 as a constant.
    example = Fields(
        torch.zeros(2, len(schema.field_names), dtype=torch.int32, device=device),
        torch.zeros(2, len(schema.value_names), device=device),
        torch.zeros(2, schema.list_width if model.reads_lists else 0, dtype=torch.int32, device=device),
    )
    positional = _Positional(with_squares_in_first_order(model), example).eval()
    unfinished = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with torch.no_grad(), _expected_warnings():
            torch.onnx.export(
                positional,
                tuple(getattr(example, name) for name in positional.names),
                str(unfinished),
                input_names=positional.names,
                output_names=["logits"],
                dynamic_axes={name: {0: "batch"} for name in (*positional.names, "logits")},
                opset_version=OPSET,
                dynamo=False,
            )
        if not model.reads_lists:  # the lengths of lists are in the data
            graph = Graph.load(unfinished)
            fold_shapes(graph, {name: np.concatenate([part] * 3) for name, part in _arrays(positional.names, example).items()})
            save(graph.to_model(), unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path} ({error.strerror}); free some space or choose another folder") from None
    finally:
        model.train(was_training)
        if unfinished.exists():
            unfinished.unlink()


def _arrays(names: list[str], example: Fields) -> dict[str, Array]:
    return {name: getattr(example, name).cpu().numpy() for name in names}


@contextmanager
def _expected_warnings() -> Iterator[None]:
    """Ignore warnings about what was checked here; that the exporter is deprecated is not among them."""
    with warnings.catch_warnings():
        # Lengths that the trace turns into constants are numbers of fields; the models have no branches on data.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield

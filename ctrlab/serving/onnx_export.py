"""Models for serving elsewhere: ONNX."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ctrlab.data.schema import Fields
from ctrlab.errors import StorageError
from ctrlab.models.base import CTRModel

OPSET = 20


class _Positional(nn.Module):
    """The model with positional tensors as inputs, as the exporter wants them; a part without fields is no input."""

    def __init__(self, model: CTRModel, example: Fields) -> None:
        super().__init__()
        self.model = model
        self.names = [name for name, part in zip(Fields._fields, example, strict=True) if part.shape[1]]
        self.empty = {name: part for name, part in zip(Fields._fields, example, strict=True) if not part.shape[1]}

    def forward(self, *parts: Tensor) -> Tensor:
        absent = {name: part.new_zeros(parts[0].shape[0], 0) for name, part in self.empty.items()}
        return self.model(Fields(**dict(zip(self.names, parts, strict=True)), **absent))  # type: ignore[no-any-return]


def export_onnx(model: CTRModel, path: str | Path) -> None:
    """Write the model as an ONNX file, atomically; the model is left in the mode it was in.

    Inputs: `ids` int32 (batch, F), `values` float32 (batch, V) and `lists` int32 (batch, total length), each of them absent where
    the model reads no such field.
    Output: `logits` float32 (batch,).

    Raises:
        StorageError: the file cannot be written.
    """
    path = Path(path)
    was_training, device = model.training, next(model.parameters()).device
    schema = model.schema
    # Two rows: an example of one would let the exporter take 1 for a constant.
    example = Fields(
        torch.zeros(2, len(schema.field_names), dtype=torch.int32, device=device),
        torch.zeros(2, len(schema.value_names), device=device),
        torch.zeros(2, schema.list_width if model.reads_lists else 0, dtype=torch.int32, device=device),
    )
    positional = _Positional(model, example).eval()
    unfinished = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with torch.no_grad(), _quiet():
            # By tracing: 0.05 s, where the exporter built on torch.export takes 1 to 4 s. The models have no branches on data.
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
        unfinished.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path} ({error.strerror}); free some space or choose another folder") from None
    finally:
        model.train(was_training)
        if unfinished.exists():
            unfinished.unlink()


@contextmanager
def _quiet() -> Iterator[None]:
    """No console lines from the exporter, which says that it traces and that this is not the newest way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        # The first state is given, so that the number of rows stays open.
        warnings.filterwarnings("ignore", "Exporting a model to ONNX with a batch_size", UserWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield

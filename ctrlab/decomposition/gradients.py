"""Second moments of the log loss's gradients by layer outputs and by looked-up vectors, from one backward pass a batch."""

from collections.abc import Callable, Collection, Iterable, Iterator
from threading import local
from typing import Any, cast

import torch
from torch import Tensor, nn

from ctrlab.data.schema import Fields
from ctrlab.decomposition.covariance import symmetric_product
from ctrlab.engines.choose import device_of, predictor_of
from ctrlab.engines.parallel_map import parallel_map
from ctrlab.engines.trees import copy_tree
from ctrlab.errors import JobCancelled
from ctrlab.models.base import CTRModel
from ctrlab.models.inventory import ModelLayer
from ctrlab.models.layers import FieldEmbedding

#: The outputs of one pass: (module's name, table of an embedding if it was looked up alone, output).
_Outputs = list[tuple[str, int | None, Tensor]]


def collect_loss_gradients(
    model: CTRModel,
    batches: Iterable[Fields],
    layers: Collection[ModelLayer],
    on_progress: Callable[[int], None] = lambda rows_done: None,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    threads: int | None = None,
) -> dict[str, Tensor]:
    """{layer_name: G (d, d) float64}, G = E[g g^T] with g the gradient of a row's log loss by the layer's output.

    The labels are those that the model itself expects: over y ~ Bernoulli(p) the gradient p - y by the logit has the mean square
    p (1 - p), so that the expectation over labels is taken exactly and nothing is drawn. Where a row runs through a layer
    several times, as through attention or lists, G is the sum over its passes. The model is left as it is.

    Args:
        batches: of fields, as tensors on the model's device.
        layers: linear layers and tables, of `list_layers(model)`.
        on_progress: called with the number of rows done.

    Raises:
        JobCancelled: `should_stop()` was true.
    """
    own = local()
    watched = _watched(model, layers, lambda name, table, output: own.outputs.append((name, table, output)))
    predictor = predictor_of(watched)
    tables = _tables_by_module(layers)

    def run(fields: Fields) -> tuple[int, dict[str, Tensor]]:
        own.outputs = []
        with torch.enable_grad():
            logits = predictor(fields)
        outputs: _Outputs = own.outputs
        own.outputs = []
        return len(logits), _second_moments(logits, outputs, tables)

    device = device_of(model)
    sums = {layer.layer_name: torch.zeros(layer.out_features, layer.out_features, dtype=torch.float64) for layer in layers}
    rows = 0
    for count, found in parallel_map(run, _until(batches, should_stop), threads=threads if device.type == "cpu" else 1):
        rows += count
        for name, moment in found.items():
            sums[name] += moment.cpu()
        on_progress(rows)
    return {name: moment / max(rows, 1) for name, moment in sums.items()}


def _until(batches: Iterable[Fields], should_stop: Callable[[], bool]) -> Iterator[Fields]:
    for batch in batches:
        if should_stop():
            raise JobCancelled("collecting the gradients of the loss was cancelled")
        yield batch


def _watched(model: CTRModel, layers: Collection[ModelLayer], consume: Callable[[str, int | None, Tensor], None]) -> CTRModel:
    """A copy of the module tree in evaluation mode, without gradients of parameters, that gives `consume` the outputs."""
    tree = copy_tree(model).eval()
    for module in tree.modules():
        module._parameters = {name: own if own is None else own.detach() for name, own in module._parameters.items()}  # type: ignore[misc]
        module._forward_hooks = type(module._forward_hooks)(module._forward_hooks)
    for name in dict.fromkeys(layer.module_name for layer in layers):
        module = tree.get_submodule(name)
        module.register_forward_hook(_output_hook(name, consume))
        if isinstance(module, FieldEmbedding):
            module.look_up = _watched_look_up(module, name, consume)  # type: ignore[method-assign]
    return tree


def _output_hook(name: str, consume: Callable[[str, int | None, Tensor], None]) -> Any:
    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        output = _with_gradient(output)
        consume(name, None, output)
        return output

    return hook


def _watched_look_up(embedding: FieldEmbedding, name: str, consume: Callable[[str, int | None, Tensor], None]) -> Any:
    def look_up(ids: Tensor, table: int) -> Tensor:
        vectors = _with_gradient(type(embedding).look_up(embedding, ids, table))
        consume(name, table, vectors)
        return vectors

    return look_up


def _with_gradient(output: Tensor) -> Tensor:
    """The output itself, or as a leaf where nothing before it has a gradient."""
    return output if output.requires_grad else output.detach().requires_grad_()


def _tables_by_module(layers: Collection[ModelLayer]) -> dict[str, dict[int, str]]:
    """{module: {number of a table: its layer_name}} of the embeddings among `layers`."""
    tables: dict[str, dict[int, str]] = {}
    for layer in layers:
        if layer.kind == "embedding":
            tables.setdefault(layer.module_name, {})[cast(int, layer.field)] = layer.layer_name
    return tables


def _second_moments(logits: Tensor, outputs: _Outputs, tables: dict[str, dict[int, str]]) -> dict[str, Tensor]:
    """{layer_name: sum over rows and passes of g g^T}."""
    if not outputs or not logits.requires_grad:
        return {}
    p = torch.sigmoid(logits.detach())
    found = torch.autograd.grad(logits, [output for _, _, output in outputs], (p * (1 - p)).sqrt(), allow_unused=True)
    sums: dict[str, Tensor] = {}

    def add(layer_name: str, rows: Tensor) -> None:
        moment = symmetric_product(rows.reshape(-1, rows.shape[-1]).contiguous()).double()
        sums[layer_name] = sums[layer_name] + moment if layer_name in sums else moment

    for (name, table, _), gradient in zip(outputs, found, strict=True):
        if gradient is None or (len(gradient) == 1 < len(logits)):  # one output for all rows has no variance to lose
            continue
        if name not in tables:
            add(name, gradient)
        elif table is not None:
            if table in tables[name]:
                add(tables[name][table], gradient)
        else:
            for field, layer_name in tables[name].items():
                if field < gradient.shape[1]:
                    add(layer_name, gradient[:, field])
    return sums

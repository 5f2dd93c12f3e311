"""Spectra of a model: linear layers from forward passes over calibration rows, tables from their rows and the training counts."""

from collections.abc import Callable, Collection, Iterable, Iterator
from threading import local
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from ctrlab.data.batches import iterate_batches
from ctrlab.data.dataset import Split
from ctrlab.data.schema import Fields
from ctrlab.decomposition.covariance import Moments, decompose
from ctrlab.decomposition.gradients import collect_loss_gradients
from ctrlab.decomposition.sampling import excess_error, is_check
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.decomposition.trace import evaluating, trace_outputs
from ctrlab.engines.choose import predictor_of
from ctrlab.engines.parallel_map import parallel_map
from ctrlab.errors import JobCancelled, SpectrumError, UnknownNameError
from ctrlab.models.base import CTRModel
from ctrlab.models.inventory import ModelLayer, list_layers
from ctrlab.models.layers import FieldEmbedding

#: Rows of a forward pass: several such batches run in parallel.
_BATCH_ROWS = 4096
#: Rows of the backward pass: second moments of gradients need no more.
GRADIENT_ROWS = 65_536
#: Table rows between two calls of `should_stop`.
_TABLE_ROWS = 262_144


class CalibrationData(Protocol):
    """What spectra need of a dataset; `ctrlab.data.dataset.EncodedDataset` is one."""

    def split(self, name: str) -> Split:
        """The rows of one part."""
        ...

    def counts(self, field: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """How often each id of a categorical field occurs in the training rows."""
        ...

    def list_counts(self, number: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """How often each id of its vocabulary is an element of a list field in the training rows."""
        ...


def collect_covariances(
    model: nn.Module,
    batches: Iterable[Any],
    layer_names: Iterable[str] | None = None,
    on_progress: Callable[[int], None] = lambda batches_done: None,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    tolerance: float | None = None,
    threads: int | None = None,
) -> dict[str, Moments]:
    """Moments of the outputs of linear layers while `model` runs over `batches`, in evaluation mode and without gradients.

    Args:
        model: any module; its training mode and hooks are left as found.
        batches: each is passed to `model` as its one argument; arrays become tensors on the model's device.
        layer_names: qualified names; by default every linear layer that can be compressed.
        on_progress: called with the number of batches done.
        should_stop: asked before every batch.
        tolerance: end early, once `sampling.excess_error` of the rows seen is at most this; batches then are a random sample.
        threads: batches processed at once, each on one thread; None for as many as torch uses, 1 for a module that keeps state
            from call to call.

    Raises:
        JobCancelled: `should_stop()` was true.
    """
    names = _linear_names(model) if layer_names is None else list(layer_names)
    device = _device_of(model)
    widths = {name: int(model.get_submodule(name).out_features) for name in names}  # type: ignore[arg-type]
    halves = tuple({name: Moments(width, device) for name, width in widths.items()} for _ in range(2))
    own = local()

    def run(batch: Any) -> dict[str, Moments]:
        own.moments = {name: Moments(width, device) for name, width in widths.items()}
        with torch.no_grad():
            predictor(_to_tensors(batch, device))
        return own.moments  # type: ignore[no-any-return]

    threads = threads if device.type == "cpu" else 1
    watched = trace_outputs(model, names, lambda name, output: _absorb(own.moments[name], output))
    # Hook first: the twin fuses no ReLU into a hooked layer.
    with evaluating(model), watched:
        predictor = predictor_of(model)
        blocks = parallel_map(run, _until(batches, should_stop), threads=threads)
        for done, block in enumerate(blocks, start=1):
            for name, moments in block.items():
                halves[done % 2][name].merge(moments)
            on_progress(done)
            if tolerance is not None and is_check(done) and excess_error(*halves) <= tolerance:
                blocks.close()
                break
    return {name: halves[0][name].merge(halves[1][name]) for name in names}


def _until(batches: Iterable[Any], should_stop: Callable[[], bool]) -> Iterator[Any]:
    for batch in batches:
        if should_stop():
            raise JobCancelled("collecting spectra was cancelled")
        yield batch


def table_moments(
    weight: Tensor, counts: Tensor | np.ndarray[Any, Any], should_stop: Callable[[], bool] = lambda: False
) -> Moments:
    """Moments of an embedding's output without a forward pass: the rows (n, d) weighted by how often each id occurs (n,).

    Rows are read in chunks, so a table larger than memory (a memory-mapped one) streams.
    """
    if len(weight) != len(counts):
        raise SpectrumError(f"a table of {len(weight)} ids was given {len(counts)} counts; use the counts of its own dataset")
    moments = Moments(weight.shape[1], weight.device)
    for start in range(0, len(weight), _TABLE_ROWS):
        if should_stop():
            raise JobCancelled("collecting spectra was cancelled")
        part = slice(start, start + _TABLE_ROWS)
        moments.update(weight[part], _tensor(counts[part], weight.device))
    return moments


def collect_spectra(
    model: CTRModel,
    dataset: CalibrationData,
    *,
    layer_names: Collection[str] | None = None,
    max_rows: int | None = None,
    tolerance: float | None = None,
    split: str = "train",
    loss_gradients: bool = False,
    on_progress: Callable[[float, str], None] = lambda fraction, message: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, LayerSpectrum]:
    """{layer_name: spectrum} of every linear layer and table of `model` that can be compressed, or of `layer_names` among them.

    Linear layers are seen on `max_rows` rows of `split` drawn at random (all of them by default), or, with a
    `tolerance`, on as many as bring the error that truncation owes to sampling below that share (`sampling.excess_error`).
    Tables always use the counts of the whole training split, which cost nothing. With `loss_gradients` the spectra also hold the
    second moments of the log loss's gradients, from a backward pass over at most `GRADIENT_ROWS` of these rows.
    """
    collected = 0.5 if loss_gradients else 0.9
    layers = _select(model, layer_names)
    tables = [layer for layer in layers if layer.kind == "embedding"]
    linear = [layer for layer in layers if layer.kind == "linear"]
    moments = {}
    for layer in tables:
        moments[layer.layer_name] = table_moments(_table(model, layer), _look_ups(model, layer, dataset), should_stop)
    if linear:

        def report_rows(seen: int) -> None:
            on_progress(collected * seen / max(rows, 1), f"{seen:,} of {rows:,} rows")

        rows = min(len(dataset.split(split)), max_rows or len(dataset.split(split)))
        moments |= collect_covariances(
            model,
            _fields_of(dataset, split, max_rows, shuffle=max_rows is not None or tolerance is not None),
            [layer.layer_name for layer in linear],
            lambda done: report_rows(min(done * _BATCH_ROWS, rows)),
            should_stop,
            tolerance=tolerance,
        )
    spectra = {}
    for number, layer in enumerate(layers, start=1):
        if should_stop():
            raise JobCancelled("collecting spectra was cancelled")
        values = weight_singular_values(_weight(model, layer))
        spectra[layer.layer_name] = decompose(layer.layer_name, layer.kind, moments[layer.layer_name], values)
        on_progress(collected + 0.1 * number / len(layers), f"spectrum of {layer.layer_name}")
    if loss_gradients and layers:
        at_most = min(GRADIENT_ROWS, max_rows or GRADIENT_ROWS, len(dataset.split(split)))
        batches = _fields_of(dataset, split, at_most, shuffle=at_most < len(dataset.split(split)))
        gradients = collect_loss_gradients(
            model, (_to_tensors(fields, _device_of(model)) for fields in batches), layers,
            lambda done: on_progress(0.6 + 0.4 * done / at_most, f"gradients of {done:,} of {at_most:,} rows"), should_stop,
        )  # fmt: skip
        spectra = {name: spectrum.weighted_by(gradients[name].numpy()) for name, spectrum in spectra.items()}
    return spectra


def weight_singular_values(weight: Tensor) -> Tensor:
    """float64 (min(n, m),) descending. Tall tables go through their (d, d) Gram matrix, in chunks of rows."""
    if weight.shape[0] <= 8 * weight.shape[1]:
        values: Tensor = torch.linalg.svdvals(weight.detach().double())
        return values
    moments = Moments(weight.shape[1], weight.device).update(weight)
    gram = moments.scatter + moments.n * torch.outer(moments.mean, moments.mean)
    squares: Tensor = torch.linalg.eigvalsh(gram)
    return squares.clamp(min=0).sqrt().flip(0)


def _select(model: nn.Module, layer_names: Collection[str] | None) -> list[ModelLayer]:
    layers = [layer for layer in list_layers(model) if layer.skip_reason is None]
    if layer_names is None:
        return layers
    unknown = sorted(set(layer_names) - {layer.layer_name for layer in layers})
    if unknown:
        known = ", ".join(layer.layer_name for layer in layers)
        raise UnknownNameError(f"no layer with a spectrum is called {', '.join(unknown)}; there are {known}")
    return [layer for layer in layers if layer.layer_name in set(layer_names)]


def _linear_names(model: nn.Module) -> list[str]:
    return [layer.layer_name for layer in _select(model, None) if layer.kind == "linear"]


def _absorb(moments: Moments, output: Tensor) -> None:
    moments.update(output)


def _fields_of(dataset: CalibrationData, split: str, max_rows: int | None, *, shuffle: bool) -> Iterator[Fields]:
    # A sample is drawn by shuffling: the file's first rows may be its oldest. The whole split needs no shuffling.
    batches = iterate_batches(dataset.split(split), _BATCH_ROWS, shuffle=shuffle, max_rows=max_rows)
    return (fields for fields, _ in batches)


def _field(layer: ModelLayer) -> int:
    assert layer.field is not None  # tables always know theirs
    return layer.field


def _weight(model: nn.Module, layer: ModelLayer) -> Tensor:
    if layer.kind == "embedding":
        return _table(model, layer)
    weight: Tensor = cast(nn.Linear, model.get_submodule(layer.module_name)).weight
    return weight


def _table(model: nn.Module, layer: ModelLayer) -> Tensor:
    """The rows of one field, a view into the fused table."""
    embedding = cast(FieldEmbedding, model.get_submodule(layer.module_name))
    rows: Tensor = embedding.categorical.table.weight.detach()[embedding.categorical.rows_of(_field(layer))]
    return rows


def look_up_counts(model: nn.Module, dataset: CalibrationData) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    """{layer_name: how often training looks up each id (num_ids,)} of every table that can be compressed."""
    tables = [layer for layer in list_layers(model) if layer.kind == "embedding" and layer.skip_reason is None]
    return {layer.layer_name: _look_ups(cast(CTRModel, model), layer, dataset) for layer in tables}


def _look_ups(model: CTRModel, layer: ModelLayer, dataset: CalibrationData) -> np.ndarray[Any, np.dtype[np.int64]]:
    """How often each row of a table is looked up over the training rows: by its own field, and by the lists that share it.

    Both count, for both are outputs of the table that the model reads. An embedding that reads no lists counts its field alone;
    one may also have only some of the data's fields.
    """
    schema, table = cast(FieldEmbedding, model.get_submodule(layer.module_name)).schema, _field(layer)
    counts = np.zeros(schema.table_dims[table], np.int64)
    if table < len(schema.field_names):
        counts = counts + dataset.counts(model.schema.field_names.index(schema.field_names[table]))
    lists = [number for number, feature in enumerate(schema.lists) if schema.table_of(feature) == table]
    return counts + sum(dataset.list_counts(number) for number in lists)


def _device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return parameter.device if parameter is not None else torch.device("cpu")


def _to_tensors(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Fields):
        return Fields(*(_tensor(part, device) for part in batch))
    return _tensor(batch, device) if isinstance(batch, (np.ndarray, Tensor)) else batch


def _tensor(values: Any, device: torch.device) -> Tensor:
    # Arrays are copied: a read-only memory map may not stand behind a tensor.
    return torch.tensor(values, device=device) if isinstance(values, np.ndarray) else values.to(device)

"""The accuracy of a plan without building its model: layers are swapped for truncated ones while the rows run through.

The tables are not copied. Where `compress_model` would store latents (rows - mu) U, the vectors of a batch are projected after
they were looked up, which gives the same numbers: a plan is measured in the time of one forward pass over the kept rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from torch import Tensor, nn

from ctrlab.compression.factors import Compressor
from ctrlab.compression.linear import FactoredLinear, factor_linear_, factors_of
from ctrlab.compression.surgery import Counts, compress_model
from ctrlab.data.batches import iterate_batches
from ctrlab.data.dataset import Split
from ctrlab.data.schema import Fields
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError, DataError, JobCancelled
from ctrlab.evaluation.metrics import auc, log_loss
from ctrlab.evaluation.prediction import never, to_tensors
from ctrlab.models.base import CTRModel
from ctrlab.models.inventory import list_layers
from ctrlab.models.layers import FieldEmbedding, with_raw_values
from ctrlab.models.profile import LayerProfile, ModelProfile
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import Basis, Bottleneck, CompressionSpec
from ctrlab.plans.methods import METHODS
from ctrlab.plans.ranks import effective_ranks, spectrum_faults, validate_plan
from ctrlab.plans.sensitivity import LayerSensitivity, Sensitivity

#: The standard error of an AUC near 0.8 on so many rows, a quarter of them clicks, is 0.003; of a paired difference far less.
MAX_ROWS = 32_768
_BATCH_ROWS = 4096
#: Weight of the full rank, which loses nothing by definition, against one measured rank in the monotone fit.
_CERTAIN = 1e6
#: Ranks measured a linear layer: 1, 2, 4, ... and the last below break-even.
_TABLE_GRID = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)

Spectra = Mapping[str, LayerSpectrum]
OnProgress = Callable[[float, str], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Measurement:
    """Accuracy on the kept rows. logits: float32 (n,)."""

    auc: float
    log_loss: float
    logits: NDArray[np.float32]


class Probe:
    """A model and rows to measure plans on. One at a time: while a plan is measured, `model` has its layers swapped."""

    def __init__(
        self, model: CTRModel, spectra: Spectra, split: Split, *, counts: Counts | None = None, max_rows: int = MAX_ROWS,
        seed: int = 0,
    ) -> None:  # fmt: skip
        """Keep the rows, and measure the original on them.

        Args:
            model: not compressed. It is measured in evaluation mode and left in it.
            spectra: of its layers, with eigenvectors, for the methods that need them.
            counts: of the ids of its tables, for the methods that need them.
            split: `max_rows` of its rows, drawn with `seed`; all of them where it has no more.

        Raises:
            DataError: the split has no rows, or the rows drawn are of one class.
        """
        if len(split) == 0:
            raise DataError("there are no validation rows to measure a plan on; encode the data with a share for validation")
        self.model = model.eval()
        self.spectra, self.counts = spectra, counts
        self.profile: ModelProfile = profile_model(model)
        if self.profile.compressed:
            raise CompressionError("the model is compressed already; measure plans on its original")
        device = next(model.parameters()).device
        drawn = list(
            iterate_batches(split, _BATCH_ROWS, shuffle=len(split) > max_rows, seed=seed, max_rows=min(max_rows, len(split)))
        )
        self._batches = [to_tensors(fields, device) for fields, _ in drawn]
        self.labels: NDArray[np.float32] = np.concatenate([labels for _, labels in drawn])
        self.split = split.name
        self.original = self._run(never)

    @property
    def num_rows(self) -> int:
        """Rows every plan is measured on."""
        return len(self.labels)

    def measure(
        self,
        spec: CompressionSpec,
        *,
        respect_break_even: bool = True,
        should_stop: Callable[[], bool] = never,
    ) -> Measurement:
        """Accuracy of the model that `compress_model` would make, before any fine-tuning and in float32.

        Tables that are reduced to something else than latents are really built.

        Raises:
            CompressionError: the plan does not fit the model or the spectra, or the method draws its tables anew.
            JobCancelled: `should_stop()` was true between two batches.
        """
        validate_plan(self.profile, spec.plan)
        effective = effective_ranks(self.profile, spec, respect_break_even=respect_break_even)
        if not effective:
            return self.original
        method = METHODS[spec.method]
        if method.needs_spectra and (faults := spectrum_faults(self.profile, self.spectra, effective, with_eigenvectors=True)):
            raise CompressionError("; ".join(faults) + "; collect the spectra of this model first")
        if method.retrains:
            raise CompressionError(f"{method.title} draws its tables anew; there is nothing to measure before training")
        if not method.keeps_latents:
            built = compress_model(
                self.model, spec, self.spectra, counts=self.counts, respect_break_even=respect_break_even
            ).model
            return self._run(should_stop, built.eval())
        with truncated(self.model, effective, self.spectra, method.compressor(), spec.bottleneck, spec.basis):
            return self._run(should_stop)

    def _run(self, should_stop: Callable[[], bool], model: CTRModel | None = None) -> Measurement:
        model = model or self.model
        logits = np.empty(len(self.labels), np.float32)
        start = 0
        with torch.inference_mode():
            for batch in self._batches:
                if should_stop():
                    raise JobCancelled("cancelled while measuring a plan")
                out = model(batch).float().cpu().numpy()
                logits[start : start + len(out)] = out
                start += len(out)
        return Measurement(auc=auc(self.labels, logits), log_loss=log_loss(self.labels, logits), logits=logits)


@contextmanager
def truncated(
    model: CTRModel, ranks: Mapping[str, int], spectra: Spectra, compressor: Compressor, bottleneck: Bottleneck, basis: Basis
) -> Iterator[None]:
    """`model` with the layers of `ranks` truncated, for as long as the context lasts; no table is copied."""
    layers = [layer for layer in list_layers(model) if layer.layer_name in ranks]
    swapped: dict[str, nn.Module] = {}
    for layer in layers:
        name = layer.module_name
        if layer.kind == "linear":
            dense, rank = cast(nn.Linear, model.get_submodule(name)), ranks[layer.layer_name]
            factored = FactoredLinear.unfilled(dense, rank, bottleneck)
            factor_linear_(factored, factors_of(dense, compressor, spectra.get(layer.layer_name), rank))
            swapped[name] = factored
        elif name not in swapped:
            embedding = cast(FieldEmbedding, model.get_submodule(name))
            swapped[name] = _truncated_embedding(embedding, name, ranks, spectra, compressor, basis)
    originals = {name: model.get_submodule(name) for name in swapped}
    try:
        for name, module in swapped.items():
            model.set_submodule(name, module.eval())
        yield
    finally:
        for name, module in originals.items():
            model.set_submodule(name, module)


@torch.no_grad()
def _truncated_embedding(
    dense: FieldEmbedding, name: str, ranks: Mapping[str, int], spectra: Spectra, compressor: Compressor, basis: Basis
) -> "TruncatedEmbedding":
    names = [f"{name}.{field}" for field in dense.schema.table_names]
    own = [spectra.get(layer_name) for layer_name in names]
    tables = [dense.categorical.table.weight[dense.categorical.rows_of(table)] for table in range(len(names))]
    projections: dict[int, tuple[Tensor, Tensor]] = {}
    if basis == "shared":
        vectors = compressor.shared_basis(tables, own, next(ranks[layer_name] for layer_name in names if layer_name in ranks))
        everywhere = (vectors, vectors.new_zeros(len(vectors)))
        return TruncatedEmbedding(dense, dict.fromkeys(range(len(names)), everywhere), vectors)
    for table, layer_name in enumerate(names):
        if layer_name in ranks:
            factors = compressor.table_factors(tables[table], own[table], ranks[layer_name])
            projections[table] = (factors.basis, factors.mean)
    return TruncatedEmbedding(dense, projections, None)


class TruncatedEmbedding(nn.Module):
    """A FieldEmbedding whose vectors are projected on the directions kept: e' = mu + U U^T (e - mu), table by table.

    projections: {table: (U (d, k), mu (d,)) in float64}; other tables stay as they are.
    numeric: U (d, k) that numeric fields' vectors are projected on as well, about zero; None leaves them.
    """

    projection: Tensor
    shift: Tensor

    def __init__(self, dense: FieldEmbedding, projections: Mapping[int, tuple[Tensor, Tensor]], numeric: Tensor | None) -> None:
        super().__init__()
        # Not a submodule: its parameters are the original's.
        self._dense = [dense]
        self.schema = dense.schema
        self.embed_dim = dense.embed_dim
        self.raw_values = dense.raw_values
        width, like = dense.embed_dim, dense.categorical.table.weight
        projection = torch.eye(width, dtype=torch.float64, device=like.device).repeat(len(self.schema.table_names), 1, 1)
        shift = torch.zeros(len(projection), width, dtype=torch.float64, device=like.device)
        for table, (basis, mean) in projections.items():
            projection[table] = basis @ basis.T
            shift[table] = mean - basis @ (basis.T @ mean)
        self.register_buffer("projection", projection.to(like.dtype), persistent=False)
        self.register_buffer("shift", shift.to(like.dtype), persistent=False)
        self.numeric_projection = None if numeric is None else (numeric @ numeric.T).to(like.dtype)
        # Only the tables that are truncated are multiplied: a single one, while its sensitivity is measured.
        self.positions = [table for table in sorted(projections) if table < len(self.schema.field_names)]

    def forward(self, fields: Fields) -> Tensor:
        """-> (B, M, d), as FieldEmbedding gives it."""
        vectors: Tensor = self._dense[0](fields)
        if self.positions:
            chosen = vectors[:, self.positions].transpose(0, 1)
            shift = self.shift[self.positions].unsqueeze(1)
            vectors[:, self.positions] = torch.baddbmm(shift, chosen, self.projection[self.positions]).transpose(0, 1)
        if self.numeric_projection is not None and vectors.shape[1] > len(self.schema.field_names):
            start = len(self.schema.field_names)
            vectors[:, start:] = vectors[:, start:] @ self.numeric_projection
        return vectors

    def look_up(self, ids: Tensor, table: int) -> Tensor:
        """ids (...) of one of `schema.table_names` -> vectors (..., d), as FieldEmbedding gives them."""
        return self._dense[0].look_up(ids, table) @ self.projection[table] + self.shift[table]

    def dense_input(self, embeddings: Tensor, fields: Fields) -> Tensor:
        """(B, M, d) -> (B, D), as FieldEmbedding gives it."""
        return with_raw_values(embeddings.flatten(1), fields, self.raw_values)


def measure_sensitivity(
    probe: Probe,
    *,
    layer_names: Sequence[str] | None = None,
    known: Mapping[str, LayerSensitivity] | None = None,
    on_layer: Callable[[Sensitivity], None] = lambda so_far: None,
    on_progress: OnProgress = lambda fraction, message: None,
    should_stop: Callable[[], bool] = never,
) -> Sensitivity:
    """Truncate each compressible layer alone to a few ranks and measure; one forward pass over the probe's rows for each.

    Args:
        layer_names: only these; all by default.
        known: layers that an earlier call, with the same model and rows, has measured already.
        on_layer: called with all that is known after each layer.

    Raises:
        JobCancelled: `should_stop()` was true.
    """
    chosen = [layer for layer in probe.profile.compressible if layer_names is None or layer.layer_name in layer_names]
    grids = {layer.layer_name: rank_grid(layer) for layer in chosen}
    total, done = max(sum(map(len, grids.values())), 1), 0
    so_far = Sensitivity(
        log_loss=probe.original.log_loss, auc=probe.original.auc, split=probe.split, num_rows=probe.num_rows, layers={}
    )
    for layer in chosen:
        name = layer.layer_name
        measured = (known or {}).get(name)
        if measured is None:
            found = []
            for number, rank in enumerate(grids[name]):
                on_progress((done + number) / total, f"{name} at rank {rank}")
                found.append(probe.measure(CompressionSpec.of({name: rank}), should_stop=should_stop))
            measured = _layer_sensitivity(layer, grids[name], found, probe.original)
        done += len(grids[name])
        so_far = replace(so_far, layers={**so_far.layers, name: measured})
        on_layer(so_far)
    return so_far


def rank_grid(layer: LayerProfile) -> tuple[int, ...]:
    """The ranks a layer is measured at: denser where ranks are small, the last the largest that still pays."""
    last = int(np.ceil(layer.break_even)) - 1
    if last < 1:
        return ()
    grid: Sequence[int] = _TABLE_GRID if layer.kind == "embedding" else [2**power for power in range(16)]
    return tuple(sorted({rank for rank in grid if rank < last} | {last}))


def _layer_sensitivity(
    layer: LayerProfile, ranks: tuple[int, ...], found: Sequence[Measurement], original: Measurement
) -> LayerSensitivity:
    return LayerSensitivity(
        layer_name=layer.layer_name,
        width=layer.out_features,
        auc_dense=original.auc,
        ranks=ranks,
        log_losses=tuple(one.log_loss for one in found),
        aucs=tuple(one.auc for one in found),
        log_loss_increases=monotone([one.log_loss - original.log_loss for one in found]),
        auc_losses=monotone([original.auc - one.auc for one in found]),
    )


def monotone(losses: Sequence[float]) -> tuple[float, ...]:
    """The nearest losses, in squared error, that never grow with the rank and end at 0 at full rank (isotonic regression)."""
    weights: NDArray[Any] = np.ones(len(losses) + 1)
    weights[-1] = _CERTAIN
    values = np.array([*losses, 0.0])
    fitted = IsotonicRegression(increasing=False).fit_transform(np.arange(len(values)), values, sample_weight=weights)
    return tuple(float(value) for value in np.maximum(fitted[:-1] - fitted[-1], 0.0))

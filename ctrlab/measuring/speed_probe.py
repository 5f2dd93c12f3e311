"""Timing of uniform plans of one model, from which `plans.speed` predicts any plan, and of one plan."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import nn

from ctrlab.compression.fold import fold, serving_form
from ctrlab.compression.surgery import compress_model
from ctrlab.data.dataset import Split
from ctrlab.errors import JobCancelled
from ctrlab.evaluation.latency import measure_latency
from ctrlab.evaluation.prediction import never
from ctrlab.models.base import CTRModel
from ctrlab.models.profile import LayerProfile, ModelProfile
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.ranks import Spectra
from ctrlab.plans.speed import FormName, FormSpeed, LayerSpeed, SpeedModel

OnProgress = Callable[[float, str], None]
#: Shares of its break-even that a linear layer's ranks are timed at, and of their width that tables are.
_RANK_SHARES = (0.02, 0.2, 0.5, 1.0)
_WIDTH_SHARES = (0.05, 0.3, 0.6)
_SECONDS = 0.4
Times = dict[str, float]
_BASE = ""
#: Calls of a timing that are not counted.
_WARM_UP = 3


def measure_speed(
    model: CTRModel,
    spectra: Spectra,
    split: Split,
    batch_size: int,
    *,
    threads: int | None = None,
    seconds: float = _SECONDS,
    machine: str = "",
    on_progress: OnProgress = lambda fraction, message: None,
    should_stop: Callable[[], bool] = never,
) -> SpeedModel:
    """Build and time the models of a few dozen uniform plans; minutes for a large model.

    Args:
        model: not compressed, on the CPU. spectra: with eigenvectors.
        split: where the rows come from. batch_size: rows a call.
        threads: None for as many as torch uses now. seconds: spent on each timing.

    Raises:
        JobCancelled: `should_stop()` was true.
    """
    profile = profile_model(model)
    clock = _Clock(model, profile, spectra, split, batch_size, threads, seconds, on_progress, should_stop)
    original = clock.total(serving_form(model))
    names: tuple[FormName, ...] = ("folded", "explicit") if any(e.foldable for e in profile.embeddings) else ("folded",)
    forms: dict[str, FormSpeed] = {}
    for number, name in enumerate(names):
        clock.part = (number / len(names), 1 / len(names))
        forms[name] = clock.form(name)
    return SpeedModel(
        batch_size=batch_size, threads=threads or torch.get_num_threads(), machine=machine, original_ms=original, forms=forms
    )


def measure_plan_ms(
    model: CTRModel, spectra: Spectra, split: Split, ranks: Mapping[str, int], batch_size: int, *, threads: int | None = None,
    seconds: float = 2 * _SECONDS,
) -> float:  # fmt: skip
    """Median milliseconds of a call of a plan's served model, really built."""
    served = serving_form(compress_model(model, CompressionSpec.of(ranks), spectra).model)
    return measure_latency(served, split, (batch_size,), threads=threads, seconds=seconds)[batch_size].p50_ms


def timed_ranks(layer: LayerProfile) -> tuple[int, ...]:
    """The ranks a linear layer is timed at."""
    last = ceil(layer.break_even) - 1
    return tuple(sorted({max(1, round(share * last)) for share in _RANK_SHARES})) if last >= 1 else ()


def timed_widths(profile: ModelProfile) -> tuple[int, ...]:
    """The widths tables are timed at, below their own."""
    tables = [layer.out_features for layer in profile.compressible if layer.kind == "embedding"]
    if not tables or min(tables) < 2:
        return ()
    widest = min(tables)
    return tuple(sorted({*(max(1, round(share * widest)) for share in _WIDTH_SHARES), widest - 1}))


class _Clock:
    """Times models on the same batches, and the linear layers inside them."""

    def __init__(
        self, model: CTRModel, profile: ModelProfile, spectra: Spectra, split: Split, batch_size: int, threads: int | None,
        seconds: float, on_progress: OnProgress, should_stop: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.model, self.profile, self.spectra, self.split = model, profile, spectra, split
        self.batch_size, self.threads, self.seconds = batch_size, threads, seconds
        self.on_progress, self.should_stop = on_progress, should_stop
        self.part = (0.0, 1.0)
        self._reduced: tuple[int | None, CTRModel] = (None, model)
        self.linear = [layer for layer in profile.compressible if layer.kind == "linear"]
        self.tables = [layer for layer in profile.compressible if layer.kind == "embedding"]

    def form(self, name: FormName) -> FormSpeed:
        """Every linear layer at each of its ranks, with all tables at each width and dense."""
        widths = timed_widths(self.profile)
        steps = max((len(timed_ranks(layer)) for layer in self.linear), default=0)
        first = self._first() if name == "folded" else ()
        rows: list[list[Times]] = []
        for number, width in enumerate([*widths, None]):
            # Without first layers of their own, only dense tables meet every rank: a layer does not mind what others read.
            places = range(steps) if first or width is None else range(0)
            rows.append([self._times(name, width, place) for place in (*places, None)])
            self._report(number + 1, len(widths) + 2)
        return FormSpeed(
            widths=widths,
            base_ms=tuple(float(np.median([times[_BASE] for times in row])) for row in rows),
            group_ms=self._group_ms(name, widths, [row[-1][_BASE] for row in rows]),
            first=first,
            layers={layer.layer_name: self._layer(layer, rows, layer.layer_name in first) for layer in self.linear},
        )

    def total(self, served: CTRModel) -> float:
        """Median milliseconds of a call."""
        return measure_latency(served, self.split, (self.batch_size,), threads=self.threads, seconds=self.seconds)[
            self.batch_size
        ].p50_ms

    def _layer(self, layer: LayerProfile, rows: list[list[Times]], first: bool) -> LayerSpeed:
        ranks, name = timed_ranks(layer), layer.layer_name
        if first:
            ms = tuple(tuple(row[self._place(layer, place)][name] for place in range(len(ranks))) for row in rows)
            return LayerSpeed(ranks=ranks, ms=ms, dense_ms=tuple(row[-1][name] for row in rows))
        known = [[row[place][name] for row in rows if len(row) > len(ranks)] for place in range(len(ranks))]
        dense = float(np.median([row[-1][name] for row in rows]))
        return LayerSpeed(ranks=ranks, ms=(tuple(float(np.median(own)) for own in known),), dense_ms=(dense,))

    def _place(self, layer: LayerProfile, place: int) -> int:
        return min(place, len(timed_ranks(layer)) - 1)

    def _first(self) -> tuple[str, ...]:
        known = {name for e in self.profile.embeddings if e.foldable for reader in e.readers for name in reader.first_layers}
        return tuple(layer.layer_name for layer in self.linear if layer.layer_name in known)

    def _table_ranks(self, width: int | None) -> dict[str, int]:
        return {} if width is None else {layer.layer_name: min(width, layer.out_features) for layer in self.tables}

    def _linear_ranks(self, place: int | None) -> dict[str, int]:
        grids = {layer.layer_name: timed_ranks(layer) for layer in self.linear}
        return {} if place is None else {name: grid[min(place, len(grid) - 1)] for name, grid in grids.items() if grid}

    def _times(self, name: FormName, width: int | None, place: int | None) -> Times:
        """Tables are reduced once a width: theirs is most of the work."""
        tables, linear = self._table_ranks(width), self._linear_ranks(place)
        if self._reduced[0] != width:
            self._reduced = width, self._built(self.model, tables)
        return self._timed(name, self._built(self._reduced[1], linear))

    def _built(self, model: CTRModel, ranks: Mapping[str, int]) -> CTRModel:
        if not ranks:
            return model
        return compress_model(model, CompressionSpec.of(ranks), self.spectra, respect_break_even=False).model

    def _timed(self, name: FormName, built: CTRModel) -> Times:
        """{linear layer: median ms}, and of the rest of the same calls under "" """
        if self.should_stop():
            raise JobCancelled("cancelled while measuring speed")
        served = built if name == "explicit" else fold(built)
        names = [layer.layer_name for layer in self.linear]
        with stopwatches(served, names) as watches:
            self.total(served)
        calls = {layer: np.array(own[-max(1, len(own) - _WARM_UP) :]) for layer, own in watches.items()}
        inside = sum((calls[layer] for layer in names), np.zeros(1))
        times = {layer: float(np.median(calls[layer])) for layer in names}
        return {**times, _BASE: max(float(np.median(calls[_BASE] - inside)), 0.0)}

    def _group_ms(self, name: FormName, widths: Sequence[int], base: Sequence[float]) -> float:
        """Milliseconds that each further width adds, measured with all widths at once."""
        if len(widths) < 2 or len(self.tables) < 2:
            return 0.0
        own = [widths[number % len(widths)] for number in range(len(self.tables))]
        ranks = {table.layer_name: width for table, width in zip(self.tables, own, strict=True)}
        mixed = self._timed(name, self._built(self.model, ranks))[_BASE]
        alone = float(np.mean([base[widths.index(width)] for width in own]))
        return max(mixed - alone, 0.0) / (len(set(own)) - 1)

    def _report(self, done: int, of: int) -> None:
        start, share = self.part
        self.on_progress(start + share * done / of, f"timing plans, batch {self.batch_size:,}")


@contextmanager
def stopwatches(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, list[float]]]:
    """{name: milliseconds in each call of the model} of these modules, and of the whole under "", while the context lasts."""
    found: dict[str, list[float]] = {name: [] for name in (*names, _BASE)}
    started: dict[str, float] = {}
    running: dict[str, float] = dict.fromkeys(found, 0.0)

    def enter(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            started[name] = time.perf_counter()

        return hook

    def leave(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            running[name] += 1e3 * (time.perf_counter() - started[name])

        return hook

    def finish(module: nn.Module, args: Any, output: Any) -> None:
        for name in found:
            found[name].append(running[name])
            running[name] = 0.0

    handles = []
    for name in found:
        module = model.get_submodule(name) if name else model
        handles.append(module.register_forward_pre_hook(enter(name)))
        handles.append(module.register_forward_hook(leave(name)))
    handles.append(model.register_forward_hook(finish))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()

"""Predicted latency of a plan on one machine at one batch size, from a few measured models. Loads without torch.

Models of uniform plans were built and timed (`measuring.speed_probe`): every linear layer at a few ranks, all tables at a few
widths. A plan's milliseconds are put together from them. Linear layers: each its own, between measured ranks by straight lines; a
layer that reads folded tables also between measured widths. Everything else, mostly look-ups: its time with all tables at a
width, in equal shares of the tables, plus a constant for every further width, because tables of one width are looked up together.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from ctrlab.errors import CompressionError
from ctrlab.models.profile import LayerProfile, ModelProfile, cheaper
from ctrlab.plans.form_search import FloatArray, FormSums
from ctrlab.plans.serving_forms import ServingForms

FORMAT_VERSION = 1
_FILE = "speed.json"
FormName = Literal["explicit", "folded"]


@dataclass(frozen=True, kw_only=True)
class LayerSpeed:
    """Milliseconds of one linear layer; at one width unless it reads tables.

    ranks: ascending. ms: (widths, ranks). dense_ms: (widths,).
    """

    ranks: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]
    dense_ms: tuple[float, ...]

    def at(self, rank: int | None) -> FloatArray:
        """(widths,) at a rank, or dense."""
        if rank is None or not self.ranks:
            return np.array(self.dense_ms)
        return np.array([np.interp(rank, self.ranks, own) for own in self.ms])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(
            ranks=tuple(values["ranks"]), ms=tuple(map(tuple, values["ms"])), dense_ms=tuple(values["dense_ms"])
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FormSpeed:
    """One form of a model.

    widths: ascending, those that all tables were reduced to together.
    base_ms: of all but linear layers at each, then with dense tables. group_ms: what a further width among the tables adds.
    first: the linear layers that read the tables' latents; they have times at each width, then for dense tables.
    layers: {name: times}.
    """

    widths: tuple[int, ...]
    base_ms: tuple[float, ...]
    group_ms: float
    first: tuple[str, ...]
    layers: dict[str, LayerSpeed]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(
            widths=tuple(values["widths"]), base_ms=tuple(values["base_ms"]), group_ms=values["group_ms"],
            first=tuple(values["first"]), layers={name: LayerSpeed.from_dict(row) for name, row in values["layers"].items()},
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SpeedModel:
    """Measured and interpolated latency of one model in torch's float32 on the CPU.

    batch_size: rows a call. threads: torch's. machine: the processor's name.
    original_ms: of the uncompressed model, measured. forms: "folded", and "explicit" where the two differ.
    """

    batch_size: int
    threads: int
    machine: str
    original_ms: float
    forms: dict[str, FormSpeed]

    def predict_ms(self, profile: ModelProfile, ranks: Mapping[str, int]) -> float:
        """Median milliseconds of one call of a plan's served model."""
        form = self.forms[self.form_of(profile, ranks)]
        tables = _tables(profile)
        widths = [ranks.get(table.layer_name) for table in tables]
        total = self._base_ms(form, tables, widths)
        narrow = _mean_width(tables, widths)
        for name, layer in form.layers.items():
            times = layer.at(ranks.get(name))
            total += float(np.interp(narrow, _grid(form, tables), times)) if len(times) > 1 else float(times[0])
        return total

    def form_of(self, profile: ModelProfile, ranks: Mapping[str, int]) -> FormName:
        """The form that a plan is served in (`models.profile.cheaper`)."""
        if "explicit" not in self.forms:
            return "folded"
        forms = ServingForms(profile=profile, ranks=ranks, bottleneck="none", basis="per_field")
        as_is, folded = forms.explicit(), forms.folded()
        return "explicit" if cheaper(as_is, folded) is as_is else "folded"

    def _base_ms(self, form: FormSpeed, tables: Sequence[LayerProfile], widths: Sequence[int | None]) -> float:
        if not tables:
            return form.base_ms[-1]
        shares = [_share(form, width) for width in widths]
        return float(np.mean(shares)) + form.group_ms * (len(set(widths)) - 1)

    def sums(
        self, profile: ModelProfile, layers: Sequence[LayerProfile], options: Sequence[Sequence[int | None]]
    ) -> list[FormSums]:
        """Each form for a knapsack: a first layer's time taken as straight in the latents' width, further widths not counted."""
        return [self._sums(form, profile, layers, options) for form in self.forms.values()]

    def _sums(
        self, form: FormSpeed, profile: ModelProfile, layers: Sequence[LayerProfile], options: Sequence[Sequence[int | None]]
    ) -> FormSums:
        tables, costs, widths, slopes = _tables(profile), [], [], {}
        grid = _grid(form, tables)
        for number, (layer, own) in enumerate(zip(layers, options, strict=True)):
            widths.append(np.zeros(len(own)))
            if layer.kind == "embedding":
                costs.append(np.array([(_share(form, rank) - form.base_ms[-1]) / len(tables) for rank in own]))
                if form.first:
                    widths[-1] = np.array([(0 if rank is None else rank - layer.out_features) / len(tables) for rank in own])
                continue
            times = np.array([form.layers[layer.layer_name].at(rank) for rank in own])
            costs.append(times[:, -1] - times[own.index(None), -1])
            if times.shape[1] > 1:
                slopes[number] = ((times[:, -1] - times[:, 0]) / max(grid[-1] - grid[0], 1e-9))[:, None]
        dense = form.base_ms[-1] + sum(layer.dense_ms[-1] for layer in form.layers.values())
        return FormSums(
            fixed=dense, costs=costs, widths=widths, embeddings=[0] * len(costs), base_slopes=np.zeros(1), slopes=slopes
        )


def _tables(profile: ModelProfile) -> list[LayerProfile]:
    return [layer for layer in profile.layers if layer.kind == "embedding" and layer.embedding and layer.compressible]


def _share(form: FormSpeed, rank: int | None) -> float:
    """Milliseconds of everything but linear layers with every table at this rank."""
    if rank is None or not form.widths:
        return form.base_ms[-1]
    return float(np.interp(rank, form.widths, form.base_ms[:-1]))


def _mean_width(tables: Sequence[LayerProfile], widths: Sequence[int | None]) -> float:
    numbers = [table.out_features if width is None else width for table, width in zip(tables, widths, strict=True)]
    return float(np.mean(numbers)) if numbers else 1.0


def _grid(form: FormSpeed, tables: Sequence[LayerProfile]) -> FloatArray:
    """The mean widths at which a first layer was timed."""
    return np.array([*form.widths, _mean_width(tables, [None] * len(tables))])


def save_speed(folder: Path, speed: SpeedModel) -> None:
    """Write it into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _FILE).write_text(json.dumps({"version": FORMAT_VERSION, **asdict(speed)}), encoding="utf-8")


def load_speed(folder: Path) -> SpeedModel:
    """The inverse of `save_speed`."""
    try:
        content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        if content.pop("version") != FORMAT_VERSION:
            raise CompressionError("the speed was measured by another version of ctrlab; measure it again")
        forms = {name: FormSpeed.from_dict(row) for name, row in content.pop("forms").items()}
        return SpeedModel(**content, forms=forms)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CompressionError(f"the speed in {folder.name} cannot be read ({error}); measure it again") from error

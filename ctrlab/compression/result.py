"""What compressing a model returns: the compressed model, its ranks, and each layer's size before and after."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

from safetensors import SafetensorError
from safetensors.torch import save_model as save_weights
from torch import nn

from ctrlab.errors import CompressionError
from ctrlab.models.base import CTRModel
from ctrlab.models.checkpoint import save_model
from ctrlab.models.profile import LayerProfile, ModelProfile
from ctrlab.plans.configs import CompressionSpec, RankPlan
from ctrlab.plans.methods import METHODS
from ctrlab.plans.serving_forms import activation_parameters

M = TypeVar("M", bound=nn.Module)
#: Version of the JSON description that `CompressionResult.save` writes beside the weights.
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class CompressedLayer:
    """One compressible layer before and after; `rank` is None if it stayed dense."""

    name: str
    kind: str
    rank: int | None
    parameters_before: int
    parameters_after: int


@dataclass(frozen=True, eq=False, kw_only=True)
class CompressionResult(Generic[M]):
    """A compressed model, of ctrlab or any module, and what was done to it.

    spec: what was done; its plan has the ranks that were applied, without planned layers at or above break-even.
    rows: every compressible layer and table.
    skipped: {layer_name: reason} of layers that cannot be compressed, and of planned layers that would not shrink.
    earlier: {layer_name: rank} of layers that were compressed before; for modules that are not ctrlab's own.
    difference: of the outputs of the module before and after on the first calibration batch, relative (root of the sum of
        squared differences over the sum of squares); None where that was not run.
    """

    model: M
    spec: CompressionSpec
    rows: tuple[CompressedLayer, ...]
    skipped: dict[str, str]
    earlier: Mapping[str, int] = field(default_factory=dict)
    difference: float | None = None

    @property
    def plan(self) -> RankPlan:
        """The ranks that were applied."""
        return self.spec.plan

    def description(self) -> dict[str, Any]:
        """What was done, as JSON: "version", "ranks", "bottleneck", "layers" (one row each) and "skipped"."""
        rows = [
            {"layer": row.name, "kind": row.kind, "rank": row.rank,
             "before": int(row.parameters_before), "after": int(row.parameters_after)}
            for row in self.rows
        ]  # fmt: skip
        return {
            "version": FORMAT_VERSION, "ranks": {**self.earlier, **self.plan.as_dict()}, "bottleneck": self.spec.bottleneck,
            "layers": rows, "skipped": self.skipped, "difference": self.difference,
        }  # fmt: skip

    def save(self, path: str | Path) -> tuple[Path, ...]:
        """Write the model to `path` (safetensors) and return the paths written.

        A ctrlab model is one checkpoint, read by `ctrlab.models.checkpoint.load_model`. Of any other module the weights are
        written, with the description in a .json file beside them; `ctrlab.restore` reads both. Files of these names are
        replaced once both are written.

        Raises:
            CompressionError: a file cannot be written, or the module has state that is no tensor.
        """
        path = Path(path)
        if isinstance(self.model, CTRModel):
            save_model(self.model, path)
            return (path,)
        if path.suffix == ".json":
            raise CompressionError(f"{path} is where the description would be written; name the weights {path.stem}.safetensors")
        return _save_module(self.model, self.description(), path)


def _save_module(module: nn.Module, description: Mapping[str, Any], path: Path) -> tuple[Path, Path]:
    """Write weights and description whole or not at all, with the file modes of other new files."""
    described = path.with_suffix(".json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            weights, text = Path(folder) / "weights", Path(folder) / "description"
            text.write_text(json.dumps(description, indent=1), encoding="utf-8")
            save_weights(module, str(weights))
            weights.chmod(text.stat().st_mode)  # safetensors makes it readable by its owner alone
            weights.replace(path)
            text.replace(described)
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise CompressionError(f"the module cannot be saved as {path}: {error}; safetensors holds tensors alone") from error
    return path, described


def layer_rows(profile: ModelProfile, ranks: Mapping[str, int], spec: CompressionSpec) -> tuple[CompressedLayer, ...]:
    """Every compressible layer of a profile with its size before and after, for the effective `ranks`.

    A shared basis itself, d k, is in no table's row, and an index is no parameter.
    """
    return tuple(
        CompressedLayer(
            name=layer.layer_name, kind=layer.kind, rank=ranks.get(layer.layer_name),
            parameters_before=layer.parameters,
            parameters_after=_parameters_after(layer, ranks.get(layer.layer_name), spec),
        )
        for layer in profile.compressible
    )  # fmt: skip


def _parameters_after(layer: LayerProfile, rank: int | None, spec: CompressionSpec) -> int:
    if rank is None:
        return layer.parameters
    if layer.kind == "embedding" and spec.basis == "shared":
        return layer.in_features * rank
    if layer.kind == "embedding":
        return METHODS[spec.method].table_shape(layer.in_features, layer.out_features, rank).parameters
    in_tables, dense, _ = layer.factored(rank, activation_parameters(spec.bottleneck, rank))
    return in_tables + dense


def skipped_layers(profile: ModelProfile, plan: RankPlan, ranks: Mapping[str, int]) -> dict[str, str]:
    """{layer_name: reason} of what cannot be compressed, and of planned layers that are not among the effective `ranks`."""
    reasons = {layer.layer_name: layer.skip_reason for layer in profile.layers if layer.skip_reason is not None}
    for name, rank in plan.as_dict().items():
        if name not in ranks:
            limit = profile.by_name[name].break_even
            reasons[name] = f"rank {rank} is at or above break-even ({limit:.1f}), so the layer stays dense"
    return reasons

"""`compress`: any module with low-rank layers and tables in place of its own; `restore` reads it from its files."""

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from ctrlab.anymodule.bilinear import FactoredBilinear
from ctrlab.anymodule.module_layers import Filter, ForeignLayer, find_layers, profile_of, unfused_forms, unwrapped
from ctrlab.anymodule.spectra import collect
from ctrlab.anymodule.tables import FactoredBag, FactoredTable
from ctrlab.anymodule.unfused import unfused
from ctrlab.compression.afm import AFM
from ctrlab.compression.linear import FactoredLinear, factor_linear_, factors_of, like_module
from ctrlab.compression.projection import project_rows_
from ctrlab.compression.surgery import CompressedLayer, layer_rows, skipped_layers
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError
from ctrlab.models.profile import ModelProfile
from ctrlab.plans.configs import BOTTLENECKS, Bottleneck, CompressionSpec, RankPlan
from ctrlab.plans.ranks import plan_ranks, spectrum_faults

FORMAT_VERSION = 1
_GIVE = "give the architecture it was made of"


@dataclass(frozen=True, eq=False, kw_only=True)
class CompressionResult:
    """The compressed module and what was done to get it.

    plan: the ranks really applied.
    bottleneck: between the factors of linear layers.
    rows: every layer and table that could be compressed: name, kind, rank (None where it stayed dense), parameters before
        and after.
    skipped: {name: reason} for everything else with a matrix in it, and for layers that would not shrink.
    """

    model: nn.Module
    plan: RankPlan
    bottleneck: Bottleneck
    rows: tuple[CompressedLayer, ...]
    skipped: dict[str, str]

    def description(self) -> dict[str, Any]:
        """What was done, as JSON: "version", "ranks", "bottleneck", "layers" (a row each) and "skipped"."""
        rows = [
            {"layer": row.name, "kind": row.kind, "rank": row.rank,
             "before": row.parameters_before, "after": row.parameters_after}
            for row in self.rows
        ]  # fmt: skip
        return {
            "version": FORMAT_VERSION, "ranks": self.plan.as_dict(), "bottleneck": self.bottleneck, "layers": rows,
            "skipped": self.skipped,
        }  # fmt: skip

    def save(self, path: str | Path) -> tuple[Path, Path]:
        """Write the weights to `path` (safetensors) and the description beside them (.json); `ctrlab.restore` reads both."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_model(self.model, str(path))
        description = path.with_suffix(".json")
        description.write_text(json.dumps(self.description(), indent=1), encoding="utf-8")
        return path, description


def compress(
    module: nn.Module,
    batches: Iterable[Any] | None,
    *,
    variance: float | None = None,
    ranks: Mapping[str, int] | None = None,
    spectra: Mapping[str, LayerSpectrum] | None = None,
    filter_fn: Filter | None = None,
    bottleneck: Bottleneck = "none",
) -> CompressionResult:
    """A copy of `module` with low-rank layers and tables by AFM (arXiv 2405.18146); `module` itself is not changed.

    Layers at or above break-even stay dense. A module that is used in several places is one layer and is replaced in all.

    Args:
        module: wrappers of `torch.compile`, DataParallel and DistributedDataParallel are looked through.
        batches: calibration, each what the module takes; may be None where `spectra` are given.
        variance: share of output variance that every layer and table keeps; or
        ranks: by layer name; patterns such as "mlp.*" too.
        spectra: of this module, from an earlier `ctrlab.spectra`.
        filter_fn: filter_fn(name, module) selects layers; by default all.
        bottleneck: between the factors of linear layers: "none", "relu" or "prelu".

    Raises:
        CompressionError: neither or both of `variance` and `ranks`, or a plan or spectra that do not fit the module.
        SpectrumError: a layer's output is not finite.

    >>> import torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(32, 24), torch.nn.ReLU(), torch.nn.Linear(24, 1))
    >>> result = compress(module, [torch.randn(200, 32)], ranks={"0": 4})
    >>> result.model(torch.randn(5, 32)).shape
    torch.Size([5, 1])
    >>> sum(p.numel() for p in module.parameters()), sum(p.numel() for p in result.model.parameters())
    (817, 277)
    """
    module = unwrapped(module)
    forms = unfused_forms(module)
    with unfused(module, forms) as form:
        layers, skipped = find_layers(form, filter_fn)
        if spectra is None:
            if batches is None:
                raise CompressionError("there are neither batches nor spectra; give calibration batches, or the module's spectra")
            spectra = collect(form, batches, filter_fn)
        seen = [layer if layer.skip_reason is not None or layer.layer_name in spectra else _unseen(layer) for layer in layers]
        profile = profile_of(seen)
        plan = plan_ranks(profile, spectra, variance=variance, ranks=ranks)
        chosen = plan.as_dict()
        if faults := spectrum_faults(profile, spectra, chosen, with_eigenvectors=True):
            raise CompressionError("; ".join(faults) + "; collect the spectra of this module")
        model = _rebuilt(form, {
            layer: _factored(layer, chosen[layer.layer_name], spectra[layer.layer_name], bottleneck)
            for layer in seen if layer.layer_name in chosen
        })  # fmt: skip
    asked = RankPlan.of(_asked(profile, spectra, variance, ranks or {}))
    return CompressionResult(
        model=_with_fused(model, module, forms, chosen), plan=plan, bottleneck=bottleneck,
        rows=layer_rows(profile, chosen, CompressionSpec(bottleneck=bottleneck)),
        skipped=skipped | skipped_layers(profile, asked, chosen),
    )  # fmt: skip


def restore(module: nn.Module, path: str | Path) -> nn.Module:
    """The compressed module that `CompressionResult.save` wrote, without the weights it was made from.

    Args:
        module: the uncompressed architecture, with any weights; not changed.
        path: the .safetensors file; the .json file lies beside it.

    Raises:
        CompressionError: the files are not there, are damaged, or belong to another architecture.

    >>> import tempfile, torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(32, 24), torch.nn.ReLU(), torch.nn.Linear(24, 1))
    >>> result, x = compress(module, [torch.randn(200, 32)], ranks={"0": 4}), torch.randn(5, 32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "small.safetensors"
    ...     _ = result.save(path)
    ...     torch.equal(restore(module, path)(x), result.model(x))
    True
    """
    path, module = Path(path), unwrapped(module)
    ranks, bottleneck = _read_description(path.with_suffix(".json"))
    forms = unfused_forms(module)
    with unfused(module, forms) as form:
        layers = {layer.layer_name: layer for layer in find_layers(form)[0]}
        if unknown := [name for name in ranks if name not in layers]:
            raise CompressionError(f"{path.name} has a layer {unknown[0]}, this module has not; {_GIVE}")
        blanks = {layers[name]: _blank(layers[name], rank, bottleneck) for name, rank in ranks.items()}
        model = _with_fused(_rebuilt(form, blanks), module, forms, ranks)
    try:
        load_model(model, str(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).split("\n")[-1].strip()
        raise CompressionError(f"{path.name} cannot be loaded into this module: {reason}; {_GIVE}") from error
    return model


def _read_description(path: Path) -> tuple[dict[str, int], Bottleneck]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        ranks = {str(name): int(rank) for name, rank in values["ranks"].items()}
        version, bottleneck = values["version"], values["bottleneck"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CompressionError(f"{path} does not describe a compressed module; `save` writes one that does") from error
    if version != FORMAT_VERSION or bottleneck not in BOTTLENECKS:
        raise CompressionError(f"{path} has format {version}; this ctrlab reads {FORMAT_VERSION}")
    return ranks, bottleneck


def _rebuilt(form: nn.Module, new: Mapping[ForeignLayer, nn.Module]) -> nn.Module:
    """A copy of `form` with new modules in the places of layers; what they replace is not copied."""
    model = copy.deepcopy(form, {id(layer.module): layer.module for layer in new})
    for layer, module in new.items():
        for slot in layer.slots:
            if not slot:
                return module
            model.set_submodule(slot, module)
    return model


def _with_fused(model: nn.Module, module: nn.Module, forms: Mapping[str, nn.Module], ranks: Mapping[str, int]) -> nn.Module:
    """`model` with its unchanged attention and recurrent layers in torch's own, faster form.

    The layers of a Transformer stay open where they changed elsewhere: torch would go round the new modules in one operation.
    """
    memo: dict[int, Any] = {}
    for name in forms:
        around = name.rpartition(".")[0]
        if not isinstance(module.get_submodule(around), nn.TransformerEncoderLayer) or not name:
            around = name
        inside = f"{around}." if around else ""
        if any(layer.startswith(inside) for layer in ranks):
            continue
        closed = copy.deepcopy(module.get_submodule(name), memo)
        if not name:
            return closed
        model.set_submodule(name, closed)
    return model


def _unseen(layer: ForeignLayer) -> ForeignLayer:
    reason = "it did not run on these batches, or weighs its rows by sample"
    return ForeignLayer(**{**vars(layer), "skip_reason": reason})


def _asked(
    profile: ModelProfile, spectra: Mapping[str, LayerSpectrum], variance: float | None, ranks: Mapping[str, int]
) -> dict[str, int]:
    """The ranks before the break-even rule."""
    names = [layer.layer_name for layer in profile.compressible]
    if variance is not None:
        return {name: spectra[name].rank_for(variance) for name in names}
    asked = {name: rank for pattern, rank in ranks.items() for name in names if fnmatchcase(name, pattern)}
    return asked | {name: rank for name, rank in ranks.items() if name in names}


def _blank(layer: ForeignLayer, rank: int, bottleneck: Bottleneck) -> nn.Module:
    """What takes the layer's place, without values: same call, type, device, mode, and gradients where it had them."""
    old = layer.module
    if isinstance(old, nn.Linear):
        return FactoredLinear.unfilled(old, rank, bottleneck)
    if isinstance(old, nn.Bilinear):
        return FactoredBilinear.unfilled(old, rank, bottleneck)
    assert isinstance(old, (nn.Embedding, nn.EmbeddingBag))
    return like_module(FactoredBag(old, rank) if isinstance(old, nn.EmbeddingBag) else FactoredTable(old, rank), old)


@torch.no_grad()
def _factored(layer: ForeignLayer, rank: int, spectrum: LayerSpectrum, bottleneck: Bottleneck) -> nn.Module:
    """What takes the layer's place, by AFM."""
    old, new = layer.module, _blank(layer, rank, bottleneck)
    if isinstance(old, (nn.Linear, nn.Bilinear)):
        assert isinstance(new, (FactoredLinear, FactoredBilinear))
        factor_linear_(new, factors_of(old, AFM(), spectrum, rank))
        return new
    assert isinstance(old, (nn.Embedding, nn.EmbeddingBag))
    assert isinstance(new, FactoredTable)
    basis, mean = AFM().table_factors(old.weight, spectrum, rank)
    project_rows_(new.weight, old.weight, basis, mean)
    new.projection.copy_(basis)
    new.mean.copy_(mean)
    if new.padding_idx is not None:
        new.weight[new.padding_idx] = 0
    return new

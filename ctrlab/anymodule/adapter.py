"""`compress` and `restore` for any `nn.Module`: an adapter that applies `ctrlab.compression` to another inventory of layers."""

import copy
import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol, Self, cast

from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import nn

from ctrlab.anymodule.bilinear import FactoredBilinear
from ctrlab.anymodule.module_layers import Filter, ForeignLayer, find_layers, profile_of, unfused_forms, unwrapped
from ctrlab.anymodule.spectra import collect
from ctrlab.anymodule.tables import FactoredBag, FactoredTable
from ctrlab.anymodule.unfused import unfused
from ctrlab.compression.afm import AFM
from ctrlab.compression.factors import Compressor
from ctrlab.compression.linear import FactoredLinear
from ctrlab.compression.result import FORMAT_VERSION, CompressionResult, layer_rows, skipped_layers
from ctrlab.compression.surgery import check_spectra, replace_modules
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError
from ctrlab.models.profile import ModelProfile
from ctrlab.models.structure import Bottleneck
from ctrlab.plans.configs import BOTTLENECKS, CompressionSpec, RankPlan
from ctrlab.plans.ranks import plan_ranks

_GIVE = "give the architecture it was made of"


class ReducedLayer(Protocol):
    """A module that replaces one layer at a rank."""

    @classmethod
    def unfilled(cls, layer: Any, rank: int, bottleneck: Bottleneck) -> Self:
        """The module without values."""
        ...

    def fill_(self, layer: Any, compressor: Compressor, spectrum: LayerSpectrum | None) -> None:
        """In place: the values, from those of `layer` by a method."""
        ...


#: The reduced form of each class of layers, subclasses before their bases.
_REDUCED_FORMS: Mapping[type[nn.Module], type[ReducedLayer]] = {
    nn.Linear: FactoredLinear, nn.Bilinear: FactoredBilinear, nn.EmbeddingBag: FactoredBag, nn.Embedding: FactoredTable,
}  # fmt: skip


def compress(
    module: nn.Module,
    batches: Iterable[Any] | None,
    *,
    variance: float | None = None,
    ranks: Mapping[str, int] | None = None,
    spectra: Mapping[str, LayerSpectrum] | None = None,
    filter_fn: Filter | None = None,
    bottleneck: Bottleneck = "none",
) -> CompressionResult[nn.Module]:
    """A copy of `module` with low-rank layers and tables by AFM (arXiv 2405.18146); `module` itself is not changed.

    Layers at or above break-even stay dense. A module that is used in several places is one layer and is replaced in all.

    Args:
        module: any wrapper of `torch.compile`, DataParallel or DistributedDataParallel is removed.
        batches: calibration batches, each what the module takes; None if `spectra` are given.
        variance: share of output variance that every layer and table keeps; or
        ranks: by layer name or pattern such as "mlp.*".
        spectra: of this module, from `ctrlab.spectra`.
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
        check_spectra(profile, spectra, chosen)
        model = _replaced(form, {
            layer: _reduced(layer, chosen[layer.layer_name], spectra[layer.layer_name], bottleneck)
            for layer in seen if layer.layer_name in chosen
        })  # fmt: skip
    asked = RankPlan.of(_asked(profile, spectra, variance, ranks or {}))
    spec = CompressionSpec(plan=plan, bottleneck=bottleneck)
    return CompressionResult(
        model=_with_fused(model, module, forms, chosen), spec=spec, rows=layer_rows(profile, chosen, spec),
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
        new = {layers[name]: cast(nn.Module, _unfilled(layers[name], rank, bottleneck)) for name, rank in ranks.items()}
        model = _with_fused(_replaced(form, new), module, forms, ranks)
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


def _replaced(form: nn.Module, new: Mapping[ForeignLayer, nn.Module]) -> nn.Module:
    """A copy of `form` with new modules in all places of these layers."""
    return replace_modules(form, {slot: module for layer, module in new.items() for slot in layer.slots})


def _with_fused(model: nn.Module, module: nn.Module, forms: Mapping[str, nn.Module], ranks: Mapping[str, int]) -> nn.Module:
    """`model` with its unchanged attention and recurrent layers in torch's fused form, which is faster.

    Those of a TransformerEncoderLayer stay unfused if another part of it changed: its fused fast path would skip the new modules.
    """
    memo: dict[int, Any] = {}
    for name in forms:
        around = name.rpartition(".")[0]
        if not isinstance(module.get_submodule(around), nn.TransformerEncoderLayer) or not name:
            around = name
        inside = f"{around}." if around else ""
        if any(layer.startswith(inside) for layer in ranks):
            continue
        fused = copy.deepcopy(module.get_submodule(name), memo)
        if not name:
            return fused
        model.set_submodule(name, fused)
    return model


def _unseen(layer: ForeignLayer) -> ForeignLayer:
    reason = "it did not run on these batches, or uses per_sample_weights"
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


def _unfilled(layer: ForeignLayer, rank: int, bottleneck: Bottleneck) -> ReducedLayer:
    """The module that replaces the layer, without values: same call, dtype, device, mode and requires_grad."""
    form = next(form for base, form in _REDUCED_FORMS.items() if isinstance(layer.module, base))
    return form.unfilled(layer.module, rank, bottleneck)


def _reduced(layer: ForeignLayer, rank: int, spectrum: LayerSpectrum, bottleneck: Bottleneck) -> nn.Module:
    """The module that replaces the layer, by AFM."""
    new = _unfilled(layer, rank, bottleneck)
    new.fill_(layer.module, AFM(), spectrum)
    return cast(nn.Module, new)

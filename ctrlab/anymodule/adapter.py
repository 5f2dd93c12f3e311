"""`compress` and `restore` for any `nn.Module`: an adapter that applies `ctrlab.compression` to another inventory of layers."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol, Self, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import nn

from ctrlab.anymodule.bilinear import FactoredBilinear
from ctrlab.anymodule.calls import Forward
from ctrlab.anymodule.check import Checked, OriginalRun, squared_error_limits
from ctrlab.anymodule.convolution import CONVOLUTIONS, FactoredConvolution, FactoredTransposed
from ctrlab.anymodule.copying import copied
from ctrlab.anymodule.module_layers import (
    Filter,
    ForeignLayer,
    find_layers,
    has_lazy_weights,
    profile_of,
    unfused_forms,
    unwrapped,
)  # fmt: skip
from ctrlab.anymodule.spectra import calibrate
from ctrlab.anymodule.tables import FactoredBag, FactoredTable
from ctrlab.anymodule.unfused import makes_nested_tensors, unfused
from ctrlab.compression.afm import AFM
from ctrlab.compression.factors import Compressor
from ctrlab.compression.linear import FactoredLinear
from ctrlab.compression.result import FORMAT_VERSION, CompressionResult, layer_rows, skipped_layers
from ctrlab.compression.surgery import check_spectra
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
    **dict.fromkeys(CONVOLUTIONS, FactoredConvolution),
}  # fmt: skip
_WITH_BOTTLENECK = (FactoredLinear, FactoredBilinear, FactoredConvolution)
_FACTORED = (*_WITH_BOTTLENECK, FactoredTable)


def compress(
    module: nn.Module,
    batches: Iterable[Any] | None,
    *,
    variance: float | None = None,
    ranks: Mapping[str, int] | None = None,
    spectra: Mapping[str, LayerSpectrum] | None = None,
    filter_fn: Filter | None = None,
    bottleneck: Bottleneck = "none",
    forward: Forward | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> CompressionResult[nn.Module]:
    """A copy of `module` with low-rank layers and tables by AFM (arXiv 2405.18146); `module` itself is not changed.

    Layers at or above break-even stay dense. A module that is used in several places is one layer and is replaced in all. The
    result is run on the first batch: a layer whose replacement does not run as often as the layer did, or differs from it by
    more than the spectra predict, is put back and listed in `skipped`.

    Args:
        module: any wrapper of `torch.compile`, DataParallel or DistributedDataParallel is removed.
        batches: calibration batches, each what the module takes. With `spectra` given only the first is run; None runs none.
        variance: share of output variance that every layer and table keeps; or
        ranks: by layer name or pattern such as "mlp.*".
        spectra: of this module, from `ctrlab.spectra`.
        filter_fn: filter_fn(name, module) selects layers; by default all.
        bottleneck: between the factors of linear layers: "none", "relu" or "prelu".
        forward: forward(module, batch) runs the module on a batch of any other form.
        on_batch: on_batch(number of batches done), after each.

    Raises:
        CompressionError: neither or both of `variance` and `ranks`; a plan or spectra that do not fit the module; TorchScript; or
            an attribute of the module that cannot be copied.
        SpectrumError: there are no batches, a batch is not what the module takes, or a layer's output is not finite.

    Warns:
        CalibrationWarning: a layer has more outputs than it saw rows, hence too few directions.

    >>> import torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(32, 24), torch.nn.ReLU(), torch.nn.Linear(24, 1))
    >>> result = compress(module, [torch.randn(200, 32)], ranks={"0": 4})
    >>> result.model(torch.randn(5, 32)).shape
    torch.Size([5, 1])
    >>> sum(p.numel() for p in module.parameters()), sum(p.numel() for p in result.model.parameters())
    (817, 277)
    """
    with torch.inference_mode(False):
        return _compress(unwrapped(module), batches, variance, ranks, spectra, filter_fn, bottleneck, forward, on_batch)


def _compress(
    module: nn.Module, batches: Iterable[Any] | None, variance: float | None, ranks: Mapping[str, int] | None,
    spectra: Mapping[str, LayerSpectrum] | None, filter_fn: Filter | None, bottleneck: Bottleneck, forward: Forward | None,
    on_batch: Callable[[int], None] | None,
) -> CompressionResult[nn.Module]:  # fmt: skip
    forms = unfused_forms(module)
    with unfused(module, forms) as form:
        layers, skipped = find_layers(form, filter_fn)
        limited = spectra is None  # other spectra say nothing of these batches
        if spectra is not None:
            batch = next(iter(batches), None) if batches is not None else None
        elif batches is None:
            raise CompressionError("there are neither batches nor spectra; give calibration batches, or the module's spectra")
        else:
            calibration = calibrate(form, batches, filter_fn, forward, on_batch)
            spectra, batch = calibration.spectra, calibration.first_batch
        seen = [layer if layer.skip_reason is not None or layer.layer_name in spectra else _unseen(layer) for layer in layers]
        profile = profile_of(seen)
        chosen = plan_ranks(profile, spectra, variance=variance, ranks=ranks).as_dict()
        check_spectra(profile, spectra, chosen)
        new = {
            layer: _reduced(layer, chosen[layer.layer_name], spectra[layer.layer_name], bottleneck)
            for layer in seen if layer.layer_name in chosen
        }  # fmt: skip
        bottleneck, earlier = _earlier(module, new, bottleneck)
        runs = batch is not None and not has_lazy_weights(module)
        original = OriginalRun(form, new, batch, forward) if runs else None
    limits = squared_error_limits(new, spectra, chosen) if limited else {}
    model, faults, difference = _built(module, forms, new, original, limits)
    kept = {name: rank for name, rank in chosen.items() if name not in faults}
    asked = RankPlan.of(_asked(profile, spectra, variance, ranks or {}))
    spec = CompressionSpec(plan=RankPlan.of(kept), bottleneck=bottleneck)
    return CompressionResult(
        model=model, spec=spec, rows=layer_rows(profile, kept, spec),
        skipped=skipped | skipped_layers(profile, asked, chosen) | faults, earlier=earlier, difference=difference,
    )  # fmt: skip


def _built(
    module: nn.Module, forms: Mapping[str, nn.Module], new: Mapping[ForeignLayer, nn.Module], original: OriginalRun | None,
    limits: Mapping[str, float],
) -> tuple[nn.Module, dict[str, str], float | None]:  # fmt: skip
    """(compressed module, {layer: reason} of those that were put back, relative difference of the outputs)."""
    faults: dict[str, str] = {}
    while True:
        kept = {layer: replacement for layer, replacement in new.items() if layer.layer_name not in faults}
        model = _replaced(module, forms, kept)
        if original is None:
            return model, faults, None
        checked = original.check(model, kept, limits)
        if not checked.ran and len(kept) > 1:  # which of them is it?
            alone = [original.check(_replaced(module, forms, {layer: part}), {layer: part}, {}) for layer, part in kept.items()]
            single = {name: reason for one in alone if not one.ran for name, reason in one.faults.items()}
            checked = Checked(faults=single or checked.faults)
        if not checked.faults:
            return model, faults, checked.difference
        faults |= checked.faults


def _earlier(
    module: nn.Module, new: Mapping[ForeignLayer, nn.Module], bottleneck: Bottleneck
) -> tuple[Bottleneck, dict[str, int]]:
    """The bottleneck of all factored layers, and {name: rank} of those that `module` has already."""
    earlier = {
        name: part for name, part in module.named_modules() if isinstance(part, _FACTORED)
    }  # fmt: skip
    kinds = {part.bottleneck for part in earlier.values() if isinstance(part, _WITH_BOTTLENECK)}
    if kinds - {bottleneck} and any(isinstance(part, _WITH_BOTTLENECK) for part in new.values()):
        raise CompressionError(f"the module has {kinds.pop()} bottlenecks, {bottleneck} was asked for; use one kind throughout")
    return (kinds.pop() if kinds else bottleneck), {name: int(part.rank) for name, part in earlier.items()}


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
    model = _replaced(module, forms, new)
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


def _replaced(module: nn.Module, forms: Mapping[str, nn.Module], new: Mapping[ForeignLayer, nn.Module]) -> nn.Module:
    """A copy of `module` with new modules for these layers, and everything else as it was."""
    with unfused(module, forms) as form:
        model = copied(form, {layer.module: part for layer, part in new.items()})
    return _with_fused(model, module, forms, [layer.layer_name for layer in new])


def _with_fused(model: nn.Module, module: nn.Module, forms: Mapping[str, nn.Module], replaced: Sequence[str]) -> nn.Module:
    """`model` with its unchanged attention and recurrent layers in torch's fused form, which is faster, and nested tensors too.

    Those of a TransformerEncoderLayer stay unfused if another part of it changed: its fused fast path would skip the new modules.
    """
    fused: dict[int, nn.Module] = {}
    for name in forms:
        around = name.rpartition(".")[0]
        if not isinstance(module.get_submodule(around), nn.TransformerEncoderLayer) or not name:
            around = name
        inside = f"{around}." if around else ""
        if any(layer.startswith(inside) for layer in replaced):
            continue
        old = module.get_submodule(name)
        new = fused.setdefault(id(old), copied(old))
        if not name:
            return new
        model.set_submodule(name, new)
    for name, part in module.named_modules():
        inside = f"{name}." if name else ""
        if makes_nested_tensors(part) and not any(layer.startswith(inside) for layer in replaced):
            cast(Any, model.get_submodule(name)).use_nested_tensor = True
    return model


def _unseen(layer: ForeignLayer) -> ForeignLayer:
    reason = "it did not run on these batches"
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
    forms = (form for base, form in _REDUCED_FORMS.items() if isinstance(layer.module, base))
    return next(forms, FactoredTransposed).unfilled(layer.module, rank, bottleneck)


def _reduced(layer: ForeignLayer, rank: int, spectrum: LayerSpectrum, bottleneck: Bottleneck) -> nn.Module:
    """The module that replaces the layer, by AFM."""
    new = _unfilled(layer, rank, bottleneck)
    new.fill_(layer.module, AFM(), spectrum)
    return cast(nn.Module, new)

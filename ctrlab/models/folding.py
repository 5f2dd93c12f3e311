"""What folding can replace in a model: the readers of its embeddings, and batch normalisations behind linear layers.

A reader is a submodule that reads an embedding's output. Each class of readers is registered once, by `register_reader`, with
the cost of its folded form and the path of the function that folds it. A class is registered in the file that defines it or
here, hence whenever a module of it exists: what is known does not depend on which modules were imported.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from torch import nn

from ctrlab.models.autoint import FieldAttention
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import EmbeddingModelConfig
from ctrlab.models.cost import CostMeter
from ctrlab.models.inventory import linear_skip_reason
from ctrlab.models.layers import MLP, CrossNetwork, InnerProductFM
from ctrlab.models.products import InnerProducts
from ctrlab.models.profile import Cost, ReaderProfile

#: (model, reader's name) -> its folded cost and the names of the modules that the fold replaces; None where it cannot fold.
FoldedCost = Callable[[CTRModel, str], tuple[ReaderProfile, tuple[str, ...]] | None]


@dataclass(frozen=True, kw_only=True)
class ReaderClass:
    """A registered class of readers.

    cost: of its folded form.
    fold: "module:function" with the signature `(model, reader's name, LatentMap)`, which replaces the reader in place by one
        that reads latents; "" where nothing is replaced. A path, because models come before compression in the order of imports.
    """

    cost: FoldedCost
    fold: str = ""


_READERS: dict[type[nn.Module], ReaderClass] = {}


def register_reader(module_class: type[nn.Module], cost: FoldedCost, *, fold: str = "") -> None:
    """Register how modules of `module_class`, and of its subclasses, read an embedding (see `ReaderClass`)."""
    _READERS[module_class] = ReaderClass(cost=cost, fold=fold)


def reader_class(reader: nn.Module) -> ReaderClass | None:
    """The registration of the module's class or of its nearest base; None where there is none."""
    return next((_READERS[base] for base in type(reader).__mro__ if base in _READERS), None)


def readers_of(model: CTRModel, embedding_name: str, meter: CostMeter | None = None) -> tuple[ReaderProfile, ...]:
    """The readers of the embedding called `embedding_name`, compressed or not; their `own` cost is zero without a meter."""
    return tuple(_reader_profile(model, name, meter) for name in model.embedding_readers.get(embedding_name, ()))


def _reader_profile(model: CTRModel, name: str, meter: CostMeter | None) -> ReaderProfile:
    known = reader_class(model.get_submodule(name))
    found = known.cost(model, name) if known is not None else None
    if found is None:
        return ReaderProfile(name=name, foldable=False)
    profile, replaced = found
    if meter is None:
        return profile
    parts = [model.get_submodule(part) for part in replaced]
    own = sum((meter.cost_of(part) for part in parts if not _is_compressible(part)), Cost())
    return dataclasses.replace(profile, own=own)


def _is_compressible(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and linear_skip_reason(module) is None


def first_layer(model: CTRModel, name: str) -> tuple[ReaderProfile, tuple[str, ...]]:
    """The folded cost of a linear layer, factored or not, that reads all vectors side by side."""
    return ReaderProfile(name=name, first_layers=(name,)), (name,)


def _folded_mlp(model: CTRModel, name: str) -> tuple[ReaderProfile, tuple[str, ...]]:
    """Only the first layer changes; its cost follows from its own rank."""
    return ReaderProfile(name=name, first_layers=(f"{name}.0",)), (f"{name}.0",)


def _inner_products(model: CTRModel, name: str) -> tuple[ReaderProfile, tuple[str, ...]]:
    """One number per pair of fields: nothing to fold, but latents in a shared basis have the same inner products as vectors."""
    return ReaderProfile(name=name, foldable=False, rotation_invariant=True), (name,)


def _folded_attention(model: CTRModel, name: str) -> tuple[ReaderProfile, tuple[str, ...]] | None:
    """Its projections absorb the bases; an attention that adds the vectors themselves needs them restored."""
    if isinstance(model.get_submodule(name).residual, nn.Identity):
        return None
    projections = attention_projections(model, name)
    return ReaderProfile(name=name, first_layers=projections, by_field=True), projections


def attention_projections(model: CTRModel, name: str) -> tuple[str, ...]:
    """The linear maps of the vectors in the FieldAttention called `name`."""
    parts = ("query", "key", "value", "residual")
    return tuple(f"{name}.{part}" for part in parts if getattr(model.get_submodule(name), part) is not None)


def _folded_fm(model: CTRModel, name: str) -> tuple[ReaderProfile, tuple[str, ...]]:
    """S z + m, and the weights of z and z^2 (`compression.readers.fm`)."""
    d = cast(EmbeddingModelConfig, model.config).embed_dim
    profile = ReaderProfile(
        name=name, parameters_base=d + 1, parameters_slope=d + 2, macs_base=d, macs_slope=d + 3, rotation_invariant=True
    )
    return profile, (name,)


def _folded_cross(model: CTRModel, name: str) -> tuple[ReaderProfile, tuple[str, ...]] | None:
    """One scalar per cross layer and one for the head (`compression.readers.cross`); None for a network without its own head."""
    head, cross = getattr(model, f"{name}_head", None), model.get_submodule(name)
    if not isinstance(head, nn.Linear) or head.out_features != 1 or not isinstance(cross, CrossNetwork):
        return None
    n = len(cross.weights) + 1
    return ReaderProfile(name=name, parameters_base=2 * n, parameters_slope=n, macs_base=n, macs_slope=n), (name, f"{name}_head")


register_reader(nn.Linear, first_layer, fold="ctrlab.compression.readers.mlp:fold_first_layer")
register_reader(MLP, _folded_mlp, fold="ctrlab.compression.readers.mlp:fold_mlp")
register_reader(FieldAttention, _folded_attention, fold="ctrlab.compression.readers.attention:fold_attention")
register_reader(InnerProductFM, _folded_fm, fold="ctrlab.compression.readers.fm:fold_fm")
register_reader(CrossNetwork, _folded_cross, fold="ctrlab.compression.readers.cross:fold_cross")
register_reader(InnerProducts, _inner_products)


def foldable_norms(model: nn.Module) -> Iterator[tuple[nn.Sequential, int]]:
    """(sequence, position) of each batch normalisation directly behind an affine layer, into which it folds."""
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            for position, part in enumerate(module):
                if position and isinstance(part, nn.BatchNorm1d) and _takes_norm(module[position - 1]):
                    yield module, position


def _takes_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or hasattr(module, "scale_output_")

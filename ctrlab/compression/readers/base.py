"""The registry of folding rules."""

from collections.abc import Callable

from torch import nn

from ctrlab.compression.latents import LatentMap
from ctrlab.models.base import CTRModel

#: rule(model, reader's name, map): replace the reader, in place, by one that reads the latents.
FoldRule = Callable[[CTRModel, str, LatentMap], None]
_RULES: dict[type[nn.Module], FoldRule] = {}


def fold_rule(module_class: type[nn.Module]) -> Callable[[FoldRule], FoldRule]:
    """Decorator: how a reader of the embedding is folded; its cost is registered in `evaluation.cost`."""

    def file(rule: FoldRule) -> FoldRule:
        _RULES[module_class] = rule
        return rule

    return file


def rule_for(reader: nn.Module) -> FoldRule:
    """The rule of the reader's class or of its nearest base."""
    return next(_RULES[base] for base in type(reader).__mro__ if base in _RULES)

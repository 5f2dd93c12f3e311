"""The folding rule of a reader, found by the path it is registered with (see `models.folding`)."""

import importlib
from collections.abc import Callable
from typing import cast

from torch import nn

from ctrlab.compression.latents import LatentMap
from ctrlab.models.base import CTRModel
from ctrlab.models.folding import reader_class

#: rule(model, reader's name, map): replace the reader, in place, by one that reads the latents.
FoldRule = Callable[[CTRModel, str, LatentMap], None]


def rule_for(reader: nn.Module) -> FoldRule:
    """The folding rule of the reader's class or of its nearest base.

    Raises:
        LookupError: none is registered.
    """
    known = reader_class(reader)
    if known is None or not known.fold:
        raise LookupError(f"there is no folding rule for {type(reader).__name__}")
    module_name, _, function = known.fold.partition(":")
    return cast(FoldRule, getattr(importlib.import_module(module_name), function))

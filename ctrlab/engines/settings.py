"""Settings of an engine."""

from dataclasses import dataclass, field
from typing import Literal

from ctrlab.engines.optim import AdamSettings
from ctrlab.engines.products import MatrixProducts


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How a model is trained.

    compute_dtype: of linear layers. matrix_products: how the library of a product is chosen. choices: of an earlier timed run.
    """

    adam: AdamSettings = field(default_factory=AdamSettings)
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    matrix_products: MatrixProducts = "fixed"
    choices: tuple[str, ...] = ()

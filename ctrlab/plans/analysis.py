"""What can be had of a model: the smallest plans at several losses of AUC, and the layers that keep it from being smaller.

Loads without torch; `measuring.analyse` measures it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from ctrlab.models.profile import ModelProfile
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.plans.sensitivity import Sensitivity

#: Losses of AUC that an analysis answers for.
AUC_LOSSES = (0.0, 0.0005, 0.002)
#: Layers that are named as what keeps a model from being smaller.
_MAX_BLOCKERS = 5


@dataclass(frozen=True, kw_only=True)
class Option:
    """The smallest model that loses at most `max_auc_loss`, before recovery and fine-tuning.

    auc_change, log_loss_change: from the original, on validation rows that did not choose. spec: as plain JSON.
    """

    max_auc_loss: float
    bytes: int
    times: float
    auc_change: float
    log_loss_change: float
    spec: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Blocker:
    """A layer that still takes bytes: at rank 1 it would save `bytes`, and cost about `log_loss` nats more.

    rank: that it has now; None where it is dense.
    """

    layer_name: str
    rank: int | None
    bytes: int
    log_loss: float


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Options by rising loss of AUC, and what blocks more in the last of them, most bytes first.

    bytes: of the original as it is served. num_rows: of the half of the validation rows that reports.
    """

    bytes: int
    num_rows: int
    options: tuple[Option, ...]
    blockers: tuple[Blocker, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        options = tuple(Option(**option) for option in values["options"])
        blockers = tuple(Blocker(**blocker) for blocker in values["blockers"])
        return cls(bytes=values["bytes"], num_rows=values["num_rows"], options=options, blockers=blockers)


def blockers_of(profile: ModelProfile, sensitivity: Sensitivity, spec: CompressionSpec) -> tuple[Blocker, ...]:
    """The layers that hold most bytes in the served model of `spec`, by what rank 1 would save, and what it would cost."""
    ranks, found = spec.plan.as_dict(), []
    now = serving_cost(profile, ranks, spec).size_bytes
    for layer in profile.compressible:
        name = layer.layer_name
        measured = sensitivity.layers.get(name)
        if measured is None or ranks.get(name) == 1 or not measured.ranks:
            continue
        saved = now - serving_cost(profile, {**ranks, name: 1}, spec).size_bytes
        before = measured.log_loss_increase(ranks[name]) if name in ranks else 0.0
        found.append(Blocker(layer_name=name, rank=ranks.get(name), bytes=saved, log_loss=measured.log_loss_increase(1) - before))
    return tuple(sorted((one for one in found if one.bytes > 0), key=lambda one: -one.bytes)[:_MAX_BLOCKERS])

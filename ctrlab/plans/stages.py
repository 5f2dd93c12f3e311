"""The stages of a compression: which layers are factored together before the next fine-tuning. Loads without torch."""

from collections.abc import Mapping

from ctrlab.models.profile import ModelProfile
from ctrlab.plans.configs import CompressConfig
from ctrlab.plans.ranks import effective_ranks

Stage = tuple[str, dict[str, int]]


def stages_of(profile: ModelProfile, config: CompressConfig) -> list[Stage]:
    """(name, {layer_name: rank}) of each stage in the order that `config` asks for.

    Ranks are effective ones: a stage whose layers all stay dense does not run.
    """
    ranks = effective_ranks(profile, config)
    if config.order == "joint":
        return [("joint", ranks)] if ranks else []
    stages = [("mlp", _of_kind(profile, ranks, "linear")), ("tables", _of_kind(profile, ranks, "embedding"))]
    if config.order == "tables_first":
        stages.reverse()
    return [(name, own) for name, own in stages if own]


def _of_kind(profile: ModelProfile, ranks: Mapping[str, int], kind: str) -> dict[str, int]:
    return {name: rank for name, rank in ranks.items() if profile.by_name[name].kind == kind}

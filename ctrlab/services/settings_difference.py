"""The settings in which two stored models differ, in words."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ctrlab.config import Config, choices_of, type_hints
from ctrlab.models.configs import MODELS
from ctrlab.plans.configs import CompressConfig
from ctrlab.services.models import require_models
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact
from ctrlab.training.configs import FitConfig

DENSE = "dense"
_ABSENT = "\N{EN DASH}"
_LEFT_OUT = ("version",)


def config_difference(workspace: Workspace, id_a: str, id_b: str) -> pd.DataFrame:
    """The settings in which two models differ: columns setting, a, b; a dash where one has no such setting.

    A rank reads "rank of mlp.0": "dense" to "17". Settings have the labels of their forms. What only one of the two went through,
    such as a fine-tuning, is one line.
    """
    a, b = (_stages(model) for model in require_models(workspace, [id_a, id_b]))
    ranks = {name for stages in (a, b) for name in stages.get("ranks", {})}
    rows = [(name, *(stages.get("ranks", {}).get(name, DENSE) for stages in (a, b))) for name in _ordered(ranks, a, b)]
    for stage in dict.fromkeys([*a, *b]):
        if stage != "ranks":
            rows += _stage_difference(stage, a.get(stage), b.get(stage))
    return pd.DataFrame([row for row in rows if row[1] != row[2]], columns=["setting", "a", "b"], dtype=object)


def _ordered(names: set[str], *stages: Mapping[str, Mapping[str, str]]) -> list[str]:
    """`names` in the order of the plans."""
    return [name for name in dict.fromkeys(name for own in stages for name in own.get("ranks", {})) if name in names]


def _stage_difference(stage: str, a: Mapping[str, str] | None, b: Mapping[str, str] | None) -> list[tuple[str, str, str]]:
    if a is None or b is None:
        return [(stage, _summary(a), _summary(b))]
    prefix = "" if stage in ("model", "compression") else f"{stage}: "
    return [(prefix + name, a.get(name, _ABSENT), b.get(name, _ABSENT)) for name in dict.fromkeys([*a, *b])]


def _summary(stage: Mapping[str, str] | None) -> str:
    """A stage as one value: its method, where it has one."""
    return "none" if stage is None else stage.get("method", "yes")


def _stages(model: Artifact) -> dict[str, dict[str, str]]:
    """{stage: {label: value}} of all that decided a model; ranks by layer."""
    config = model.config
    architecture, compression = config.get("architecture", ""), config.get("compression")
    found = {"model": {"architecture": MODELS[architecture].title if architecture in MODELS else architecture}}
    if architecture in MODELS:
        found["model"] |= _labelled(config.get("model") or {}, MODELS[architecture].config_class)
    for stage, settings in (
        ("training", config.get("fit")),
        ("fine-tuning", (compression or {}).get("finetune")),
        ("training of the control", (config.get("control") or {}).get("fit")),
    ):
        if settings:
            found[stage] = _labelled(settings, FitConfig)
    if compression:
        found["ranks"] = {f"rank of {own['layer_name']}": str(own["rank"]) for own in compression["plan"]["ranks"]}
        rest = {name: value for name, value in compression.items() if name not in ("plan", "finetune")}
        found["compression"] = _labelled(rest, CompressConfig)
    return found


def _labelled(values: Mapping[str, Any], config_class: type[Config]) -> dict[str, str]:
    """{label: value as the form shows it} of the settings of a config class; others by their name."""
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    found = {}
    for name, value in values.items():
        if name in _LEFT_OUT:
            continue
        label = fields[name].metadata.get("label") if name in fields else ""
        titles = choices_of(config_class, name) if name in type_hints(config_class) else {}
        shown = titles.get(value) if not isinstance(value, list | dict) else None
        found[(label or name.replace("_", " ")).lower()] = shown or _text(value)
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "not set"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_text(own)}" for name, own in value.items() if name not in _LEFT_OUT)
    return f"{value:g}" if isinstance(value, float) else str(value)

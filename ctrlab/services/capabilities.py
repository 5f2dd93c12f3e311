"""What can be done with a stored model, and why not: the one place that tells models that ctrlab trained from those it did not.

Jobs check it before they start; pages ask it what to offer and show the reason where they offer nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ctrlab.errors import ConfigError
from ctrlab.plans.configs import CompressConfig, RankPlan
from ctrlab.storage import Artifact

#: spectra: of outputs, computed again. compress: a job makes the compressed model. measure: AUC and log loss, live and by jobs.
#: sensitivity: of each layer. finetune: training by ctrlab, with its controls, recovery and methods that train. methods: others
#: than AFM, a shared basis, integers. time: seconds of a call. serve: ONNX and bundles. segments: accuracy by value of a field.
Ability = Literal["spectra", "compress", "measure", "sensitivity", "finetune", "methods", "time", "serve", "segments"]
#: Where an outside model came from, in its config: "factory", "process" (Python objects alone) or "file" (weights alone).
SOURCE = "outside"

#: The ability that each kind of job about a model needs.
_NEEDS: dict[str, Ability] = {
    "spectra": "spectra", "compress": "compress", "sensitivity": "sensitivity", "evaluate": "measure", "speed": "time",
    "plan_speed": "time", "time": "time", "integers": "serve", "bundle": "serve",
    "scores": "serve", "shrink": "finetune", "analysis": "finetune",
    "control": "finetune", "segments": "segments",
}  # fmt: skip

#: Settings of a compression that need the ability "methods".
_OF_METHODS = ("method", "basis", "precision", "layer_precisions")
_FACTORY = "register it with a function that makes it (ctrlab register module:function)"
_PROCESS = f"Only the Python process that registered this model holds it: do it there by Lab, or {_FACTORY}."
_WEIGHTS = f"The file holds weights and no architecture. For more, {_FACTORY}."
_NO_LABELS = "This model was registered without labels, so no AUC can be measured. Give labels, or a function that evaluates."
_ONE_NUMBER = "This model was registered without labels: its own function measures plans and jobs, AUC and log loss need labels."
_OTHER_FRAMEWORK = "This model was trained outside ctrlab: fine-tune the compressed one by its own code (Lab.module)."
_METHODS = "Of a model from outside only AFM with a basis a table, in float32, is offered: its data flow is not known."
_TIME = "Its serving form is not known to ctrlab, so it is not timed here; time it where it is served."
_SERVE = "A model from outside is exported by its own code: Lab.module(id) returns it, compressed."
_SEGMENTS = "The rows of a model from outside have no named fields here, so its AUC is not split by them."


@dataclass(frozen=True)
class Capabilities:
    """reasons: {ability that is not there: a sentence why}.

    >>> Capabilities({"time": "It has no clock."}).allows("time"), Capabilities().allows("time")
    (False, True)
    """

    reasons: Mapping[Ability, str] = field(default_factory=dict)

    def allows(self, ability: Ability) -> bool:
        return ability not in self.reasons

    def why_not(self, ability: Ability) -> str:
        """The sentence; "" where it can be done."""
        return self.reasons.get(ability, "")

    def require_for(self, job_kind: str) -> None:
        """ConfigError with the reason where a job of this kind cannot be done."""
        if job_kind in _NEEDS:
            self.require(_NEEDS[job_kind])

    def require(self, ability: Ability) -> None:
        """ConfigError with the reason where it cannot be done."""
        if ability in self.reasons:
            raise ConfigError(self.reasons[ability].rstrip("."))

    @property
    def fixed_settings(self) -> dict[str, Any]:
        """Settings of a compression that have one value only, {name: value}; empty for a model of ctrlab's own."""
        fixed: dict[str, Any] = {}
        if not self.allows("methods"):
            fixed |= {"method": "afm", "basis": "per_field", "precision": "float32", "layer_precisions": ()}
        if not self.allows("finetune"):
            fixed |= {"finetune": None, "recovery": "off", "max_rows": None, "order": "joint"}
        return fixed

    def check(self, config: CompressConfig) -> None:
        """ConfigError where a compression has a setting that the model does not allow."""
        self.require("compress")
        defaults = CompressConfig(plan=RankPlan(), **self.fixed_settings)
        for name in self.fixed_settings:
            if name != "order" and getattr(config, name) != getattr(defaults, name):
                what = (
                    "the compression has a fine-tuning (--no-finetune leaves it out)" if name == "finetune" else f"{name} is set"
                )
                ability: Ability = "methods" if name in _OF_METHODS else "finetune"
                raise ConfigError(f"{what}: {self.why_not(ability).rstrip('.')}")


def capabilities(model: Artifact, *, held: bool = False) -> Capabilities:
    """What can be done with a stored model.

    held: this process holds its module (`services.outside.held`).
    """
    source: dict[str, Any] | None = model.config.get(SOURCE)
    if source is None:
        return Capabilities()
    reasons: dict[Ability, str] = {
        "finetune": _OTHER_FRAMEWORK, "methods": _METHODS, "time": _TIME, "serve": _SERVE, "segments": _SEGMENTS,
    }  # fmt: skip
    if source["kind"] == "file":
        return Capabilities(dict.fromkeys(get_args(Ability), _WEIGHTS))
    if source["measure"] == "none":
        reasons |= {"measure": _NO_LABELS, "sensitivity": _NO_LABELS}
    elif source["measure"] == "evaluate":
        reasons |= {"sensitivity": _ONE_NUMBER}
    if source["kind"] == "process" and not held:
        reasons |= dict.fromkeys(("spectra", "compress", "measure", "sensitivity"), _PROCESS)
    return Capabilities(reasons)


def is_outside(model: Artifact) -> bool:
    """Whether a stored model was made outside ctrlab, or from one that was."""
    return SOURCE in model.config

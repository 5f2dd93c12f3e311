"""Control arms of a compression.

A gain after compression and fine-tuning may come from the fine-tuning alone. The arms are the original with the same fine-tuning,
truncation alone, and a model of the same size trained from scratch; each with the same seeds.
"""

import json
from dataclasses import dataclass
from typing import Any

from ctrlab.config import Config, option
from ctrlab.errors import ConfigError
from ctrlab.plans.cost_prediction import predict
from ctrlab.plans.methods import METHODS
from ctrlab.plans.stages import stages_of
from ctrlab.services.compression import CompressJobConfig, compressed_name, submit_compress
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.models import TrainConfig, model_profile, require_artifact, submit_train
from ctrlab.services.of_model import submit_for_model
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact, Job
from ctrlab.training.configs import FitConfig

MAX_SEEDS = 10


@JOB_HANDLERS.register(
    "control", builder="ctrlab.services.work.control:run", title="Control", description="The original with the same fine-tuning."
)
@dataclass(frozen=True, kw_only=True)
class ControlConfig(Config):
    """Train an original as a compression does, and compress nothing."""

    model_id: str
    fit: FitConfig
    rounds: int = option(1, minimum=1, maximum=3, help="As many as the compression has stages.")
    redraw_tables: bool = option(False, help="Re-initialise its embedding tables first, as methods that retrain do.")
    name: str = option("", help="Shown in lists; empty for a name made from the original's.")


def submit_control(workspace: Workspace, config: ControlConfig) -> str:
    """Queue the fine-tuning of an original; the job's result holds the new `model` id."""
    return submit_for_model(workspace, "control", "Fine-tune {model} as a control", config)


def submit_with_controls(workspace: Workspace, config: CompressJobConfig, seeds: int = 1) -> list[str]:
    """Queue a compression with all its controls, `seeds` of each that is drawn; the compression's own job comes first.

    Truncation alone is deterministic, hence one run. A method that retrains has no such arm, and its control has re-initialised
    tables too. Without fine-tuning there is no fine-tuned control, and one seed only.

    Raises:
        ConfigError: fewer than one seed, or more than ten.
    """
    if not 1 <= seeds <= MAX_SEEDS:
        raise ConfigError(f"{seeds} seeds; choose 1 to {MAX_SEEDS}")
    return [_submit(workspace, arm) for arm in compression_arms(workspace, config, seeds)]


def arms_of(workspace: Workspace, config: CompressJobConfig) -> list[Job]:
    """The jobs that ran or will run a compression and its control arms, with any seed, oldest first; failed ones included.

    They are found by their settings, so that any process finds them at any time.
    """
    wanted = {_experiment(kind_of_arm(arm), arm.to_dict()) for arm in compression_arms(workspace, config, 1)}
    jobs = [job for job in workspace.store.jobs.list() if job.kind in _KINDS]
    return [job for job in reversed(jobs) if _experiment(job.kind, job.config) in wanted]


Arm = CompressJobConfig | ControlConfig | TrainConfig
_KINDS: dict[str, type[Config]] = {"compress": CompressJobConfig, "control": ControlConfig, "train": TrainConfig}


def kind_of_arm(arm: Arm) -> str:
    """The kind of job that an arm is."""
    return next(kind for kind, config_class in _KINDS.items() if isinstance(arm, config_class))


def _experiment(kind: str, settings: dict[str, Any]) -> str:
    """A key that is equal for jobs that differ by seed and name alone."""
    return json.dumps([kind, _without_seed({key: value for key, value in settings.items() if key != "name"})], sort_keys=True)


def _submit(workspace: Workspace, arm: Arm) -> str:
    if isinstance(arm, CompressJobConfig):
        return submit_compress(workspace, arm)
    return submit_control(workspace, arm) if isinstance(arm, ControlConfig) else submit_train(workspace, arm)


def compression_arms(workspace: Workspace, config: CompressJobConfig, seeds: int) -> list[Arm]:
    """The settings of a compression's job, then those of its controls, `seeds` of each that is drawn."""
    original, tuning = require_artifact(workspace, config.model_id, "model"), config.compress.finetune
    prefix = config.name or compressed_name(workspace, config)
    arms: list[Arm] = []
    for number in range(seeds if tuning else 1):
        tuned = tuning.replace(seed=tuning.seed + number) if tuning else None
        arms.append(config.replace(compress=config.compress.replace(finetune=tuned), name=_numbered(prefix, number, seeds)))
    retrains = METHODS[config.compress.method].retrains
    rounds = max(1, len(stages_of(model_profile(workspace, original.id), config.compress)))
    if tuning:
        arms += [
            ControlConfig(
                model_id=original.id, fit=tuning.replace(seed=tuning.seed + number), rounds=rounds, redraw_tables=retrains,
                name=_numbered(f"{original.name}, {'tables re-initialised' if retrains else 'fine-tuned alone'}", number, seeds),
            )
            for number in range(seeds)
        ]  # fmt: skip
    if tuning and not retrains:
        truncated = config.compress.replace(finetune=None)
        what = "truncated only" if config.compress.recovery == "off" else "not fine-tuned"
        arms.append(config.replace(compress=truncated, is_control=True, name=f"{prefix}, {what}"))
    return [*arms, *_from_scratch(workspace, original, config, seeds)]


def finetune_key(model: Artifact) -> str:
    """Settings of the fine-tuning of a compressed model or a control, without the seed, as JSON; "" for none."""
    found = (model.config.get("compression") or {}).get("finetune") or (model.config.get("control") or {}).get("fit")
    return json.dumps(_without_seed(found), sort_keys=True) if found else ""


def run_group(model: Artifact) -> str:
    """A key that is equal for models that differ by their seed alone: the runs of one experiment."""
    keys = ("original_id", "compression", "control", "architecture", "model", "fit", "max_parameters", "teacher_id")
    return json.dumps(_without_seed({key: model.config.get(key) for key in keys}), sort_keys=True)


def _without_seed(value: Any) -> Any:
    return {key: _without_seed(own) for key, own in value.items() if key != "seed"} if isinstance(value, dict) else value


def _numbered(name: str, number: int, seeds: int) -> str:
    return f"{name}, seed {number + 1}" if seeds > 1 else name


def _from_scratch(workspace: Workspace, original: Artifact, config: CompressJobConfig, seeds: int) -> list[TrainConfig]:
    """Models of the original's architecture and training with at most the parameters that the compressed one is served with."""
    training = original.config.get("fit")
    if training is None:  # it was trained elsewhere: how is not known
        return []
    limit = predict(model_profile(workspace, original.id), None, config.compress).serving.parameters
    fit = FitConfig.from_dict(training)
    return [
        TrainConfig(
            dataset_id=original.config["dataset_id"], architecture=original.config["architecture"],
            model=original.config["model"], fit=fit.replace(seed=fit.seed + 1 + number), max_parameters=limit,
            name=_numbered(f"{original.name}, small from scratch", number, seeds),
        )
        for number in range(seeds)
    ]  # fmt: skip

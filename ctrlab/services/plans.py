"""Plans with a name: kept with the model they were made for, taken in from JSON and checked against it."""

import json

from ctrlab.errors import CompressionError, ConfigError
from ctrlab.plans.configs import CompressionSpec, RankPlan
from ctrlab.plans.ranks import validate_plan, validate_precisions
from ctrlab.services.models import model_profile, require_artifact
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact, NewArtifact


def save_plan(workspace: Workspace, model_id: str, name: str, plan: RankPlan) -> Artifact:
    """Keep a plan under `name`; one of the same name and model is replaced.

    Raises:
        ConfigError: an unusable name. CompressionError: the plan does not fit the model.
    """
    require_artifact(workspace, model_id, "model")
    validate_plan(model_profile(workspace, model_id), plan)
    before = [saved for saved in list_plans(workspace, model_id) if saved.name == name.strip()]
    saved = workspace.store.artifacts.add(NewArtifact("plan", name, parents=[model_id], config=plan.to_dict()))
    for old in before:
        workspace.store.artifacts.delete(old.id)
    return saved


def list_plans(workspace: Workspace, model_id: str) -> list[Artifact]:
    """The plans of a model, newest first."""
    return list(workspace.store.artifacts.list(kind="plan", parent=model_id))


def load_plan(workspace: Workspace, plan_id: str) -> RankPlan:
    """A plan that was kept."""
    return RankPlan.from_dict(require_artifact(workspace, plan_id, "plan").config)


def delete_plan(workspace: Workspace, plan_id: str) -> None:
    """Forget a plan."""
    require_artifact(workspace, plan_id, "plan")
    workspace.store.artifacts.delete(plan_id)


def plan_from_json(workspace: Workspace, model_id: str, text: str) -> RankPlan:
    """A plan from JSON that fits the model, see `parse_plan`.

    Raises:
        ConfigError: it is not such JSON. CompressionError: it does not fit the model; every fault is listed.
    """
    plan = parse_plan(text)
    validate_plan(model_profile(workspace, model_id), plan)
    return plan


def parse_plan(text: str) -> RankPlan:
    """The ranks of a plan of any model from JSON: a spec, as `plan --output` writes it, a `RankPlan`, or plain {"layer": rank}.

    Raises:
        ConfigError: it is not such JSON. CompressionError: it has no rank.
    """
    plan = _spec_of(text).plan
    if not len(plan):
        raise CompressionError("the plan leaves every layer dense; give a rank to at least one")
    return plan


def spec_from_json(workspace: Workspace, model_id: str, text: str) -> CompressionSpec:
    """The spec of a plan from JSON in one of the forms of `plan_from_json`; what the file does not name is as by default.

    Raises:
        ConfigError: it is not such JSON. CompressionError: it does not fit the model, or changes nothing.
    """
    spec, profile = _spec_of(text), model_profile(workspace, model_id)
    if not len(spec.plan) and not spec.quantises:
        raise CompressionError("the plan leaves every layer dense; give a rank to at least one")
    validate_plan(profile, spec.plan)
    validate_precisions(profile, spec)
    return spec


def _spec_of(text: str) -> CompressionSpec:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"the plan is not JSON ({error}); give a file that was saved as a plan") from error
    if not isinstance(values, dict):
        raise ConfigError('a plan is an object such as {"mlp.2": 64, "embedding.ad": 4}; give a file that was saved as a plan')
    if "plan" in values:
        return CompressionSpec.from_dict(values)
    return CompressionSpec(plan=RankPlan.from_dict(values) if "ranks" in values else _plain(values))


def _plain(values: dict[str, object]) -> RankPlan:
    if wrong := [name for name, rank in values.items() if not isinstance(rank, int) or isinstance(rank, bool)]:
        raise ConfigError(f"the rank of {', '.join(wrong)} is not a whole number; give each layer one, such as 64")
    return RankPlan.of({name: rank for name, rank in values.items() if isinstance(rank, int)})

"""Sweeps: many compressions of one model, over methods, sizes or plans, and seeds, queued under one name."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from ctrlab.config import Config, option
from ctrlab.errors import ConfigError, CtrlabError
from ctrlab.figures.text import plural, times
from ctrlab.plans.budgets import Budget
from ctrlab.plans.configs import CompressConfig, CompressionSpec, RankPlan
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.plans.estimates import estimated_sensitivity
from ctrlab.plans.methods import METHODS
from ctrlab.plans.planner import plan_for_budget
from ctrlab.plans.rank_problem import PlanOptions
from ctrlab.plans.ranks import Spectra
from ctrlab.plans.sensitivity import Sensitivity
from ctrlab.services.compression import CompressJobConfig, submit_compress
from ctrlab.services.jobs import cancel_job, retry_job
from ctrlab.services.models import model_profile, require_artifact
from ctrlab.services.sensitivity import latest_sensitivity, load_model_sensitivity
from ctrlab.services.spectra import latest_spectra, load_layer_spectra
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Job, JobGroup
from ctrlab.storage.records import MAX_NAME_LENGTH
from ctrlab.training.configs import FINETUNE, FitConfig

#: More runs than these are refused: they are a mistake more often than a wish.
MAX_RUNS = 500


def _method_titles() -> dict[str, str]:
    return {method.name: method.title for method in METHODS}


@dataclass(frozen=True, kw_only=True)
class SweepConfig(Config):
    """The choices whose combinations a sweep runs.

    >>> SweepConfig(model_id="model-1", methods=("afm", "svd"), times=(3.0, 5.0), seeds=2).methods
    ('afm', 'svd')
    """

    model_id: str
    methods: tuple[str, ...] = option(("afm",), choices=_method_titles, help="How the factors of a layer are found.")
    times: tuple[float, ...] = option((3.0, 5.0, 10.0), minimum=1.0, help="Times fewer bytes when served, one plan each.")
    seeds: int = option(1, minimum=1, maximum=20, help="Runs of each with different seeds of the fine-tuning.")
    finetune: FitConfig | None = option(FINETUNE, help="Fine-tuning after each stage; without it, only truncation.")
    name: str = option("", help="Of the group; empty for one made from the model's.")

    def faults(self) -> list[str]:
        unknown = [method for method in self.methods if method not in METHODS]
        faults = [f"methods must be among {', '.join(METHODS.names())}, got {', '.join(unknown)}"] if unknown else []
        return faults + ([] if self.methods else ["choose at least one method"])


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The runs of a sweep, and a sentence for each combination that cannot be run."""

    name: str
    runs: tuple[CompressJobConfig, ...]
    refused: tuple[str, ...]


def plan_sweep(workspace: Workspace, config: SweepConfig, plans: Mapping[str, RankPlan] | None = None) -> Sweep:
    """The runs of every combination; nothing is queued.

    The ranks for each size are planned by the measured sensitivity, or where there is none by the gradients in the spectra.

    Args:
        plans: named plans to run in place of `times`.

    Raises:
        ConfigError: the model has no spectra, nothing to plan by, or there are too many runs.
    """
    model, found = require_artifact(workspace, config.model_id, "model"), latest_spectra(workspace, config.model_id)
    if found is None:
        raise ConfigError(f"{model.id} ({model.name}) has no spectra; compute them first")
    planner = _Planner(workspace, model.id, load_layer_spectra(workspace, found.id))
    runs: list[CompressJobConfig] = []
    refused: list[str] = []
    for method, size, plan in _combinations(config, planner, plans):
        title = f"{METHODS[method].title} {size}"
        try:
            compress = CompressConfig(plan=plan(), method=method, finetune=config.finetune)
        except CtrlabError as error:
            refused.append(f"{title}: {error}")
            continue
        run = CompressJobConfig(model_id=model.id, spectra_id=found.id, compress=compress, name=f"{model.name}, {title}")
        runs += _with_seeds(run, config.seeds)
    if len(runs) > MAX_RUNS:
        raise ConfigError(f"the sweep has {len(runs):,} runs; choose fewer methods, sizes or seeds, for at most {MAX_RUNS}")
    return Sweep(name=config.name.strip() or f"Sweep of {model.name}", runs=tuple(runs), refused=tuple(refused))


def submit_sweep(workspace: Workspace, sweep: Sweep) -> JobGroup:
    """Queue the runs of a sweep as one group.

    Raises:
        ConfigError: it has no run, or a run does not fit the model.
    """
    if not sweep.runs:
        raise ConfigError("none of these can be run: " + "; ".join(sweep.refused or ("choose a method and a size",)))
    jobs = [submit_compress(workspace, run) for run in sweep.runs]
    for job_id, run in zip(jobs, sweep.runs, strict=True):
        workspace.store.jobs.rename(job_id, f"Compress {run.name}"[:MAX_NAME_LENGTH])
    return workspace.store.groups.get(workspace.store.groups.add(sweep.name, jobs))


@dataclass(frozen=True, kw_only=True)
class GroupState:
    """A group with its jobs as they are now."""

    id: str
    name: str
    jobs: tuple[Job, ...]

    @property
    def active(self) -> int:
        """How many jobs are queued or run."""
        return sum(job.active for job in self.jobs)

    @property
    def progress(self) -> float:
        """The mean progress of its jobs, 0 to 1; one that ended counts as done."""
        return sum(job.progress if job.active else 1.0 for job in self.jobs) / max(1, len(self.jobs))

    @property
    def models(self) -> tuple[str, ...]:
        """Ids of the models that its jobs made."""
        return tuple(str(job.result["model"]) for job in self.jobs if job.state == "succeeded" and "model" in job.result)

    @property
    def sentence(self) -> str:
        """How many jobs are in each state: "7 of 12 done, 1 running, 4 queued"."""
        counts = {state: sum(job.state == state for job in self.jobs) for state in _OTHER_STATES}
        done = sum(job.state == "succeeded" for job in self.jobs)
        rest = [f"{number} {state}" for state, number in counts.items() if number]
        return ", ".join([f"{done} of {plural(len(self.jobs), 'run')} done", *rest])


#: `cancel_group` or `retry_group`.
GroupAction = Callable[[Workspace, str], GroupState]
_OTHER_STATES = ("running", "queued", "failed", "cancelled", "interrupted")


def list_groups(workspace: Workspace) -> list[GroupState]:
    """The groups of jobs, newest first."""
    jobs = {job.id: job for job in workspace.store.jobs.list()}
    return [
        GroupState(id=group.id, name=group.name, jobs=tuple(jobs[job_id] for job_id in group.job_ids if job_id in jobs))
        for group in workspace.store.groups.list()
    ]


def get_group(workspace: Workspace, group_id: str) -> GroupState:
    """A group with its jobs; UnknownNameError when there is none."""
    group = workspace.store.groups.get(group_id)
    return GroupState(id=group.id, name=group.name, jobs=tuple(workspace.store.jobs.get(job_id) for job_id in group.job_ids))


def cancel_group(workspace: Workspace, group_id: str) -> GroupState:
    """Cancel every job of a group that is queued or runs, those that wait first."""
    for job in reversed(get_group(workspace, group_id).jobs):
        if job.active:
            cancel_job(workspace, job.id)
    return get_group(workspace, group_id)


def retry_group(workspace: Workspace, group_id: str) -> GroupState:
    """Queue every job of a group again that failed, was cancelled or interrupted."""
    for job in get_group(workspace, group_id).jobs:
        if job.retryable:
            retry_job(workspace, job.id)
    return get_group(workspace, group_id)


def _combinations(
    config: SweepConfig, planner: "_Planner", plans: Mapping[str, RankPlan] | None
) -> Iterator[tuple[str, str, Callable[[], RankPlan]]]:
    """(method, what the size is called, function that plans it) of each."""
    for method in config.methods:
        if plans is not None:
            yield from ((method, name, partial(RankPlan.of, plan.as_dict())) for name, plan in plans.items())
        else:
            yield from ((method, times(factor), partial(planner.plan, method, factor)) for factor in config.times)


def _with_seeds(run: CompressJobConfig, seeds: int) -> list[CompressJobConfig]:
    """The run once a seed of its fine-tuning; once where nothing is drawn."""
    tuning = run.compress.finetune
    if tuning is None or seeds == 1:
        return [run]
    found = []
    for number in range(seeds):
        compress = run.compress.replace(finetune=tuning.replace(seed=tuning.seed + number))
        found.append(run.replace(compress=compress, name=f"{run.name}, seed {number + 1}"))
    return found


class _Planner:
    """Ranks of one model for sizes, by its measured sensitivity or by the gradients in its spectra."""

    def __init__(self, workspace: Workspace, model_id: str, spectra: Spectra) -> None:
        measured = latest_sensitivity(workspace, model_id)
        self._measured = load_model_sensitivity(workspace, measured.id) if measured else None
        self._profile = model_profile(workspace, model_id)
        self._spectra = spectra
        self._bytes = serving_cost(self._profile, {}).size_bytes

    def plan(self, method: str, factor: float) -> RankPlan:
        """The ranks of least predicted loss with `factor` times fewer bytes.

        Raises:
            ConfigError: nothing to plan by. BudgetError: no ranks are that small.
        """
        spec = CompressionSpec(method=method)
        budget = Budget(kind="bytes", limit=self._bytes / factor)
        options = PlanOptions(spec=spec, spectra=self._spectra)
        return plan_for_budget(self._profile, self._sensitivity(spec), budget, options).plan

    def _sensitivity(self, spec: CompressionSpec) -> Sensitivity:
        found = self._measured or estimated_sensitivity(self._profile, self._spectra, spec)
        if found is None:
            raise ConfigError("measure the model's sensitivity first, or compute spectra with gradients of the loss")
        return found

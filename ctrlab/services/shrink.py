"""Shrinking: one job from a model to a measured smaller one, and the analysis of what can be had. Loads without torch."""

from dataclasses import dataclass

from ctrlab.config import Config, option
from ctrlab.plans.analysis import Analysis
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.of_model import submit_for_model
from ctrlab.services.workspace import Workspace

#: Inside a report's artifact.
REPORT_FILE = "report.html"
#: Jobs among which an analysis is looked for.
_LAST_JOBS = 200
_GOALS = ("times", "megabytes", "auc_loss", "faster")


@JOB_HANDLERS.register(
    "shrink",
    builder="ctrlab.services.work.shrink:run",
    title="Shrink",
    description="Spectra, ranks and bits, recovery, fine-tuning, controls and verdict in one job.",
)
@dataclass(frozen=True, kw_only=True)
class ShrinkConfig(Config):
    """Which model, and how far: exactly one goal.

    >>> ShrinkConfig(model_id="model-1", times=5.0).goal
    ('times', 5.0)
    """

    model_id: str
    times: float | None = option(None, minimum=1.01, maximum=1e6, help="So many times fewer bytes when served, e.g. 5.")
    megabytes: float | None = option(None, minimum=1e-6, unit="MB", help="At most so many MB when served.")
    auc_loss: float | None = option(
        None, minimum=0.0, maximum=0.5, help="As small as it gets within this loss of AUC on validation rows, e.g. 0.0005."
    )
    faster: float | None = option(
        None, minimum=1.01, maximum=1e3, help="So many times less time a batch of 4,096 rows in torch, in 32 bits, e.g. 4."
    )
    finetune: bool = option(True, help="Fine-tune after recovery; step 0 counts, so it can only help on validation rows.")
    controls: bool = option(
        True,
        help="Also run the controls: the original with the same fine-tuning, truncation alone, and one trained from scratch.",
    )
    bundle: bool = option(True, help="Also make the bundle that serves it: in integers where they answer alike, else in float.")
    name: str = option("", help="Shown in lists; empty for a name made from method and size.")

    @property
    def goal(self) -> tuple[str, float]:
        """Name and number of the goal."""
        return next((name, value) for name in _GOALS if (value := getattr(self, name)) is not None)

    def faults(self) -> list[str]:
        given = [name for name in _GOALS if getattr(self, name) is not None]
        return [] if len(given) == 1 else [f"give exactly one goal of {', '.join(_GOALS)}, such as times 5; got {len(given)}"]


@JOB_HANDLERS.register(
    "analysis",
    builder="ctrlab.services.work.shrink:run_analysis",
    title="Analysis",
    description="The most that can be had at several losses of AUC.",
)
@dataclass(frozen=True, kw_only=True)
class AnalysisConfig(Config):
    """Which model to analyse, on how many rows."""

    model_id: str
    max_rows: int = option(
        16_384, minimum=100, label="Validation rows", help="Drawn at random where the validation split has more."
    )


def submit_shrink(workspace: Workspace, config: ShrinkConfig) -> str:
    """Queue the whole way; the result has the ids `model`, `controls`, `report` and `bundle`, and the `verdict` in words."""
    return submit_for_model(workspace, "shrink", "Shrink {model}", config)


def latest_analysis(workspace: Workspace, model_id: str) -> Analysis | None:
    """The newest analysis of a model among the last jobs; None where there is none."""
    for job in workspace.store.jobs.list(_LAST_JOBS, states=("succeeded",)):
        if job.kind == "analysis" and job.config.get("model_id") == model_id:
            return Analysis.from_dict(job.result["analysis"])
    return None


def submit_analysis(workspace: Workspace, config: AnalysisConfig) -> str:
    """Queue the analysis; the job's result holds `analysis`, a `plans.analysis.Analysis` as JSON."""
    return submit_for_model(workspace, "analysis", "Analyse {model}", config)

"""The choice of a plan by measurement, for the command line and Python; imports torch."""

from ctrlab.measuring.choose import Choice, candidate_plans, choose_plan
from ctrlab.measuring.probe import Probe
from ctrlab.plans.budgets import Budget
from ctrlab.plans.configs import RankPlan
from ctrlab.plans.planner import plan_for_loss
from ctrlab.plans.rank_problem import PlanOptions
from ctrlab.services.sensitivity import load_model_sensitivity
from ctrlab.services.work.shared import open_model, open_spectra
from ctrlab.services.workspace import Workspace


def choose(
    workspace: Workspace,
    model_id: str,
    spectra_id: str,
    sensitivity_id: str,
    *,
    budget: Budget | None = None,
    max_auc_loss: float | None = None,
    kind: str = "parameters",
    multiple_of: int = 1,
) -> Choice:
    """The best plan for a budget, or the smallest by `kind` for a loss of AUC; exactly one of the two is given.

    Raises:
        BudgetError: no plan meets the budget.
    """
    _, model, dataset = open_model(workspace, model_id)
    spectra = open_spectra(workspace, spectra_id)
    sensitivity = load_model_sensitivity(workspace, sensitivity_id)
    probe = Probe(model, spectra, dataset.split("valid"))
    options = PlanOptions(spectra=spectra, multiple_of=multiple_of)
    plans: dict[str, RankPlan]
    if budget is not None:
        plans = candidate_plans(probe.profile, sensitivity, budget, spectra, options)
    else:
        plans = {"planned": plan_for_loss(probe.profile, sensitivity, max_auc_loss or 0.0, kind, options).plan}
    return choose_plan(probe, plans)

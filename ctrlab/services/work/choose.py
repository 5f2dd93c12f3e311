"""The choice of a plan by measurement, for the command line and Python; imports torch."""

from ctrlab.measuring.choose import Choice, MeasuredFront, candidate_specs, choose_spec
from ctrlab.measuring.probe import PlanProbe
from ctrlab.plans.budgets import Budget
from ctrlab.plans.configs import CompressionSpec, PlanSettings
from ctrlab.plans.estimates import estimated_sensitivity
from ctrlab.plans.sensitivity import Sensitivity
from ctrlab.services.sensitivity import load_model_sensitivity
from ctrlab.services.work.probes import open_probe
from ctrlab.services.workspace import Workspace


def choose(
    workspace: Workspace,
    model_id: str,
    spectra_id: str,
    sensitivity_id: str | None,
    settings: PlanSettings,
    *,
    budget: Budget | None = None,
    max_auc_loss: float | None = None,
    kind: str = "bytes",
) -> Choice:
    """The best plan for a budget, or the smallest by `kind` for a measured loss of AUC; exactly one of the two is given.

    Args:
        sensitivity_id: None to plan with what the spectra's gradients say.

    Raises:
        BudgetError: no plan meets the budget.
    """
    probe = open_probe(workspace, model_id, spectra_id)
    spectra = probe.spectra
    sensitivity = sensitivity_for(probe, settings, load_model_sensitivity(workspace, sensitivity_id) if sensitivity_id else None)
    if budget is None:
        return MeasuredFront(probe, sensitivity, spectra, settings, kind).smallest(max_auc_loss or 0.0)
    return choose_spec(probe, candidate_specs(probe.profile, sensitivity, budget, spectra, settings), settings.aim)


def sensitivity_for(probe: PlanProbe, settings: PlanSettings, measured: Sensitivity | None) -> Sensitivity:
    """What was measured, or else the estimate from the gradients that the probe's spectra hold."""
    if measured is not None:
        return measured
    bare, original = CompressionSpec(method=settings.method), probe.original
    found = estimated_sensitivity(probe.profile, probe.spectra, bare, log_loss=original.log_loss, auc=original.auc)
    assert found is not None  # the caller has seen that the spectra hold gradients
    return found

"""Measuring what can be had of a model; `plans.analysis` is the result."""

from collections.abc import Callable, Sequence

from ctrlab.evaluation.prediction import never
from ctrlab.measuring.choose import MeasuredFront
from ctrlab.measuring.probe import Probe
from ctrlab.plans.analysis import AUC_LOSSES, Analysis, Option, blockers_of
from ctrlab.plans.configs import PlanSettings
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.plans.sensitivity import Sensitivity


def analyse(
    probe: Probe,
    sensitivity: Sensitivity,
    settings: PlanSettings,
    auc_losses: Sequence[float] = AUC_LOSSES,
    *,
    on_progress: Callable[[float, str], None] = lambda fraction, message: None,
    should_stop: Callable[[], bool] = never,
) -> Analysis:
    """The smallest models by bytes that lose at most each of `auc_losses` on validation rows, before recovery and fine-tuning.

    Raises:
        BudgetError: no plan loses as little as one of them.
        JobCancelled: `should_stop()` was true.
    """
    front = MeasuredFront(probe, sensitivity, probe.spectra, settings, should_stop=should_stop)
    before, options, specs = serving_cost(probe.profile, {}).size_bytes, [], []
    for number, allowed in enumerate(sorted(auc_losses)):
        on_progress(number / len(auc_losses), f"the smallest model that loses at most {allowed:g} of AUC")
        choice = front.smallest(allowed)
        size, measured = int(front.amount(choice.spec)), choice.measured[choice.name]
        options.append(
            Option(
                max_auc_loss=allowed, bytes=size, times=before / size, auc_change=measured.auc - choice.original.auc,
                log_loss_change=measured.log_loss - choice.original.log_loss, spec=choice.spec.to_dict(),
            )
        )  # fmt: skip
        specs.append(choice.spec)
    return Analysis(
        bytes=before, num_rows=len(probe.labels[1::2]), options=tuple(options),
        blockers=blockers_of(probe.profile, sensitivity, specs[-1]),
    )  # fmt: skip

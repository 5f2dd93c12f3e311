"""The step size of every step, early stopping, and the best weights so far."""

from torch import Tensor, nn

from ctrlab.evaluation.metrics import Metrics
from ctrlab.training.configs import FitConfig
from ctrlab.training.state import Progress

#: Plateaus reduce the step size no further.
LEAST_RATE = 1e-6


def learning_rate(config: FitConfig, progress: Progress) -> float:
    """Of the next step: reduced once for every evaluation that was not better, and scaled up evenly during warm-up."""
    reduced = config.learning_rate * config.plateau_factor**progress.not_better
    rate = max(reduced, min(LEAST_RATE, config.learning_rate))
    return rate * min(1.0, (progress.step + 1) / config.warmup_steps) if config.warmup_steps else rate


def is_out_of_patience(config: FitConfig, progress: Progress) -> bool:
    """Early stopping: whether `patience` evaluations passed without a better one."""
    return 0 < config.patience <= progress.stale


class BestTracker:
    """The best weights by what the fit monitors; `weights` is None until there was an evaluation."""

    def __init__(self, config: FitConfig, weights: dict[str, Tensor] | None = None) -> None:
        self._monitor = config.monitor
        self.weights = weights

    def update(self, model: nn.Module, metrics: Metrics, progress: Progress) -> bool:
        """Keep the weights of `model` if it is better than all before it; whether it was."""
        value = metrics.auc if self._monitor == "auc" else -metrics.log_loss
        if progress.best_value is not None and value <= progress.best_value:
            progress.stale, progress.not_better = progress.stale + 1, progress.not_better + 1
            return False
        progress.best_value, progress.best_step, progress.stale = value, progress.step, 0
        self.weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        return True

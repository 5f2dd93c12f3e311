"""What an engine is: everything between a model and a training loop, or between a model and its predictions."""

from typing import Any, Protocol

from torch import Tensor

from ctrlab.data.schema import Fields


class Engine(Protocol):
    """Trains one model. The model is a plain module of torch throughout; what makes it fast belongs to the engine.

    A step is: `zero_grad`, `logits`, `prefetch` of the next batch, the loss's backward pass, `step`.
    """

    @property
    def choices(self) -> tuple[str, ...]:
        """Choices made by timing, which a later run can be given to repeat; empty where nothing is timed."""
        ...

    def logits(self, fields: Fields) -> Tensor:
        """Of a training batch (B,), with gradients, dropout and statistics of the batch."""
        ...

    def prefetch(self, current: Fields, following: Fields) -> None:
        """Prepare the next batch beside the work on this one."""
        ...

    def zero_grad(self) -> None:
        """Drop the last gradients."""
        ...

    def step(self) -> None:
        """Update the model from the gradients of the last backward pass, clipped where so configured."""
        ...

    def set_learning_rate(self, learning_rate: float) -> None:
        """The step size of all later steps."""
        ...

    def settle(self) -> None:
        """Apply all deferred updates: needed before weights are read by anything but `logits`."""
        ...

    def state_tensors(self) -> dict[str, Tensor]:
        """The optimizer's state by parameter name, for a checkpoint."""
        ...

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `state_tensors`."""
        ...

    def close(self) -> None:
        """Give back threads, memory and settings. The model stays as it is; call `settle` first."""
        ...


class EngineFactory(Protocol):
    """Makes the engine of a training."""

    def __call__(self, model: Any, settings: Any) -> Engine:
        """For `model` on the device it is on; `settings`: an `EngineSettings`."""
        ...

"""Checkpoint format for resumable training, and the identity of a fit.

Two files, both safetensors: the state at `path`, rewritten every few seconds, and the best weights beside it, written only
when they change and named by their step. The state is replaced after the weights it names are written, and before old ones are
removed, so a kill at any moment leaves a consistent pair.
"""

import glob
import time
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctrlab.data.dataset import Split
from ctrlab.data.schema import fingerprint_of
from ctrlab.errors import StorageError
from ctrlab.models.base import CTRModel
from ctrlab.models.checkpoint import load_document, load_tensors, save_tensors
from ctrlab.training.configs import FitConfig

FIT_KIND = "training state"
BEST_KIND = "best weights of a training"

#: Writing may take this share of the time at most: large models are saved less often than configured.
_WRITING_SHARE = 0.05


@dataclass
class Progress:
    """Where a fit stands. Plain numbers: goes into the checkpoint as JSON and comes back the same.

    step: optimizer steps done. epoch, batch: the next batch to train on.
    loss_sum, loss_steps: of the training loss since the last evaluation.
    best_step, best_value: of the weights to return, by what the fit monitors; -1 and None before the first evaluation.
    stale: evaluations since the best one. not_better: evaluations in all that were not better than all before them.
    seconds, training_seconds: wall clock in all, and without evaluations, over all runs of this fit.
    choices: of the engine, where it times: a resumed fit repeats them, for the libraries' sums differ in the last bit.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    best_step: int = -1
    best_value: float | None = None
    stale: int = 0
    not_better: int = 0
    rows: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0
    finished: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)


@dataclass
class FitState:
    """`Progress` and the tensors that belong to it."""

    progress: Progress
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    random: dict[str, Tensor]
    best: dict[str, Tensor] | None


class CheckpointFile:
    """Writes states to `path` at most every `every_seconds`, after every step for 0, and reads them for the same fit only."""

    def __init__(self, path: Path | None, identity: dict[str, Any], every_seconds: float) -> None:
        self.path = path
        self.identity = identity
        self._every_seconds = every_seconds
        self._next_write = time.monotonic() + every_seconds
        self._written_best = -1

    @property
    def due(self) -> bool:
        """Whether it is time to write again."""
        return self.path is not None and time.monotonic() >= self._next_write

    def save(self, state: FitState) -> None:
        """Write the state now; without a path, do nothing."""
        if self.path is None:
            return
        started = time.monotonic()
        if state.best is not None and state.progress.best_step != self._written_best:
            save_tensors(self._best_file(state.progress), state.best, {"kind": BEST_KIND})
            self._written_best = state.progress.best_step
        parts = {"model": state.model, "optimizer": state.optimizer, "random": state.random}
        tensors = {f"{part}:{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
        save_tensors(self.path, tensors, {"kind": FIT_KIND, "identity": self.identity, "progress": asdict(state.progress)})
        for stale in self._best_files() - {self._best_file(state.progress)}:
            stale.unlink(missing_ok=True)
        finished = time.monotonic()
        pause = max(self._every_seconds, (finished - started) / _WRITING_SHARE) if self._every_seconds else 0.0
        self._next_write = finished + pause

    def load(self) -> FitState | None:
        """The state to resume from, or None where there is none yet.

        Raises:
            StorageError: the file is damaged, or was written by a fit of another model, data or settings.
        """
        if self.path is None or not self.path.exists():
            return None
        document = load_document(self.path, FIT_KIND)
        differing = [key for key, value in self.identity.items() if document["identity"].get(key) != value]
        if differing:
            raise StorageError(
                f"{self.path.name} was written by a training of another {' and '.join(differing)}; "
                "remove it to start over, or give another checkpoint path"
            )
        progress = Progress(**document["progress"])
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "random": {}}
        for name, tensor in load_tensors(self.path).items():
            part, _, rest = name.partition(":")
            # Cloned: the file's memory map must not outlive the file, which will be replaced.
            parts[part][rest] = tensor.clone()
        best = load_tensors(self._best_file(progress)) if progress.best_step >= 0 else None
        self._written_best = progress.best_step
        return FitState(progress, **parts, best=best)

    def _best_file(self, progress: Progress) -> Path:
        assert self.path is not None
        return self.path.with_name(f"{self.path.stem}.best-{progress.best_step}.safetensors")

    def _best_files(self) -> set[Path]:
        assert self.path is not None
        return set(self.path.parent.glob(f"{glob.escape(self.path.stem)}.best-*.safetensors"))


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The generators that dropout draws from, as uint8 tensors."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def identity_of(model: CTRModel, train: Split, config: FitConfig, teacher: CTRModel | None) -> dict[str, Any]:
    """What must be equal for a stored state to belong to this fit."""
    identity = {
        "model": _fingerprint(model),
        "dataset": [model.schema.fingerprint, train.name, len(train)],
        "configuration": config.to_dict(),
    }
    return identity | ({"teacher": _fingerprint(teacher)} if teacher is not None and config.distillation else {})


def _fingerprint(model: CTRModel) -> str:
    """Of architecture and weights; of those by a sample of each tensor."""
    weights = {name: _checksum(tensor) for name, tensor in model.state_dict().items()}
    return fingerprint_of([type(model).__name__, model.config.to_dict(), model.structure and model.structure.to_dict(), weights])


def _checksum(tensor: Tensor) -> int:
    flat = tensor.detach().flatten()
    sample = flat[:: max(1, flat.numel() // 65536)].cpu().contiguous()
    return zlib.crc32(sample.view(torch.uint8).numpy().tobytes())

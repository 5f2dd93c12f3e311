"""Kinds of job that the worker tests run in real child processes. None needs torch, so a child starts in half a second."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ctrlab.config import Config, option
from ctrlab.errors import DataError, JobCancelled
from ctrlab.services.handlers import JOB_HANDLERS, JobContext
from ctrlab.storage import NewArtifact


@JOB_HANDLERS.register("count", builder="tests.support.sample_handlers:count", title="Count")
@dataclass(frozen=True, kw_only=True)
class CountConfig(Config):
    """Count to `steps`, with a checkpoint after each step; a first attempt stays before the step `wait_at`, if one is named."""

    steps: int = option(3, minimum=1)
    step_seconds: float = option(0.0, minimum=0.0)
    wait_at: int | None = option(None, minimum=0)


def count(config: CountConfig, context: JobContext) -> dict[str, str]:
    """Appends a line with the attempt to counted.txt for each step."""
    checkpoint = context.folder / "step"
    start = int(checkpoint.read_text()) if checkpoint.exists() else 0
    for step in range(start, config.steps):
        while not (stop := context.should_stop()) and context.job.attempts == 1 and step == config.wait_at:
            time.sleep(0.02)
        if stop:
            raise JobCancelled("asked to stop")
        time.sleep(config.step_seconds)
        with (context.job.folder / "counted.txt").open("a") as file:
            file.write(f"{step} by attempt {context.job.attempts}\n")
        _write_whole(checkpoint, str(step + 1))
        context.metric(step, loss=1.0 / (step + 1))
        context.report((step + 1) / config.steps, f"step {step + 1}")
    return {"dataset": "ds-00000000"}


@JOB_HANDLERS.register("unresponsive", builder="tests.support.sample_handlers:run_unresponsive", title="Unresponsive")
@dataclass(frozen=True, kw_only=True)
class UnresponsiveConfig(Config):
    """Run for a minute without checking whether to stop."""

    ignore_sigterm: bool = False
    with_helper: bool = False


def run_unresponsive(config: UnresponsiveConfig, context: JobContext) -> dict[str, str]:
    """Write the process ids of itself and of its helper to pids.txt."""
    if config.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) if config.with_helper else None
    _write_whole(context.job.folder / "pids.txt", f"{os.getpid()} {helper.pid if helper else 0}")
    time.sleep(60)
    return {}


@JOB_HANDLERS.register("trouble", builder="tests.support.sample_handlers:trouble", title="Trouble")
@dataclass(frozen=True, kw_only=True)
class TroubleConfig(Config):
    """Fail in the way given."""

    how: str = option("raise", choices=("refuse", "raise", "exit", "system_exit", "no_dict", "kill_once_after_adding", "kill"))


def trouble(config: TroubleConfig, context: JobContext) -> dict[str, str]:
    if config.how == "refuse":
        raise DataError("the label has three values; choose a column with two")
    if config.how == "raise":
        raise ZeroDivisionError("nothing to divide")
    if config.how == "exit":
        os._exit(3)
    if config.how == "system_exit":
        sys.exit(4)
    if config.how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if config.how == "kill_once_after_adding":
        artifact = context.add_artifact(NewArtifact("plan", "made once"))
        if context.job.attempts == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"plan": artifact.id}
    return None  # type: ignore[return-value]


@JOB_HANDLERS.register("print", builder="tests.support.sample_handlers:print_lines", title="Print")
@dataclass(frozen=True, kw_only=True)
class PrintConfig(Config):
    """Print from Python, from native code and through the context."""


def print_lines(config: PrintConfig, context: JobContext) -> dict[str, str]:
    print("from print")  # noqa: T201
    print("from stderr", file=sys.stderr)  # noqa: T201
    os.write(1, b"from native code\n")
    context.log("from the context")
    return {}


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(text)
    partial.rename(path)

"""A kind of job: the SHA-256 of every file of an artifact, with progress, a curve and cancellation.

`python -m tests.examples.new_job_kind` is a worker that knows it besides ctrlab's own kinds. To queue one:
`workspace.store.jobs.submit("checksum", title, config.to_dict())`.
"""

import hashlib
from dataclasses import dataclass

from ctrlab.config import Config, option
from ctrlab.services.handlers import HANDLER_MODULES, JOB_HANDLERS, JobContext
from ctrlab.services.workspace import open_workspace
from ctrlab.worker.main import run_worker


@JOB_HANDLERS.register("checksum", builder="tests.examples.new_job_kind:run", title="Checksum")
@dataclass(frozen=True, kw_only=True)
class ChecksumConfig(Config):
    """Settings: validated when made, stored as JSON with the job."""

    artifact_id: str = option(help="Artifact whose files are read.")


def run(config: ChecksumConfig, context: JobContext) -> dict[str, str]:
    """{file name: SHA-256}, the job's result. Runs in the child process of a worker."""
    files = sorted(path for path in context.workspace.store.artifacts.get(config.artifact_id).path.rglob("*") if path.is_file())
    sums = {}
    for number, path in enumerate(files, 1):
        context.stop_if_requested()
        sums[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        context.metric(number, bytes=path.stat().st_size)
        context.report(number / len(files), path.name)
    return sums


if __name__ == "__main__":
    run_worker(open_workspace(), handler_modules=[*HANDLER_MODULES, "tests.examples.new_job_kind"])

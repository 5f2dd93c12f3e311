"""A worker for tests: `run_worker` with the job kinds of the tests."""

import argparse

from ctrlab.services.workspace import open_workspace
from ctrlab.worker.main import run_worker

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--idle-exit-seconds", type=float)
    parser.add_argument("--concurrency", type=int, default=1)
    arguments = parser.parse_args()
    run_worker(
        open_workspace(),
        idle_exit_seconds=arguments.idle_exit_seconds,
        concurrency=arguments.concurrency,
        handler_modules=("tests.support.sample_handlers",),
    )

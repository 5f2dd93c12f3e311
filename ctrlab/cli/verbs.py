"""All verbs of the command line but `worker` and `serve`; each calls the services that the dashboard calls."""

import argparse

from ctrlab.cli.common import Subparsers
from ctrlab.cli.compress import declare_compress
from ctrlab.cli.data import declare_data
from ctrlab.cli.jobs import declare_jobs
from ctrlab.cli.models import declare_models
from ctrlab.cli.modules import declare_modules
from ctrlab.cli.outside import declare_outside
from ctrlab.cli.planning import declare_planning
from ctrlab.cli.predict import declare_predict
from ctrlab.cli.score import declare_score
from ctrlab.cli.serve_model import declare_serve_model
from ctrlab.cli.shrink import declare_shrink
from ctrlab.cli.storage import declare_storage
from ctrlab.cli.sweep import declare_sweep
from ctrlab.cli.tables import declare_tables


def add_verbs(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Declare every verb; each leaves its function in `args.run`."""
    for declare in (
        declare_data, declare_models, declare_compress, declare_planning, declare_shrink, declare_modules, declare_outside,
        declare_tables, declare_predict, declare_score, declare_serve_model, declare_jobs, declare_storage, declare_sweep,
    ):  # fmt: skip
        declare(subparsers, common)

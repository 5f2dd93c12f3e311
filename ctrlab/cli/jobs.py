"""`jobs`: list, show, cancel and retry jobs, and print their logs."""

import argparse

from ctrlab.cli.common import Subparsers, declare_verb, open_lab
from ctrlab.cli.output import print_json, table_text
from ctrlab.errors import ConfigError
from ctrlab.services import jobs
from ctrlab.services.lab import Lab


def declare_jobs(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the verb `jobs`."""
    parser = declare_verb(subparsers, common, "jobs", run_jobs, "list, show, cancel and retry jobs, and print their logs")
    parser.add_argument("action", nargs="?", default="list", choices=("list", "show", "log", "cancel", "retry"),
                        help="what to do (default list)")  # fmt: skip
    parser.add_argument("job", nargs="?", help="id of the job")
    parser.add_argument("--limit", type=int, default=20, help="number of jobs to list (default 20)")


def run_jobs(args: argparse.Namespace) -> None:
    """`jobs`."""
    if args.action != "list" and not args.job:
        raise ConfigError(f"jobs {args.action} needs the id of a job; `jobs list` shows them")
    with open_lab(args) as lab:
        if args.action == "list":
            _list_jobs(args, lab)
        elif args.action == "log":
            print(jobs.job_log(lab.workspace, args.job))
        else:
            act = {"show": jobs.get_job, "cancel": jobs.cancel_job, "retry": jobs.retry_job}[args.action]
            job = act(lab.workspace, args.job)
            facts = {key: value for key, value in vars(job).items() if key != "config"}
            print_json(facts) if args.json else print("\n".join(f"{key}: {value}" for key, value in facts.items()))


def _list_jobs(args: argparse.Namespace, lab: Lab) -> None:
    found = jobs.list_jobs(lab.workspace, limit=args.limit)
    if args.json:
        print_json(
            {"jobs": [{"id": j.id, "kind": j.kind, "title": j.title, "state": j.state, "progress": j.progress} for j in found]}
        )
    else:
        rows = [(j.id, j.state, f"{j.progress:.0%}", j.title, j.error or j.message) for j in found]
        print(table_text(["id", "state", "done", "title", "message"], rows))

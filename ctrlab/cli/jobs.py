"""`jobs`: list, show, cancel, retry and manage jobs, and print their logs."""

import argparse
from collections.abc import Callable

from ctrlab.cli import manage
from ctrlab.cli.common import Subparsers, declare_verb, open_lab
from ctrlab.cli.output import print_json, table_text
from ctrlab.errors import ConfigError
from ctrlab.services import annotations, jobs
from ctrlab.services.lab import Lab

#: Actions with one job, and those that take words after its id; `star`, `archive` and `delete` take the ids of several.
_OF_ONE, _WITH_TEXT = ("show", "log", "cancel", "retry"), ("rename", "note", "tag")


def declare_jobs(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the verb `jobs`."""
    parser = declare_verb(
        subparsers, common, "jobs", run_jobs, "list, show, cancel, retry, rename, archive and delete jobs, and print their logs"
    )
    parser.add_argument("action", nargs="?", default="list", choices=("list", *_OF_ONE, *_MANAGE), metavar="ACTION",
                        help=f"list (default), {', '.join((*_OF_ONE, *_MANAGE))}")  # fmt: skip
    parser.add_argument("job", nargs="?", help="id of the job")
    parser.add_argument("words", nargs="*", help="the name, the note, the tags, or ids of more jobs")
    parser.add_argument("--limit", type=int, default=20, help="number of jobs to list (default 20)")
    parser.add_argument("--remove", action="store_true", help="with tag, star and archive: undo it")
    manage.add_delete_flags(parser)
    manage.add_search_flags(parser)


def run_jobs(args: argparse.Namespace) -> None:
    """`jobs`."""
    if args.action != "list" and not args.job:
        raise ConfigError(f"jobs {args.action} needs the id of a job; `jobs list` shows them")
    if args.action in _MANAGE:
        _MANAGE[args.action](_managed(args))
        return
    if args.words:
        raise ConfigError(f"jobs {args.action} takes one id, got {', '.join((args.job, *args.words))}")
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


_MANAGE: dict[str, Callable[[argparse.Namespace], None]] = {
    "rename": manage.run_rename, "note": manage.run_note, "tag": manage.run_tag, "star": manage.run_star,
    "archive": manage.run_archive, "delete": manage.run_delete, "restore": manage.run_restore,
}  # fmt: skip


def _managed(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments as the actions of `data` and `models` have them."""
    text = " ".join(args.words)
    if args.action in _WITH_TEXT and not args.words:
        raise ConfigError(f"jobs {args.action} needs the text after the id of the job")
    if args.action == "restore" and args.words:
        raise ConfigError("jobs restore takes one id")
    of_action = {"id": args.job, "ids": [args.job, *args.words], "name": text, "text": text, "tags": args.words}
    return argparse.Namespace(**{**vars(args), **of_action, "cascade": False})


def _list_jobs(args: argparse.Namespace, lab: Lab) -> None:
    found = annotations.select(jobs.list_jobs(lab.workspace, limit=None), **manage.search_of(args))[: args.limit]
    if args.json:
        facts = [{"id": j.id, "kind": j.kind, "title": j.title, "state": j.state, "progress": j.progress, **vars(j.annotation)}
                 for j in found]  # fmt: skip
        print_json({"jobs": facts})
    else:
        rows = [(j.id, j.state, f"{j.progress:.0%}", j.title, j.error or j.message, *manage.marks(j)) for j in found]
        print(table_text(["id", "state", "done", "title", "message", "tags", "note"], rows))

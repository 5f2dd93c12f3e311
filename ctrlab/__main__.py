"""`python -m ctrlab`: the command line over the services of the dashboard."""

import argparse
import contextlib
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import ctrlab
from ctrlab.cli.common import declare_verb
from ctrlab.cli.output import print_json
from ctrlab.cli.serve import run_serve
from ctrlab.cli.verbs import add_verbs
from ctrlab.errors import ConfigError, CtrlabError
from ctrlab.services.workspace import home_folder, open_workspace
from ctrlab.storage.folders import PRIVATE_FILE

CONCURRENCY_VARIABLE = "CTRLAB_CONCURRENCY"
#: Characters of an unexpected error's message that are printed.
_LONGEST_MESSAGE = 300


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns 0 on success, 1 after an error message on stderr, 130 when interrupted."""
    return run_verb(build_parser().parse_args(argv))


def run_verb(args: argparse.Namespace) -> int:
    """Run the verb of parsed arguments; returns the exit code. Every error is one line; an unexpected one names a log."""
    try:
        return args.run(args) or 0
    except CtrlabError as error:
        return _fail(str(error), args.json)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # compiled libraries raise panics that are not Exceptions
        log = _log_crash(args.home)
        return _fail(f"unexpected: {type(error).__name__}: {_one_line(error)}; the details are in {log}", args.json)


def _one_line(error: BaseException) -> str:
    """The error's message on one line, cut where it is long: the log has it whole."""
    text = " ".join(str(error).split()) or "no message"
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 3] + "..."


def _fail(message: str, as_json: bool) -> int:
    print_json({"error": message}) if as_json else print(f"ctrlab: {message}", file=sys.stderr)
    return 1


def _log_crash(home: Path | None) -> Path:
    """Append the traceback of the current exception to cli.log in the home, or write it to a new file where there is no home."""
    text = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {' '.join(sys.argv)}\n{traceback.format_exc()}\n"
    path = home_folder(home).expanduser().absolute() / "cli.log"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, PRIVATE_FILE)
    except OSError:
        descriptor, name = tempfile.mkstemp(prefix="ctrlab-", suffix=".log")
        path = Path(name)
    with contextlib.suppress(OSError), os.fdopen(descriptor, "a") as file:  # on a full disk the message alone remains
        file.write(text)
    return path


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs; each leaves its function in `args.run`."""
    parser = argparse.ArgumentParser(prog="ctrlab", description=(ctrlab.__doc__ or "").partition("\n")[0])
    parser.add_argument("--version", action="version", version=ctrlab.__version__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON object")
    common.add_argument("--home", type=Path, help="folder with all state (default: CTRLAB_HOME, else the user's data folder)")
    common.add_argument(
        "--store-url", help="SQLAlchemy URL of the store (default: CTRLAB_STORE_URL, else a SQLite file in the home folder)"
    )
    subparsers = parser.add_subparsers(required=True, metavar="VERB")
    add_verbs(subparsers, common)

    worker = declare_verb(subparsers, common, "worker", _run_worker, "run queued jobs until stopped")
    worker.add_argument("--idle-exit-seconds", type=float, help="exit after this many seconds without a job")
    worker.add_argument(
        "--concurrency",
        type=int,
        help=f"how many jobs run at once; they share the processors (default: {CONCURRENCY_VARIABLE}, else 1)",
    )
    serve = declare_verb(subparsers, common, "serve", run_serve, "start a worker and the dashboard")
    serve.add_argument("--port", type=int, default=8501, help="port of the dashboard (default 8501)")
    return parser


def _run_worker(args: argparse.Namespace) -> int:
    from ctrlab.worker.main import run_worker  # its children import torch; no other verb needs them

    concurrency = _concurrency_setting() if args.concurrency is None else args.concurrency
    workspace = open_workspace(args.home, args.store_url)
    return run_worker(workspace, idle_exit_seconds=args.idle_exit_seconds, concurrency=concurrency)


def _concurrency_setting() -> int:
    text = os.environ.get(CONCURRENCY_VARIABLE, "1")
    if not text.isdecimal():
        raise ConfigError(f"{CONCURRENCY_VARIABLE} must be a whole number of jobs, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

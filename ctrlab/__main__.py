"""`python -m ctrlab`: the command line over the services of the dashboard."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import ctrlab
from ctrlab.cli.common import declare_verb
from ctrlab.cli.output import print_json
from ctrlab.cli.verbs import add_verbs
from ctrlab.errors import CtrlabError
from ctrlab.services.jobs import ensure_worker
from ctrlab.services.workspace import open_workspace


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns 0 on success, 1 after an error message on stderr, 130 when interrupted."""
    args = build_parser().parse_args(argv)
    try:
        code = args.run(args)
    except CtrlabError as error:
        print_json({"error": str(error)}) if args.json else print(f"ctrlab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code or 0


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
    serve = declare_verb(subparsers, common, "serve", _run_dashboard, "start a worker and the dashboard")
    serve.add_argument("--port", type=int, default=8501, help="port of the dashboard (default 8501)")
    return parser


def _run_worker(args: argparse.Namespace) -> int:
    from ctrlab.worker.main import run_worker  # its children import torch; no other verb needs them

    return run_worker(open_workspace(args.home, args.store_url), idle_exit_seconds=args.idle_exit_seconds)


def _run_dashboard(args: argparse.Namespace) -> None:
    app = Path(ctrlab.__file__).parents[1] / "app.py"
    if args.home:
        os.environ["CTRLAB_HOME"] = str(args.home)
    if args.store_url:
        os.environ["CTRLAB_STORE_URL"] = args.store_url
    ensure_worker(open_workspace(args.home, args.store_url))
    print(f"The dashboard opens at http://127.0.0.1:{args.port} (stop it with Ctrl-C)", flush=True)
    os.chdir(app.parent)  # Streamlit reads .streamlit/config.toml from the working folder
    command = [sys.executable, "-m", "streamlit", "run", str(app), "--server.port", str(args.port), "--server.headless", "true"]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    sys.exit(main())

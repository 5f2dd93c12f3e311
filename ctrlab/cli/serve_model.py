"""`serve-model`: a bundle behind HTTP."""

import argparse
import signal
import sys
import threading
from pathlib import Path

from ctrlab.cli.common import Subparsers, declare_verb
from ctrlab.errors import CtrlabError


def declare_serve_model(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the verb `serve-model`."""
    parser = declare_verb(subparsers, common, "serve-model", run_serve_model, "score rows over HTTP by a bundle")
    parser.add_argument("bundle", type=Path, help="the bundle's folder, or a link to it that is set to a new version later")
    parser.add_argument("--host", default="127.0.0.1", help="where it listens; anybody who reaches it gets scores")
    parser.add_argument("--port", type=int, default=8601, help="the port (default 8601)")
    parser.add_argument("--threads", type=int, help="calls at once (default: one a core)")
    parser.add_argument("--max-megabytes", type=float, default=8.0, help="of one request's body")
    parser.add_argument("--max-rows", type=int, default=10_000, help="rows or candidates of one request")
    parser.add_argument("--max-waiting", type=int, default=512, help="requests that wait at most; others are refused with 429")


def run_serve_model(args: argparse.Namespace) -> None:
    """`serve-model`."""
    import uvicorn

    from ctrlab.serving.http.app import ServerSettings, create_app
    from ctrlab.serving.http.bodies import Limits
    from ctrlab.serving.http.versions import Versions

    versions = Versions(args.bundle)
    threads = {"threads": args.threads} if args.threads else {}
    limits = Limits(max_bytes=round(args.max_megabytes * 1e6), max_rows=args.max_rows)
    settings = ServerSettings(limits=limits, max_waiting=args.max_waiting, **threads)
    served = versions.served.bundle
    print(f"{served.name}, version {served.version}, at http://{args.host}:{args.port}/docs", flush=True)

    def reload() -> None:
        try:
            print(f"version {versions.reload().bundle.version}", file=sys.stderr)
        except CtrlabError as error:
            print(f"the version before is still served: {error}", file=sys.stderr)

    if hasattr(signal, "SIGHUP"):
        # In a thread: requests go on while the new version is opened and checked.
        signal.signal(signal.SIGHUP, lambda number, frame: threading.Thread(target=reload, daemon=True).start())
    app = create_app(versions, settings)
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning", access_log=False, timeout_graceful_shutdown=30)

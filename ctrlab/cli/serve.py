"""`ctrlab serve`: a worker and the dashboard."""

import argparse
import ipaddress
import os
import sys
from pathlib import Path

import ctrlab
from ctrlab.services.jobs import ensure_worker
from ctrlab.services.workspace import PRIVATE_UMASK, open_workspace

ADDRESS_VARIABLE = "STREAMLIT_SERVER_ADDRESS"


def run_serve(args: argparse.Namespace) -> None:
    """Start a worker, print the address and become the dashboard's process."""
    app = Path(ctrlab.__file__).parents[1] / "app.py"
    address = os.environ.get(ADDRESS_VARIABLE) or "127.0.0.1"
    workspace = open_workspace(args.home, args.store_url)
    ensure_worker(workspace)
    print(opening_line(address, args.port), flush=True)
    os.chdir(app.parent)  # Streamlit reads .streamlit/config.toml from the working folder
    os.umask(PRIVATE_UMASK)
    command = [
        sys.executable, "-m", "streamlit", "run", str(app), "--server.address", address, "--server.port", str(args.port),
        "--server.headless", "true",
    ]  # fmt: skip
    os.execve(sys.executable, command, workspace.environment())


def opening_line(address: str, port: int) -> str:
    """Where the dashboard opens, with a warning where other machines can reach that address."""
    host = f"[{address}]" if ":" in address else address
    line = f"The dashboard opens at http://{host}:{port} (stop it with Ctrl-C)"
    if _is_loopback(address):
        return line
    return f"{line}\n{ADDRESS_VARIABLE} is {address}: whoever can reach it reads and changes everything in this home"


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"

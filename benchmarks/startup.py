"""Time from `streamlit run app.py` to the first page on screen, in a fresh home folder, and what the server's process had loaded.

python benchmarks/startup.py --runs 5
"""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

from common import PROJECT, markdown_table, write_json
from playwright.sync_api import Browser, sync_playwright

BUDGET_SECONDS = 3.0


def main() -> int:
    """Print the table; returns 1 where the median is over budget."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    args = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        runs = [one_run(browser) for _ in range(args.runs)]
        browser.close()
    medians = [statistics.median(run[part] for run in runs) for part in ("answering", "page")]
    print(markdown_table(["", "server answers, s", "first page, s"], [["median", *(f"{value:.2f}" for value in medians)]]))
    print("written to", write_json("startup", runs).relative_to(PROJECT))
    return int(medians[1] > BUDGET_SECONDS)


def one_run(browser: Browser) -> dict[str, float]:
    """Seconds from the command to an answering server and to the Home page's button; the browser is running already."""
    with tempfile.TemporaryDirectory(prefix="ctrlab-startup-") as home, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless=true", f"--server.port={port}"]
        start = time.perf_counter()
        server = subprocess.Popen(command, cwd=PROJECT, env={**os.environ, "CTRLAB_HOME": home}, stdout=subprocess.DEVNULL)
        try:
            answering = wait_until_up(port) - start
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{port}/")
            page.get_by_role("button", name="Try the sample").wait_for()
            shown = time.perf_counter() - start
            page.close()
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)
            stop_worker(home)
    return {"answering": answering, "page": shown}


def wait_until_up(port: int) -> float:
    """Time of the server's first response."""
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).read()
            return time.perf_counter()
        except OSError:
            time.sleep(0.01)


def stop_worker(home: str) -> None:
    """End the worker the dashboard started in `home`, and wait for it, because the folder is deleted next."""
    from ctrlab.services.jobs import worker_state
    from ctrlab.services.workspace import open_workspace

    workspace = open_workspace(home)
    deadline = time.monotonic() + 10
    while (pid := worker_state(workspace).pid) and time.monotonic() < deadline:
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.3)


if __name__ == "__main__":
    sys.exit(main())

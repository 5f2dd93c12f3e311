"""A running dashboard for the browser tests, and a page that records console errors and requests to other machines."""

import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, Request, expect

from tests.support.patience import PATIENCE

_CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
ROOT = Path(__file__).parents[2]
#: Streamlit requests these below the page's own address first and then below the root; the first response is a 404 by design.
_PROBES = ("/_stcore/health", "/_stcore/host-config")

expect.set_options(timeout=1000 * PATIENCE)

#: What a page shows where something went wrong.
ERRORS = "[data-testid=stException], [data-testid=stAlertContentError]"
#: Every page of the dashboard and its title.
PAGES = {
    "/": "Make a CTR model smaller, and see why it can be",
    "/Data": "Data",
    "/Model": "Model",
    "/Spectra": "Spectra",
    "/Compress": "Compress",
    "/Compare": "Compare",
    "/Jobs": "Jobs",
    "/Storage": "Storage",
    "/Learn": "Learn",
}


@dataclass
class Server:
    """A running dashboard. `restart` starts a new process with the same home and port."""

    home: Path
    port: int
    process: psutil.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless=true", f"--server.port={self.port}"]
        environment = {name: value for name, value in os.environ.items() if name != "CTRLAB_STORE_URL"}
        with (self.home / "server.log").open("ab") as log:
            self.process = psutil.Popen(
                command, cwd=ROOT, env=environment | {"CTRLAB_HOME": str(self.home)}, stdout=log, stderr=log
            )
        wait_for(self._answers, seconds=PATIENCE)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)
            self.process = None

    def kill(self) -> None:
        """End it at once; an orderly end would take seconds, and this home is not used again."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)
            self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop_workers(self) -> None:
        """End the workers that the dashboard started for this home, and no other process."""
        mine = [process for process in psutil.process_iter() if self._is_my_worker(process)]
        for process in mine:
            process.kill()
        wait_for(lambda: not any(map(_runs, mine)), seconds=PATIENCE)

    def _is_my_worker(self, process: psutil.Process) -> bool:
        try:
            return "worker" in process.cmdline() and process.environ().get("CTRLAB_HOME") == str(self.home)
        except psutil.Error:
            return False

    def _answers(self) -> bool:
        assert self.process is not None
        assert _runs(self.process), (self.home / "server.log").read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=10) as answer:
                return answer.status == 200
        except OSError:
            return False


def _runs(process: psutil.Process) -> bool:
    """Whether a process has not ended; one that its parent has not read the exit status of yet has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{condition} did not come true in {seconds} s"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch_settings() -> dict[str, Any]:
    """How Chromium is started: the system's where there is one, else the one that Playwright brought."""
    found = os.environ.get("CTRLAB_CHROMIUM") or next((path for path in _CHROMIUM if Path(path).exists()), None)
    return {"args": ["--no-sandbox", "--disable-dev-shm-usage"], **({"executable_path": found} if found else {})}


@contextmanager
def running_server(home: Path) -> Iterator[Server]:
    """A server of its own on a home, ended with its worker."""
    server = Server(home, free_port())
    server.start()
    try:
        yield server
    finally:
        server.kill()
        server.stop_workers()


@dataclass
class Dashboard:
    """A browser page on a server, with the complaints that a clean page does not have."""

    page: Page
    server: Server
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))
        self.page.on("request", self._request)

    def open(self, path: str = "/") -> Page:
        self.page.goto(self.server.url + path)
        self.wait_until_idle()
        return self.page

    def wait_until_idle(self) -> None:
        """Wait until the page's script has run and its title is there."""
        expect(self.page.locator("h1").first).to_be_visible()
        expect(self.page.locator("[data-testid=stApp]")).to_have_attribute("data-test-script-state", "notRunning")

    def _console(self, message) -> None:
        if message.type == "error" and not message.location.get("url", "").endswith(_PROBES):
            self.complaints.append(f"console: {message.text} ({message.location.get('url')})")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.server.url, self.server.url.replace("http", "ws", 1), "data:", "blob:")):
            self.complaints.append(f"left the machine: {request.url}")

"""One real server for the session, with a home of its own, and a page that remembers what went wrong on it."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from patience import PATIENCE
from playwright.sync_api import BrowserContext, Page, Request, expect

ROOT = Path(__file__).parents[2]
_CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
#: Streamlit asks for these below the page's own address first and then below the root; the first answer is a 404 by design.
_PROBES = ("/_stcore/health", "/_stcore/host-config")

#: Every page of the dashboard and its title.
PAGES = {
    "/": "Make a CTR model smaller, and see why it can be",
    "/Data": "Data",
    "/Model": "Model",
    "/Spectra": "Spectra",
    "/Compress": "Compress",
    "/Compare": "Compare",
    "/Jobs": "Jobs",
    "/Learn": "Learn",
}

expect.set_options(timeout=1000 * PATIENCE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict) -> dict:
    found = os.environ.get("CTRLAB_CHROMIUM") or next((path for path in _CHROMIUM if Path(path).exists()), None)
    own = {"executable_path": found} if found else {}
    return {**browser_type_launch_args, **own, "args": ["--no-sandbox", "--disable-dev-shm-usage"]}


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args: dict) -> dict:
    return {**browser_context_args, "viewport": {"width": 1440, "height": 1000}}


@pytest.fixture
def context(context: BrowserContext) -> BrowserContext:
    """A browser window of the test's own, with as much patience as `expect` has."""
    context.set_default_timeout(1000 * PATIENCE)
    return context


@dataclass
class Server:
    """A running dashboard. `restart` is what a person does after a crash: same home, same port, fresh process."""

    home: Path
    port: int
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless=true", f"--server.port={self.port}"]
        environment = {name: value for name, value in os.environ.items() if name != "CTRLAB_STORE_URL"}
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment | {"CTRLAB_HOME": str(self.home)}, stdout=log, stderr=log
            )
        wait_for(self._answers, seconds=PATIENCE)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)
            self.process = None

    def kill(self) -> None:
        """Not in good order, which would take seconds: nobody looks at this home again."""
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
        psutil.wait_procs(mine, timeout=PATIENCE)

    def _is_my_worker(self, process: psutil.Process) -> bool:
        try:
            return "worker" in process.cmdline() and process.environ().get("CTRLAB_HOME") == str(self.home)
        except psutil.Error:
            return False

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.home / "server.log").read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=10) as answer:
                return answer.status == 200
        except OSError:
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


def running_server(home: Path) -> Iterator[Server]:
    server = Server(home, free_port())
    server.start()
    try:
        yield server
    finally:
        server.kill()
        server.stop_workers()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The session's server, on an empty home that its tests fill."""
    yield from running_server(tmp_path_factory.mktemp("home"))


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[Server]:
    """A server that nobody has asked for anything, on an empty home."""
    yield from running_server(tmp_path)


@dataclass
class Dashboard:
    """A browser page on a server, with everything that a clean page must not do."""

    page: Page
    server: Server
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))
        self.page.on("request", self._request)

    def open(self, path: str = "/") -> Page:
        self.page.goto(self.server.url + path)
        self.settled()
        return self.page

    def settled(self) -> None:
        """Wait until the page's script has run and its title is there."""
        expect(self.page.locator("h1").first).to_be_visible()
        expect(self.page.locator("[data-testid=stApp]")).to_have_attribute("data-test-script-state", "notRunning")

    def _console(self, message) -> None:
        if message.type == "error" and not message.location.get("url", "").endswith(_PROBES):
            self.complaints.append(f"console: {message.text} ({message.location.get('url')})")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.server.url, self.server.url.replace("http", "ws", 1), "data:", "blob:")):
            self.complaints.append(f"left the machine: {request.url}")


@pytest.fixture
def dashboard(page: Page, server: Server) -> Iterator[Dashboard]:
    """A page on the session's server; the test fails if the console complained or a request left the machine."""
    shown = Dashboard(page, server)
    yield shown
    assert shown.complaints == []


@pytest.fixture(scope="session")
def sample(server: Server, browser) -> dict[str, str]:
    """The sample, opened by a click as a person would: ids of dataset, model and spectra."""
    page = browser.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(server.url)
    page.get_by_role("button", name="Try the sample").click()
    page.wait_for_url("**/Spectra?*")
    query = dict(part.split("=") for part in page.url.split("?")[1].split("&"))
    page.context.close()
    return {kind: query[kind] for kind in ("dataset", "model", "spectra")}

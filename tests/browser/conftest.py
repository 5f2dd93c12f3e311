"""One real server for the session, with a home of its own, and a page that remembers what went wrong on it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.support.browser import Dashboard, Server, running_server
from tests.support.patience import PATIENCE

_CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
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


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The session's server, on an empty home that its tests fill."""
    yield from running_server(tmp_path_factory.mktemp("home"))


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[Server]:
    """A server that nobody has asked for anything, on an empty home."""
    yield from running_server(tmp_path)


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

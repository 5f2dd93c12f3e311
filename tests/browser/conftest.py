"""One real server for the whole run, one browser window a test process, and a page that records what went wrong on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.support.browser import Dashboard, Server, launch_settings, running_server
from tests.support.patience import PATIENCE
from tests.support.shared import once, run_folder
from tests.support.shared_server import shared_server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
    items.sort(key=lambda item: item.path.name != "test_newcomer_path.py")  # the longest comes first


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict) -> dict:
    return {**browser_type_launch_args, **launch_settings()}


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args: dict) -> dict:
    return {**browser_context_args, "viewport": {"width": 1440, "height": 1000}}


@pytest.fixture(scope="session")
def context(browser: Browser, browser_context_args: dict) -> Iterator[BrowserContext]:
    """One browser window for all tests, so that its cache of scripts stays warm; each test has a tab of its own."""
    context = browser.new_context(**browser_context_args)
    context.set_default_timeout(1000 * PATIENCE)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A new tab."""
    page = context.new_page()
    yield page
    page.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of all tests, on one home that they fill."""
    with shared_server(run_folder(tmp_path_factory) / "shared") as server:
        yield server


@pytest.fixture(scope="session")
def empty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a home that stays empty: its tests only look."""
    with shared_server(run_folder(tmp_path_factory) / "empty") as server:
        yield server


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, on an empty home: for tests that restart it or need a first visit."""
    with running_server(tmp_path) as server:
        yield server


@pytest.fixture
def dashboard(page: Page, server: Server) -> Iterator[Dashboard]:
    """A page on the shared server; the test fails if the console complained or a request left the machine."""
    shown = Dashboard(page, server)
    yield shown
    assert shown.complaints == []


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory, server: Server, context: BrowserContext) -> dict[str, str]:
    """Ids of the sample's dataset, model and spectra; it is opened by a click, once in the run."""

    def opened() -> dict[str, str]:
        page = context.new_page()
        page.goto(server.url)
        page.get_by_role("button", name="Try the sample").click()
        page.wait_for_url("**/Spectra?*", timeout=3 * 1000 * PATIENCE)  # every other test waits for this one
        query = dict(part.split("=") for part in page.url.split("?")[1].split("&"))
        page.close()
        return {kind: query[kind] for kind in ("dataset", "model", "spectra")}

    return once(run_folder(tmp_path_factory) / "sample.json", opened)

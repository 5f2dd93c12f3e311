import pytest
from playwright.sync_api import Page, expect

from tests.support.axe import violations_light_and_dark
from tests.support.browser import ERRORS, PAGES, Dashboard, Server


def opened(page: Page, server: Server, path: str) -> Dashboard:
    """A page by its address, which must show its title, no error, and nothing on the console."""
    dashboard = Dashboard(page, server)
    dashboard.open(path)
    expect(page.get_by_role("heading", level=1)).to_have_text(PAGES[path])
    expect(page.locator(ERRORS)).to_have_count(0)
    assert dashboard.complaints == []
    return dashboard


@pytest.mark.parametrize("path", ["/", "/Data"])
def test_axe_finds_nothing_serious_where_a_newcomer_begins_light_and_dark(path: str, page: Page, empty_server: Server) -> None:
    opened(page, empty_server, path)
    assert violations_light_and_dark(page) == []


def test_the_jobs_page_says_what_to_do_first(page: Page, empty_server: Server) -> None:
    opened(page, empty_server, "/Jobs")
    expect(page.get_by_text("No job yet")).to_be_visible()
    page.get_by_role("link", name="Open Home").click()
    expect(page.get_by_role("button", name="Try the sample")).to_be_visible()

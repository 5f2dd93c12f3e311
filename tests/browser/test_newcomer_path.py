from playwright.sync_api import Page

from tests.support.browser import Dashboard, Server
from tests.support.newcomer import walk_to_the_comparison


def test_a_newcomer_gets_from_home_to_a_comparison_by_clicks_and_keys_alone(page: Page, fresh_server: Server) -> None:
    dashboard = Dashboard(page, fresh_server)
    walk_to_the_comparison(dashboard)
    assert dashboard.complaints == []

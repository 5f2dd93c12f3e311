from pathlib import Path

import numpy as np
from playwright.sync_api import Page

from tests.support.browser import Dashboard, Server
from tests.support.newcomer import walk_to_the_comparison, walk_with_a_table


def test_a_newcomer_gets_from_home_to_a_comparison_in_four_clicks(page: Page, fresh_server: Server) -> None:
    dashboard = Dashboard(page, fresh_server)
    assert walk_to_the_comparison(dashboard).clicks <= 4
    assert dashboard.complaints == []


def test_an_engineer_gets_from_a_table_to_a_comparison_in_eight_clicks(page: Page, fresh_server: Server, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    ads, prices = random.integers(0, 30, 2000), random.random(2000).round(2)
    clicked = random.random(2000) < 0.1 + 0.02 * ads
    rows = (f"{click:d},ad{ad},{price}" for click, ad, price in zip(clicked, ads, prices, strict=True))
    table = tmp_path / "own.csv"
    table.write_text("clicked,ad,price\n" + "\n".join(rows) + "\n")
    assert walk_with_a_table(Dashboard(page, fresh_server), table) <= 8

import random
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import Dashboard


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A headerless TSV of 3000 rows: a label, a number with gaps, two codes."""
    draw = random.Random(0)
    rows = []
    for _ in range(3000):
        color = draw.choice("rgbrrr")
        label = int(draw.random() < (0.4 if color == "r" else 0.15))
        rows.append(
            f"{label}\t{draw.random() * 100 if draw.random() < 0.9 else ''}\t{color}\tsite{int(draw.paretovariate(0.6)) % 500}"
        )
    path = tmp_path / "clicks.tsv"
    path.write_text("\n".join(rows) + "\n")
    return path


def choose_way(dashboard: Dashboard, way: str) -> Page:
    """The form of one source, without a selected dataset."""
    page = dashboard.open("/Data")
    page.get_by_role("radio", name=way).click()
    return page


def test_an_uploaded_table_is_looked_at_encoded_and_summed_up(table: Path, dashboard: Dashboard) -> None:
    page = choose_way(dashboard, "Your table")
    page.locator("input[type=file]").first.set_input_files(table)
    expect(page.get_by_text("clicks.tsv")).to_be_visible()
    dashboard.wait_until_idle()
    page.get_by_role("button", name="Inspect table").click()
    expect(page.get_by_text("3 000 rows inspected")).to_be_visible()
    page.get_by_role("textbox", name="Name").fill("Uploaded clicks")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Encode 3 fields").click()
    expect(page.locator(".st-key-selected")).to_contain_text("Uploaded clicks")
    expect(page.get_by_test_id("stMetric")).to_have_count(4)
    expect(page.get_by_test_id("stMetric").first).to_contain_text("2.10 k rows")
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    page.reload()
    expect(page.locator(".st-key-selected")).to_contain_text("Uploaded clicks")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV", exact=True).click()
    assert download.value.suggested_filename == "uploaded-clicks-fields.csv"


def test_a_bad_path_is_one_sentence_and_stays_typed_and_a_known_format_shows_where_its_file_is(dashboard: Dashboard) -> None:
    page = choose_way(dashboard, "Your table")
    box = page.get_by_role("textbox", name="Or the path of a table on this machine")
    box.fill("/nowhere/at-all.csv")
    box.press("Enter")
    page.get_by_role("button", name="Inspect table").click()
    expect(page.get_by_test_id("stAlertContentError")).to_have_count(1)
    expect(page.get_by_test_id("stAlertContentError")).to_contain_text("at-all.csv")
    expect(box).to_have_value("/nowhere/at-all.csv")
    page.get_by_role("radio", name="Known format").click()
    expect(page.get_by_text(re.compile("criteo-research-kaggle"))).to_be_visible()


def test_a_draft_survives_a_look_at_another_page(table: Path, dashboard: Dashboard) -> None:
    page = choose_way(dashboard, "Your table")
    box = page.get_by_role("textbox", name="Or the path of a table on this machine")
    box.fill(str(table))
    box.press("Enter")
    page.get_by_role("button", name="Inspect table").click()
    expect(page.get_by_text("3 000 rows inspected")).to_be_visible()
    page.get_by_role("textbox", name="Name").fill("My draft")
    page.keyboard.press("Enter")
    page.get_by_test_id("stSidebar").get_by_role("link", name="Learn").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Learn")
    page.get_by_test_id("stSidebar").get_by_role("link", name="Data").click()
    expect(page.get_by_text("3 000 rows inspected")).to_be_visible()
    expect(page.get_by_role("textbox", name="Name")).to_have_value("My draft")

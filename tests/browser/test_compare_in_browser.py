import re

from playwright.sync_api import expect

from tests.support.axe import violations_light_and_dark
from tests.support.browser import Dashboard


def query(sample: dict[str, str]) -> str:
    return "&".join(f"{key}={value}" for key, value in sample.items())


def test_a_model_is_measured_by_one_click_and_then_has_numbers_charts_and_no_serious_axe_finding(
    sample, dashboard: Dashboard
) -> None:
    page = dashboard.open(f"/Compare?{query(sample)}")
    row = page.get_by_role("region", name="Comparison of the models").get_by_role("row", name=re.compile("baseline"))
    auc = row.locator("[data-cell=auc]")
    if not re.search(r"0\.\d{4}", auc.inner_text()):
        page.get_by_role("button", name=re.compile("^Measure ")).click()
    expect(auc).to_contain_text(re.compile(r"0\.\d{4}"))
    expect(page.get_by_text("Time of a call, median to 99th percentile")).to_be_visible()
    dashboard.wait_until_idle()
    assert violations_light_and_dark(page) == []
    page.get_by_text("Save", exact=True).click()
    with page.expect_download() as started:
        page.get_by_role("button", name="CSV", exact=True).click()
    assert "Log loss" in started.value.path().read_text().splitlines()[0]

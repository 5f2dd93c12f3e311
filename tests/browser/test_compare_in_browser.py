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
    table = page.get_by_role("region", name="Comparison of the models")
    row = table.get_by_role("row", name=re.compile("^AUC"))
    if not re.search(r"0\.\d{4}", row.inner_text()):
        page.get_by_role("button", name=re.compile("^Measure ")).click()
    expect(row).to_contain_text(re.compile(r"0\.\d{4}"))
    expect(page.get_by_text("Of 1 measured model")).to_be_visible()
    dashboard.wait_until_idle()
    assert violations_light_and_dark(page) == []
    with page.expect_download() as started:
        page.get_by_role("button", name="CSV", exact=True).click()
    assert "torch_rows_per_second_4096" in started.value.path().read_text().splitlines()[0]

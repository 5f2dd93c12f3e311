import re

from playwright.sync_api import expect

from tests.support.browser import Dashboard


def test_a_job_has_an_address_with_its_log_and_its_results(sample, dashboard: Dashboard) -> None:
    page = dashboard.open("/Jobs")
    page.get_by_test_id("stMain").get_by_role("link", name="Open the sample").click()
    expect(page).to_have_url(re.compile("job=job-"))
    expect(page.get_by_text(re.compile("Succeeded after"))).to_be_visible()
    page.reload()
    expect(page.get_by_text(re.compile("Succeeded after"))).to_be_visible()
    page.get_by_test_id("stMain").get_by_role("link", name="Open in Spectra").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Spectra")
    assert sample["spectra"] in page.url

import re

from playwright.sync_api import expect

from tests.support.browser import Dashboard


def test_the_sample_that_is_there_opens_the_second_time_by_keys_alone(sample, dashboard: Dashboard) -> None:
    page = dashboard.open("/")
    page.get_by_role("button", name="Try the sample").focus()
    page.keyboard.press("Enter")
    # Not by the spectra's id: other tests may have had spectra of this model computed since, and the newest are shown.
    expect(page).to_have_url(re.compile(rf"/Spectra\?.*{sample['model']}"))
    assert sample["dataset"] in page.url


def test_recent_runs_lead_to_the_job(sample, dashboard: Dashboard) -> None:
    page = dashboard.open("/")
    page.locator("[class*=st-key-recent-job]").first.get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
    expect(page).to_have_url(re.compile("job=job-"))

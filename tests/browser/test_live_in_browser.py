"""What a page does by itself: it follows jobs to their end, starts a worker that died, and explains a stopped server."""

import re

from playwright.sync_api import Page, expect

from ctrlab.services.spectra import SpectraConfig, submit_spectra
from ctrlab.services.workspace import open_workspace
from tests.support.browser import Dashboard, Server
from tests.support.workspaces import deepfm_workspace


def test_a_job_queued_elsewhere_shows_in_badge_and_title_and_its_end_in_a_toast(sample, dashboard: Dashboard) -> None:
    page = dashboard.open("/Learn")
    dashboard.server.stop_workers()  # a waiting worker could end the job between two readings of the page, which starts another
    job = submit_spectra(open_workspace(dashboard.server.home), SpectraConfig(model_id=sample["model"]))
    sidebar = page.get_by_test_id("stSidebar")
    expect(sidebar).to_contain_text(re.compile(r"\d+ active"))
    expect(page).to_have_title(re.compile(r"\d+ running"))
    expect(page.get_by_test_id("stToast").first).to_contain_text("Spectra of DeepFM on the sample: done")
    expect(page).to_have_title(re.compile("^(Done: |\\d+ running).* \N{MIDDLE DOT} ctrlab$"))
    assert open_workspace(dashboard.server.home).store.jobs.get(job).state == "succeeded"


def test_a_dead_worker_is_started_again_without_a_click_and_a_stopped_server_is_explained(
    page: Page, fresh_server: Server
) -> None:
    ids = deepfm_workspace(fresh_server.home)
    Dashboard(page, fresh_server).open("/Learn")
    fresh_server.stop_workers()
    submit_spectra(open_workspace(fresh_server.home), SpectraConfig(model_id=ids["model"]))
    expect(page.get_by_test_id("stToast")).to_contain_text("Spectra of DeepFM: failed")  # as it must: the model has no files
    fresh_server.stop()
    explained = "getComputedStyle(document.querySelector('[data-testid=stApp]'), '::after')"
    page.wait_for_function(f"{explained}.content.includes('server has stopped') && {explained}.opacity === '1'")
    assert not page.get_by_test_id("stDialog").is_visible()

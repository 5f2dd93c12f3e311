import re

from playwright.sync_api import Page, expect

from ctrlab.services.workspace import open_workspace
from tests.support.axe import violations_light_and_dark
from tests.support.browser import Dashboard, Server
from tests.support.workspaces import add_compressed, add_evaluation, deepfm_workspace


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


def test_a_click_on_a_row_chooses_the_model_in_the_card_and_in_the_address(page: Page, fresh_server: Server) -> None:
    ids = deepfm_workspace(fresh_server.home)
    workspace = open_workspace(fresh_server.home)
    small = [add_compressed(workspace, ids, name) for name in ("First, 4x", "Second, 4x")]
    for model_id, auc in zip([ids["model"], *(model.id for model in small)], (0.76, 0.761, 0.759), strict=True):
        add_evaluation(workspace, model_id, auc=auc)
    Dashboard(page, fresh_server).open(f"/Compare?model={ids['model']}&models={ids['model']},{small[0].id},{small[1].id}")
    table = page.get_by_role("region", name="Comparison of the models")
    card = page.get_by_role("region", name="The chosen model")
    expect(card).to_contain_text("Second, 4x")  # the last compressed model, which the address need not name
    table.locator(f"[data-id={small[0].id}]").click()
    page.wait_for_url(re.compile(f"chosen={small[0].id}"))
    expect(card).to_contain_text("First, 4x")
    text = card.inner_text()
    page.reload()
    expect(card).to_have_text(text, use_inner_text=True)

import re
import time

from playwright.sync_api import expect

from tests.support.browser import Dashboard, Server
from tests.support.patience import promised

#: From the first click until both models stand side by side, on two cores.
BUDGET_SECONDS = 90


def test_a_newcomer_gets_from_home_to_a_comparison_by_clicks_and_keys_alone(page, fresh_server: Server) -> None:
    dashboard = Dashboard(page, fresh_server)
    dashboard.open("/")
    start = time.monotonic()

    page.get_by_role("button", name="Try the sample").click()
    page.wait_for_url("**/Spectra?*")
    expect(page.get_by_text(re.compile(r"99 % of the variance of mlp\.\d+ (lies|needs)"))).to_be_visible()
    spectrum_seconds = time.monotonic() - start

    page.get_by_role("link", name="Choose ranks").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Compress")
    button = page.get_by_role("button", name=re.compile("^Compress to .* parameters"))
    expect(button).to_be_enabled()
    prediction = page.locator(".st-key-prediction .headline")
    before, promised_before = prediction.inner_text(), button.inner_text()
    page.get_by_role("slider", name="Rank of all MLP layers").focus()
    page.keyboard.press("ArrowRight")
    expect(prediction).not_to_have_text(before, use_inner_text=True)
    expect(button).not_to_have_text(promised_before, use_inner_text=True)

    button.click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.locator("[class*=st-key-job-job]").first).to_contain_text(re.compile(r"\d+ %"))
    page.get_by_role("link", name="Compare it with the original").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Compare")
    table = page.get_by_role("region", name="Comparison of the models")
    expect(table.get_by_role("columnheader")).to_have_count(2)
    for line in ("AUC", "Tables parameters", "Batch 4096"):
        cells = table.get_by_role("row", name=re.compile(f"^{line} ")).first.get_by_role("cell")
        assert all(re.match(r"[\d.]+", text) for text in cells.all_inner_texts()), (line, cells.all_inner_texts())
    seconds = time.monotonic() - start
    assert spectrum_seconds < promised(10) and seconds < promised(BUDGET_SECONDS), (spectrum_seconds, seconds)
    assert dashboard.complaints == []

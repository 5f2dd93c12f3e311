"""The way of a newcomer through the dashboard, by clicks and keys alone."""

import re
import time
from dataclasses import dataclass

from playwright.sync_api import Page, expect

from tests.support.browser import Dashboard
from tests.support.patience import PATIENCE


@dataclass(frozen=True)
class Walk:
    """Seconds from the click on the sample until its spectrum, and until it stands beside its compressed model."""

    to_spectrum: float
    to_comparison: float


def walk_to_the_comparison(dashboard: Dashboard) -> Walk:
    """From Home on an empty home folder to the comparison of the sample's model with its compressed one."""
    page = dashboard.open("/")
    start = time.monotonic()
    page.get_by_role("button", name="Try the sample").click()
    page.wait_for_url("**/Spectra?*")
    expect(page.get_by_text(re.compile(r"99 % of the variance of mlp\.\d+ (lies|needs)"))).to_be_visible()
    to_spectrum = time.monotonic() - start
    _compress(page)
    _compare(page)
    return Walk(to_spectrum, time.monotonic() - start)


def _compress(page: Page) -> None:
    page.get_by_role("link", name="Choose ranks").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Compress")
    button = page.get_by_role("button", name=re.compile("^Compress to .* parameters"))
    expect(button).to_be_enabled()
    prediction = page.locator(".editor .summary")
    predicted, label = prediction.inner_text(), button.inner_text()
    page.get_by_role("slider", name="Rank of all MLP layers").focus()
    page.keyboard.press("ArrowRight")
    expect(prediction).not_to_have_text(predicted, use_inner_text=True)
    expect(button).not_to_have_text(label, use_inner_text=True)
    button.click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.locator("[class*=st-key-job-job]").first).to_contain_text(re.compile(r"\d+ %"))


def _compare(page: Page) -> None:
    page.get_by_role("link", name="Compare with the original").click(timeout=3 * 1000 * PATIENCE)  # after the whole job
    expect(page.get_by_role("heading", level=1)).to_have_text("Compare")
    table = page.get_by_role("region", name="Comparison of the models")
    expect(table.locator("tbody tr")).to_have_count(2)
    for column in ("auc", "bytes", "torch_p50_ms_4096"):
        assert all(re.match(r"[\d.]+", text) for text in table.locator(f"[data-cell={column}]").all_inner_texts()), column

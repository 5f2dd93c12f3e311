"""The way of a newcomer through the dashboard, by clicks and keys alone."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.support.browser import Dashboard
from tests.support.patience import PATIENCE


@dataclass(frozen=True)
class Walk:
    """Seconds from the click on the sample until its spectrum, and until it stands beside its compressed model; all clicks."""

    to_spectrum: float
    to_comparison: float
    clicks: int


def count_clicks(page: Page) -> Callable[[], int]:
    """Counts the clicks of a user on a page that is opened next, scripts' own not among them; returns how many there were."""
    page.add_init_script(
        "addEventListener('click', event => { if (event.isTrusted) window.userClicks = (window.userClicks || 0) + 1 }, true)"
    )
    return lambda: int(page.evaluate("window.userClicks || 0"))


def walk_to_the_comparison(dashboard: Dashboard) -> Walk:
    """From Home on an empty home folder to the comparison of the sample's model with its compressed one."""
    clicks = count_clicks(dashboard.page)
    page = dashboard.open("/")
    start = time.monotonic()
    page.get_by_role("button", name="Try the sample").click()
    page.wait_for_url("**/Spectra?*")
    expect(page.get_by_text(re.compile(r"99 % of the variance of mlp\.\d+ (lies|needs)"))).to_be_visible()
    to_spectrum = time.monotonic() - start
    _compress(page)
    _compare(page)
    return Walk(to_spectrum, time.monotonic() - start, clicks())


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


def walk_with_a_table(dashboard: Dashboard, table: Path) -> int:
    """From a table dropped on Home to the comparison of a model trained on it with its compressed one; how many clicks it took."""
    clicks = count_clicks(dashboard.page)
    page = dashboard.open("/")
    page.locator(".st-key-home-upload input[type=file]").set_input_files(table)
    page.get_by_role("button", name=re.compile(r"^Encode \d+ fields")).click()
    page.get_by_role("link", name="Train a model").click()
    page.get_by_role("button", name="Train DeepFM").click()
    page.get_by_role("button", name="Compute spectra").click(timeout=3 * 1000 * PATIENCE)
    page.get_by_role("link", name="Choose ranks").click(timeout=3 * 1000 * PATIENCE)
    page.get_by_role("button", name=re.compile("^Compress to .* parameters")).click()
    _compare(page)
    return clicks()


def _compare(page: Page) -> None:
    page.get_by_role("link", name="Compare with the original").click(timeout=3 * 1000 * PATIENCE)  # after the whole job
    expect(page.get_by_role("heading", level=1)).to_have_text("Compare")
    table = page.get_by_role("region", name="Comparison of the models")
    expect(table.locator("tbody tr")).to_have_count(2)
    for column in ("auc", "bytes", "torch_p50_ms_4096"):
        assert all(re.match(r"[\d.]+", text) for text in table.locator(f"[data-cell={column}]").all_inner_texts()), column

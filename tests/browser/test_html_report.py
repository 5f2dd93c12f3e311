"""The HTML report in a browser, from a file: no server. The Compare page draws with the same script."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from ctrlab.reports.html_report import html_report
from tests.support.comparisons import compared

EVIL = "<img src=x onerror=alert(1)></script><script>alert(2)</script> 推薦 100 % $x$ | a & b"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """200 models, of which ten were not measured; one has a name that is code."""
    return compared(200, unmeasured=10, names={7: EVIL})


@pytest.fixture
def report(context: BrowserContext, table: pd.DataFrame, tmp_path: Path):
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.on(
        "request", lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else faults.append(request.url)
    )
    (tmp_path / "report.html").write_text(html_report(table, title=EVIL, chosen="model-7"), encoding="utf-8")
    page.goto(f"file://{tmp_path}/report.html")
    yield page
    page.close()
    assert faults == []


def names(page: Page) -> list[str]:
    return page.locator("tbody tr:visible .name").all_inner_texts()


def saved(page: Page, form: str) -> str:
    page.get_by_text("Save", exact=True).click()
    with page.expect_download() as started:
        page.get_by_role("button", name=form, exact=True).click()
    return started.value.path().read_text(encoding="utf-8")


def test_a_report_of_200_models_sorts_filters_brushes_and_is_saved_without_a_server(report: Page, table: pd.DataFrame):
    expect(report.get_by_role("heading", level=1)).to_have_text(EVIL)
    expect(report.get_by_role("region", name="Comparison of the models").locator("tbody tr")).to_have_count(200)

    report.get_by_role("columnheader", name=re.compile("^Size")).get_by_role("button").click()
    wanted = [table["name"][0], *table.iloc[1:].sort_values("bytes", kind="stable")["name"]]  # the baseline stays on top
    assert [name.lstrip("★ ") for name in names(report)] == wanted

    front = set()
    for row in table[table["auc"].notna()].itertuples():
        others = table[(table["bytes"] <= row.bytes) & (table["auc"] >= row.auc)]
        if not ((others["bytes"] < row.bytes) | (others["auc"] > row.auc)).any():
            front.add(row.name)
    assert {title.split("\n")[0] for title in report.locator(".onfront title").all_text_contents()} == front

    handle = report.locator(".axisgroup").nth(2).locator(".handle").bounding_box()
    middle = handle["x"] + handle["width"] / 2
    report.mouse.move(middle, handle["y"] + handle["height"] / 2)
    report.mouse.down()
    report.mouse.move(middle, handle["y"] + handle["height"] - 1, steps=4)
    report.mouse.up()
    kept = int(report.get_by_role("status").inner_text().split(" ")[0])
    assert 0 < kept < 200 and len(names(report)) in (kept, kept + 1)  # and the baseline
    assert report.locator(".point:not(.faint)").count() + report.locator(".path:not(.faint)").count() > kept

    report.get_by_role("searchbox").fill("推薦")
    rows = list(csv.reader(io.StringIO(saved(report, "CSV"))))
    assert [row[0] for row in rows[1:]] in ([table["name"][0], EVIL], [table["name"][0]])
    report.get_by_role("button", name="Show all").click()
    expect(report.get_by_role("status")).to_have_text("200 models")
    assert r"100 \% \$x\$ | a \& b" in saved(report, "LaTeX")
    assert saved(report, "AUC against cost, SVG").startswith("<svg")

    report.locator("tbody tr").nth(3).get_by_role("button").press("Enter")
    expect(report.get_by_role("region", name="The chosen model").get_by_role("heading")).to_have_text(names(report)[3])


def test_a_report_of_one_model_that_was_not_measured_says_so(context: BrowserContext, tmp_path: Path):
    table = compared(1, unmeasured=1)
    (tmp_path / "one.html").write_text(html_report(table, title="One"), encoding="utf-8")
    page = context.new_page()
    page.goto(f"file://{tmp_path}/one.html")
    expect(page.get_by_text("AUC not measured")).to_be_visible()
    expect(page.get_by_text("No model has been timed like this yet.")).to_be_visible()
    page.close()
    assert np.isnan(table["auc"][0])

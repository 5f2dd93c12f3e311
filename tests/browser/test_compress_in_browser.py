import re

from playwright.sync_api import Locator, expect

from tests.support.browser import Dashboard


def query(sample: dict[str, str]) -> str:
    return "&".join(f"{key}={value}" for key, value in sample.items())


def unchanging_text(locator: Locator, dashboard: Dashboard) -> str:
    """The text once it has stayed for a second: a page is at rest between two keys as well, each of which it answers."""
    text = None
    while text != (text := locator.inner_text()):
        dashboard.page.wait_for_timeout(1000)
        dashboard.wait_until_idle()
    return text


def test_a_slider_by_keys_moves_the_prediction_and_the_plan_survives_a_reload(sample, dashboard: Dashboard) -> None:
    page = dashboard.open(f"/Compress?{query(sample)}")
    slider, headline = page.get_by_role("slider", name="Rank of mlp.2"), page.locator(".st-key-prediction .headline")
    before, old = headline.inner_text(), int(slider.input_value())
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(slider).to_have_value(str(old + 3))
    expect(headline).not_to_have_text(before, use_inner_text=True)
    after = unchanging_text(headline, dashboard)
    page.reload()
    dashboard.wait_until_idle()
    expect(page.get_by_role("slider", name="Rank of mlp.2")).to_have_value(str(old + 3))
    expect(headline).to_have_text(after, use_inner_text=True)


def test_tables_open_one_by_one_and_undo_is_one_click(sample, dashboard: Dashboard) -> None:
    page = dashboard.open(f"/Compress?{query(sample)}")
    expect(page.get_by_role("slider", name=re.compile("Rank of embedding"))).to_have_count(0)
    page.get_by_text(re.compile(r"Each of the \d+ tables")).click()
    tables = page.get_by_role("slider", name=re.compile("Rank of embedding"))
    expect(tables.first).to_be_visible()
    old = tables.first.input_value()
    page.get_by_role("slider", name="Rank of all tables").focus()
    page.keyboard.press("Home")
    expect(tables.first).to_have_value("1")
    page.get_by_role("button", name="Undo").click()
    expect(tables.first).to_have_value(old)


def test_the_plans_auc_is_measured_at_every_step_and_ranks_are_found_for_a_budget(sample, dashboard: Dashboard) -> None:
    page = dashboard.open(f"/Compress?{query(sample)}")
    figures = page.locator(".measured")
    expect(page.locator(".measured-note")).to_have_text(re.compile(r"on [\d,]+ validation rows"))
    before = figures.inner_text()
    page.get_by_role("slider", name="Rank of all MLP layers").focus()
    page.keyboard.press("Home")
    expect(figures).to_have_text(re.compile(r"AUC.*0\.\d{4}"))
    expect(figures).not_to_have_text(before, use_inner_text=True)

    page.get_by_text("Plan for a budget").click()
    page.get_by_role("button", name="Measure sensitivity").click()
    page.get_by_role("button", name="Find ranks").click()
    expect(page.locator(".st-key-planner .js-plotly-plot")).to_be_visible()
    expect(page.locator(".st-key-prediction .headline")).to_contain_text("3.0x")
    page.get_by_role("spinbutton", name="Number").fill("10")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Find ranks").click()
    expect(page.get_by_text("ask for that or more")).to_be_visible()

import re

from playwright.sync_api import Page, expect

from tests.support.browser import Dashboard


def query(sample: dict[str, str]) -> str:
    return "&".join(f"{key}={value}" for key, value in sample.items())


def figure(page: Page, name: str):
    """One of the figures of the plan."""
    return page.locator(".summary .figure", has=page.get_by_text(name, exact=True)).locator("b")


def test_a_slider_by_keys_moves_the_figures_and_the_plan_survives_a_reload(sample, dashboard: Dashboard) -> None:
    page = dashboard.open(f"/Compress?{query(sample)}")
    slider, parameters = page.get_by_role("slider", name="Rank of mlp.2"), figure(page, "parameters")
    before = parameters.inner_text()
    slider.focus()
    page.keyboard.press("Home")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    expect(slider).to_have_value("3")
    expect(parameters).not_to_have_text(before)
    after = parameters.inner_text()
    expect(page.get_by_role("button", name="Undo")).to_be_enabled()
    page.wait_for_url(re.compile("plan="))
    expect(page.get_by_role("button", name=f"Compress to {after} parameters")).to_be_visible()
    page.reload()
    expect(page.get_by_role("slider", name="Rank of mlp.2")).to_have_value("3")
    expect(parameters).to_have_text(after)


def test_tables_open_one_by_one_and_undo_right_after_a_move_undoes_it(sample, dashboard: Dashboard) -> None:
    page = dashboard.open(f"/Compress?{query(sample)}")
    tables = page.get_by_role("slider", name=re.compile("Rank of embedding"))
    expect(tables).to_have_count(0)
    page.get_by_text(re.compile(r"Each of the \d+ tables")).click()
    expect(tables.first).to_be_visible()
    old = tables.first.input_value()
    page.get_by_role("slider", name="Rank of all tables").focus()
    page.keyboard.press("Home")
    expect(tables.first).to_have_value("1")
    page.get_by_role("button", name="Undo").click()
    expect(tables.first).to_have_value(old)
    page.get_by_role("searchbox", name="Filter layers by name").fill("mlp.2")
    expect(page.get_by_role("slider", name="Rank of mlp.2")).to_be_visible()
    expect(tables).to_have_count(0)
    number = page.get_by_role("spinbutton", name="Rank of mlp.2, typed")
    number.fill("99999")
    page.keyboard.press("Enter")
    expect(page.get_by_text("A rank is 1 to")).to_be_visible()


def test_the_dial_moves_all_layers_and_the_auc_of_where_it_stops_is_measured(sample, dashboard: Dashboard) -> None:
    page = dashboard.open(f"/Compress?{query(sample)}")
    note = page.locator(".figure.auc small")
    expect(note).to_have_text(re.compile(r"on [\d,]+ validation rows"))
    before, dial = figure(page, "smaller").inner_text(), page.get_by_role("slider", name="Times smaller")
    measured = note.inner_text()
    dial.focus()
    page.keyboard.press("End")
    expect(figure(page, "smaller")).not_to_have_text(before)
    expect(dial).to_have_attribute("aria-valuetext", re.compile(r"\d+x smaller"))
    expect(note).not_to_have_text(measured)
    expect(note).to_have_text(re.compile(r"on [\d,]+ validation rows"))

    page.get_by_text("Plan for a budget").click()
    sensitivity = page.get_by_role("button", name="Measure sensitivity")
    find = page.get_by_role("button", name="Find ranks")
    expect(sensitivity.or_(find)).to_be_visible()
    if sensitivity.is_visible():
        sensitivity.click()
    find.click()
    expect(page.locator(".st-key-planner .js-plotly-plot")).to_be_visible()
    expect(figure(page, "smaller")).to_have_text("3.0x")
    expect(page.get_by_text("lose least AUC for their size")).to_be_visible()
    page.get_by_role("spinbutton", name="Number").fill("10")
    page.keyboard.press("Enter")
    find.click()
    expect(page.get_by_text("ask for that or more")).to_be_visible()

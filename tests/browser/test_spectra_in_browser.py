import re

from playwright.sync_api import expect

from tests.support.browser import Dashboard


def query(sample: dict[str, str]) -> str:
    return "&".join(f"{key}={value}" for key, value in sample.items())


def test_a_click_on_a_strip_of_the_map_and_a_key_choose_the_layer_and_a_reload_keeps_it(sample, dashboard: Dashboard) -> None:
    page = dashboard.open(f"/Spectra?{query(sample)}&layer=mlp.2")
    expect(page.get_by_text("variance of mlp.2 ")).to_be_visible()
    strip = page.locator(".st-key-layer-map .js-plotly-plot .trace.bars .point").first  # of the first linear layer
    strip.scroll_into_view_if_needed()
    box = strip.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.get_by_text("variance of mlp.0 ")).to_be_visible()
    expect(page).to_have_url(re.compile("layer=mlp.0"))
    dashboard.wait_until_idle()
    page.get_by_role("button", name="Next layer").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("variance of mlp.2 ")).to_be_visible()
    expect(page).to_have_url(re.compile("layer=mlp.2"))
    page.reload()
    expect(page.get_by_text("variance of mlp.2 ")).to_be_visible()


def test_charts_are_described_in_words_and_the_table_of_layers_downloads_as_csv(sample, dashboard: Dashboard) -> None:
    page = dashboard.open(f"/Spectra?{query(sample)}&layer=mlp.2")
    expect(page.get_by_role("figure", name=re.compile("99 % of the variance of mlp.2 lies in"))).to_have_count(1)
    with page.expect_download() as started:
        page.get_by_role("button", name="CSV", exact=True).click()
    lines = started.value.path().read_text().splitlines()
    assert started.value.suggested_filename.endswith("-spectra.csv")
    assert lines[0].startswith("layer,kind,shape,width") and any(line.startswith("mlp.2,linear") for line in lines)

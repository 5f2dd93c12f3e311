import re

import pytest
from playwright.sync_api import expect

from tests.support.browser import PAGES, Dashboard, Server

ERRORS = "[data-testid=stException], [data-testid=stAlertContentError]"


@pytest.mark.parametrize("path", PAGES)
def test_a_deep_link_is_a_fine_first_request_of_a_fresh_server(path: str, page, fresh_server: Server) -> None:
    dashboard = Dashboard(page, fresh_server)
    dashboard.open(path)
    expect(page.get_by_role("heading", level=1)).to_have_text(PAGES[path])
    expect(page.locator(ERRORS)).to_have_count(0)
    assert dashboard.complaints == []


@pytest.mark.parametrize(("scheme", "lightness"), [("light", range(240, 256)), ("dark", range(40))])
def test_the_page_follows_the_systems_light_or_dark(scheme: str, lightness: range, dashboard: Dashboard) -> None:
    dashboard.page.emulate_media(color_scheme=scheme)
    page = dashboard.open("/")
    color = page.locator("[data-testid=stApp]").evaluate("element => getComputedStyle(element).backgroundColor")
    assert all(int(channel) in lightness for channel in re.findall(r"\d+", color)[:3]), color


def test_the_sidebar_tells_the_story_in_order_and_leads_to_every_page(dashboard: Dashboard) -> None:
    page = dashboard.open("/")
    links = page.get_by_test_id("stSidebar").get_by_role("link")
    expect(links).to_have_count(len(PAGES))
    names = [re.sub(r"\d+ active", "", text).split("\n")[-1].strip() for text in links.all_inner_texts()]
    assert names == ["Home", "Data", "Model", "Spectra", "Compress", "Compare", "Jobs", "Learn"]
    for path, title in PAGES.items():
        links.nth(list(PAGES).index(path)).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(title)


def test_what_is_in_hand_survives_links_and_a_reload(sample, dashboard: Dashboard) -> None:
    page = dashboard.open(f"/Model?model={sample['model']}")
    strip = page.locator(".st-key-in-hand")
    expect(strip).to_contain_text("Sample ads")
    page.get_by_test_id("stSidebar").get_by_role("link", name="Data").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Data")
    expect(strip).to_contain_text("DeepFM on the sample")
    assert sample["model"] in page.url
    page.reload()
    expect(strip).to_contain_text("DeepFM on the sample")
    assert sample["dataset"] in page.url


def test_an_address_with_an_unknown_id_says_so_and_works_on(dashboard: Dashboard) -> None:
    page = dashboard.open("/Model?model=model-nowhere")
    expect(page.get_by_text("There is no model with the id model-nowhere here any more")).to_be_visible()
    assert "model-nowhere" not in page.url


def test_a_narrow_screen_needs_no_sideways_scrolling(sample, dashboard: Dashboard) -> None:
    dashboard.page.set_viewport_size({"width": 420, "height": 900})
    for path in PAGES:
        page = dashboard.open(f"{path}?dataset={sample['dataset']}&model={sample['model']}&spectra={sample['spectra']}")
        wide = page.get_by_test_id("stMain").evaluate("element => element.scrollWidth - element.clientWidth")
        wide = max(wide, page.evaluate("document.documentElement.scrollWidth") - 420)
        assert wide <= 1, f"{path} is {wide} px wider than the screen"


def test_the_server_shows_the_same_after_a_restart(sample, dashboard: Dashboard) -> None:
    dashboard.server.restart()
    page = dashboard.open(f"/Data?dataset={sample['dataset']}")
    expect(page.locator(".st-key-in-hand")).to_contain_text("Sample ads")

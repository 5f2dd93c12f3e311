import re

from playwright.sync_api import Page, expect

from tests.support.browser import PAGES, Dashboard, Server
from tests.support.workspaces import deepfm_workspace


def test_the_page_follows_the_systems_light_or_dark_and_the_sidebar_leads_to_every_page_in_order(dashboard: Dashboard) -> None:
    page = dashboard.open("/")
    for scheme, lightness in (("light", range(240, 256)), ("dark", range(40))):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(
            f"getComputedStyle(document.querySelector('[data-testid=stApp]')).colorScheme.includes('{scheme}')"
        )
        color = page.locator("[data-testid=stApp]").evaluate("element => getComputedStyle(element).backgroundColor")
        assert all(int(channel) in lightness for channel in re.findall(r"\d+", color)[:3]), (scheme, color)
    links = page.get_by_test_id("stSidebar").get_by_role("link")
    expect(links).to_have_count(len(PAGES))
    names = [re.sub(r"\d+ active", "", text).split("\n")[-1].strip() for text in links.all_inner_texts()]
    assert names == ["Home", "Data", "Model", "Spectra", "Compress", "Compare", "Jobs", "Storage", "Learn"]
    for path, title in PAGES.items():
        links.nth(list(PAGES).index(path)).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(title)


def test_the_header_is_one_low_line_at_every_width_and_switches_the_theme_in_place(sample, dashboard: Dashboard) -> None:
    page = dashboard.open(f"/Jobs?model={sample['model']}")
    for width in (1440, 420):
        page.set_viewport_size({"width": width, "height": 900})
        expect(page.get_by_role("button", name="Copy link")).to_be_visible()
        assert page.locator(".st-key-header").bounding_box()["height"] <= 48
    for scheme in ("dark", "light"):
        page.get_by_role("button", name="Switch between light and dark").click()
        page.wait_for_function(
            f"getComputedStyle(document.querySelector('[data-testid=stApp]')).colorScheme.includes('{scheme}')"
        )


def test_the_selection_survives_links_and_a_reload(sample, dashboard: Dashboard) -> None:
    page = dashboard.open(f"/Model?model={sample['model']}")
    strip = page.locator(".st-key-selected")
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
    expect(page.get_by_text("The model model-nowhere does not exist any more")).to_be_visible()
    assert "model-nowhere" not in page.url


def test_a_deep_link_shows_the_same_after_a_restart(page: Page, fresh_server: Server) -> None:
    ids = deepfm_workspace(fresh_server.home)
    dashboard = Dashboard(page, fresh_server)
    for start in (lambda: None, fresh_server.restart):
        start()
        dashboard.open(f"/Data?dataset={ids['dataset']}")
        expect(page.get_by_role("heading", level=1)).to_have_text("Data")
        expect(page.locator(".st-key-selected")).to_contain_text("Synthetic clicks")

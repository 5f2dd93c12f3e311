import pytest
from playwright.sync_api import expect

from tests.support.axe import violations_light_and_dark
from tests.support.browser import ERRORS, PAGES, Dashboard

#: With the page's main element and the whole document at most as wide as the screen.
_FITS = """() => {
    const main = document.querySelector('[data-testid=stMain]');
    return Math.max(main.scrollWidth - main.clientWidth, document.documentElement.scrollWidth - innerWidth) <= 1;
}"""


# The Compare page is looked at in test_compare_in_browser, once it has numbers to show.
@pytest.mark.parametrize("path", [path for path in PAGES if path != "/Compare"])
def test_axe_finds_nothing_serious_with_the_sample_light_and_dark_and_a_narrow_screen_does_not_scroll_sideways(
    path: str, sample, dashboard: Dashboard
) -> None:
    page = dashboard.open(f"{path}?dataset={sample['dataset']}&model={sample['model']}&spectra={sample['spectra']}")
    expect(page.get_by_role("heading", level=1)).to_have_text(PAGES[path])
    expect(page.locator(ERRORS)).to_have_count(0)
    assert violations_light_and_dark(page) == []
    page.set_viewport_size({"width": 420, "height": 900})
    page.wait_for_function(_FITS)

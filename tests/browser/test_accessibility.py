from collections.abc import Iterator

import pytest

from tests.support.axe import violations
from tests.support.browser import PAGES, Dashboard, Server, running_server


@pytest.fixture(scope="module")
def empty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a home that stays empty: its tests only look."""
    yield from running_server(tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing_serious_on_an_empty_page_light_and_dark(path: str, page, empty_server: Server) -> None:
    Dashboard(page, empty_server).open(path)
    assert violations_light_and_dark(page) == []


@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing_serious_with_the_sample_in_hand_light_and_dark(path: str, sample, dashboard: Dashboard) -> None:
    dashboard.open(f"{path}?dataset={sample['dataset']}&model={sample['model']}&spectra={sample['spectra']}")
    assert violations_light_and_dark(dashboard.page) == []


def violations_light_and_dark(page) -> list[str]:
    """Of an open page, which follows the system's scheme as it changes."""
    found = violations(page)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("getComputedStyle(document.querySelector('[data-testid=stApp]')).colorScheme.includes('dark')")
    return found + violations(page)

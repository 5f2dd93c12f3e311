from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import PAGES, Dashboard, Server, running_server

#: Nothing runs, loads or fades, and has not for 300 ms: a chart that comes last says that it loads only once it is there. Fading
#: text has less contrast than it comes to have; what moves for ever, such as a spinner, is not waited for.
_AT_REST = """() => {
    const moves = one => one.playState === 'running' && one.effect.getComputedTiming().endTime !== Infinity;
    const busy = document.querySelector('[data-stale=true], [aria-busy=true]') !== null
        || document.querySelector('[data-test-script-state=running]') !== null || document.getAnimations().some(moves);
    if (busy || window.restingSince === undefined) window.restingSince = performance.now();
    return !busy && performance.now() - window.restingSince > 300;
}"""


@pytest.fixture(scope="module")
def empty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a home that stays empty: its tests only look."""
    yield from running_server(tmp_path_factory.mktemp("empty"))


def violations(page) -> list[str]:
    """Serious and critical findings of axe, one line each, that are still found when it looks again."""
    for _ in range(3):
        page.evaluate("window.restingSince = undefined")
        page.wait_for_function(_AT_REST)
        found = Axe().run(page).response["violations"]
        grave = [violation for violation in found if violation["impact"] in ("serious", "critical")]
        if not grave:  # else, on a busy machine, a diagram may have begun to load after all
            break
    return [f"{violation['id']}: {node['target']} {node['html'][:160]}" for violation in grave for node in violation["nodes"]]


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

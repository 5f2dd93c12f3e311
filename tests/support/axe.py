"""Accessibility faults that axe finds on an open page."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

#: Nothing has run, loaded or faded for 300 ms. The pause is needed because a chart that loads last shows its loading state only
#: after the rest is done; fading text has too little contrast. Endless animations, such as spinners, are not waited for.
_AT_REST = """() => {
    const moves = one => one.playState === 'running' && one.effect.getComputedTiming().endTime !== Infinity;
    const busy = document.querySelector('[data-stale=true], [aria-busy=true]') !== null
        || document.querySelector('[data-test-script-state=running]') !== null || document.getAnimations().some(moves);
    if (busy || window.restingSince === undefined) window.restingSince = performance.now();
    return !busy && performance.now() - window.restingSince > 300;
}"""


def violations(page) -> list[str]:
    """Serious and critical findings of axe, one line each, that a second and a third run find too."""
    for _ in range(3):
        expect(page.get_by_test_id("stToast")).to_have_count(0)  # Streamlit's toasts have no name, and go after some seconds
        page.evaluate("window.restingSince = undefined")
        page.wait_for_function(_AT_REST)
        found = Axe().run(page).response["violations"]
        grave = [violation for violation in found if violation["impact"] in ("serious", "critical")]
        if not grave:  # otherwise a diagram may have begun to load late, on a busy machine
            break
    return [f"{violation['id']}: {node['target']} {node['html'][:160]}" for violation in grave for node in violation["nodes"]]


def violations_light_and_dark(page) -> list[str]:
    """Findings in both colour schemes of an open page, which follows the system's scheme without a reload."""
    page.emulate_media(color_scheme="light")
    found = violations(page)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("getComputedStyle(document.querySelector('[data-testid=stApp]')).colorScheme.includes('dark')")
    return found + violations(page)

"""Accessibility faults that axe finds on an open page."""

from axe_playwright_python.sync_playwright import Axe

#: Nothing runs, loads or fades, and has not for 300 ms: a chart that comes last says that it loads only once it is there. Fading
#: text has less contrast than it comes to have; what moves for ever, such as a spinner, is not waited for.
_AT_REST = """() => {
    const moves = one => one.playState === 'running' && one.effect.getComputedTiming().endTime !== Infinity;
    const busy = document.querySelector('[data-stale=true], [aria-busy=true]') !== null
        || document.querySelector('[data-test-script-state=running]') !== null || document.getAnimations().some(moves);
    if (busy || window.restingSince === undefined) window.restingSince = performance.now();
    return !busy && performance.now() - window.restingSince > 300;
}"""


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

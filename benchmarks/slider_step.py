"""Server time of one slider step on the Compress page: 26 tables and 4 MLP layers, a real server, a real browser.

    python benchmarks/slider_step.py [--steps 40]

The server process is the dashboard's own, with a stopwatch around Streamlit's script run; the process that measures plans is
replaced by a stub (benchmarks/preview.py measures it). Measured with the 26 table rows folded away and with all of them open.
Also reported: the time until the server's answer is shown, which includes the pause after a key, and whether the server process
has loaded torch or scikit-learn (it must not). Then a slider is dragged, and the frames in which the figures changed are counted.
Ends with status 1 when the median is 50 ms or more, or fewer than 30 frames a second follow the drag.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from common import PROJECT, markdown_table, write_json

from ctrlab.evaluation.delong import Interval
from ctrlab.services.previews import Preview

BUDGET_MS = 50.0
LEAST_FRAMES = 30.0
_TIMINGS, _PORT = "CTRLAB_BENCHMARK_TIMINGS", "CTRLAB_BENCHMARK_PORT"


def serve() -> None:
    """The dashboard, with every script run's time and the heavy modules it has loaded appended to a file."""
    from streamlit.runtime.scriptrunner.script_runner import ScriptRunner
    from streamlit.web import bootstrap

    from ctrlab.services import previews

    run_script = ScriptRunner._run_script

    def timed(self: ScriptRunner, rerun_data: object) -> None:
        start, start_cpu = time.perf_counter(), time.thread_time()
        run_script(self, rerun_data)
        row = {
            "ms": 1e3 * (time.perf_counter() - start),
            "cpu_ms": 1e3 * (time.thread_time() - start_cpu),
            "fragment": bool(getattr(rerun_data, "fragment_id_queue", None) or getattr(rerun_data, "fragment_id", None)),
            "heavy": [name for name in ("torch", "sklearn") if name in sys.modules],
        }
        with Path(os.environ[_TIMINGS]).open("a") as file:
            file.write(json.dumps(row) + "\n")

    ScriptRunner._run_script = timed  # type: ignore[method-assign]
    previews.preview_process = lambda workspace: _AtOnce()  # type: ignore[assignment, return-value]
    os.chdir(PROJECT)
    options = {"server.port": int(os.environ[_PORT]), "server.headless": True}
    bootstrap.load_config_options(options)
    bootstrap.run(str(PROJECT / "app.py"), False, [], options)


class _AtOnce:
    """Stub of the preview process that answers immediately."""

    def ask(self, request: object, asker: str) -> "Future[Preview]":
        nothing = Interval(0.0, 0.0, 0.0, 0.0, 0.95)
        answer: Future[Preview] = Future()
        answer.set_result(
            Preview(num_rows=1, auc=nothing, auc_change=nothing, log_loss=0.5, log_loss_change=nothing, original_auc=0.7,
                    original_log_loss=0.5, seconds=0.0)
        )  # fmt: skip
        return answer


def measure(folder: Path, steps: int) -> tuple[dict[str, list[dict[str, Any]]], float]:
    """Drive the sliders; per layout one row a step: server ms, and ms until the page shows the answer. And frames a second."""
    sys.path.insert(0, str(PROJECT))
    from tests.support.workspaces import deepfm_workspace

    ids = deepfm_workspace(folder / "home", num_tables=26, mlp_dims=(400, 400, 400, 400))
    timings, port = folder / "timings.jsonl", _free_port()
    environment = os.environ | {"CTRLAB_HOME": str(folder / "home"), _TIMINGS: str(timings), _PORT: str(port)}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, __file__, "--serve"], env=environment, stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/_stcore/health")
        return _drive(f"http://127.0.0.1:{port}/Compress?model={ids['model']}", timings, steps)
    finally:
        server.terminate()
        server.wait(10)


def _drive(address: str, timings: Path, steps: int) -> tuple[dict[str, list[dict[str, Any]]], float]:
    from playwright.sync_api import sync_playwright

    chromium = next((path for path in ("/usr/bin/chromium", "/usr/bin/google-chrome") if Path(path).exists()), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.goto(address)
        page.get_by_role("slider", name="Rank of mlp.2").wait_for()
        results = {"26 tables folded": _steps(page, "Rank of mlp.2", timings, steps)}
        page.get_by_text("Each of the 26 tables").click()
        page.get_by_role("slider", name="Rank of embedding.C26").wait_for()
        results["26 tables open"] = _steps(page, "Rank of mlp.4", timings, steps)
        frames = _drag(page)
        browser.close()
    return results, frames


#: The times of the frames in which the number of parameters changed.
_COUNT = """() => {
    const root = document.querySelector("[data-testid=stBidiComponentIsolated]").shadowRoot;
    const reading = root.querySelectorAll(".figure b")[1];
    const seen = [];
    let last = reading.textContent;
    const frame = now => {
        if (reading.textContent !== last) { seen.push(now); last = reading.textContent; }
        requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    window.framesSeen = seen;
}"""


def _drag(page: Any) -> float:
    """Changes a second of the number of parameters while a pointer drags a slider to and fro, a step a frame."""
    box = page.get_by_role("slider", name="Rank of mlp.4").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.evaluate(_COUNT)
    page.mouse.move(box["x"] + 8, middle)
    page.mouse.down()
    for step in range(240):
        page.mouse.move(box["x"] + 8 + abs(step % 160 - 80) / 80 * (box["width"] / 3), middle)
    page.mouse.up()
    seen = page.evaluate("window.framesSeen")
    return (len(seen) - 1) / (seen[-1] - seen[0]) * 1e3


def _steps(page: object, name: str, timings: Path, steps: int) -> list[dict[str, float]]:
    page.wait_for_timeout(1500)  # type: ignore[attr-defined]
    slider = page.get_by_role("slider", name=name)  # type: ignore[attr-defined]
    slider.focus()
    rows = []
    for number in range(steps + 3):
        before, seen = _headline(page), len(_read(timings))
        start = time.perf_counter()
        page.keyboard.press("ArrowRight")  # type: ignore[attr-defined]
        while _headline(page) == before:
            time.sleep(0.002)
        shown = 1e3 * (time.perf_counter() - start)
        page.wait_for_timeout(250)  # type: ignore[attr-defined]
        new = _read(timings)[seen:]
        assert len(new) == 1 and new[0]["fragment"], f"one slider step must run one fragment once, got {new}"
        if number >= 3:  # the first steps warm caches
            rows.append(
                {"server_ms": new[0]["ms"], "server_cpu_ms": new[0]["cpu_ms"], "shown_ms": shown, "heavy": new[0]["heavy"]}
            )
    return rows


def _headline(page: object) -> str:
    return str(page.locator(".st-key-run-compress").first.inner_text())  # type: ignore[attr-defined]


def _read(timings: Path) -> list[dict]:
    return [json.loads(line) for line in timings.read_text().splitlines()]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(address: str) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(address, timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server did not start within 30 s")


def _summary(rows: list[dict]) -> dict[str, Any]:
    server = sorted(row["server_ms"] for row in rows)
    return {
        "steps": len(rows),
        "server_median_ms": statistics.median(server),
        "server_p95_ms": server[int(0.95 * (len(server) - 1))],
        "server_cpu_median_ms": statistics.median(row["server_cpu_ms"] for row in rows),
        "shown_median_ms": statistics.median(row["shown_ms"] for row in rows),
        "heavy_modules": sorted({name for row in rows for name in row["heavy"]}),
    }


def _written(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Measure, print and write; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    with tempfile.TemporaryDirectory() as folder:
        results, frames = measure(Path(folder), arguments.steps)
    summary = {layout: _summary(rows) for layout, rows in results.items()}
    titles = {
        "steps": "steps", "server_median_ms": "server median, ms", "server_p95_ms": "server p95, ms",
        "server_cpu_median_ms": "of it on the processor, ms", "shown_median_ms": "until shown, ms",
        "heavy_modules": "torch or sklearn loaded",
    }  # fmt: skip
    rows = [[layout, *(_written(facts[key]) for key in titles)] for layout, facts in summary.items()]
    print(markdown_table(["layout", *titles.values()], rows))
    print(f"\nfigures follow a drag with {frames:.0f} frames a second\n")
    print(f"written to {write_json('slider_step', {**summary, 'frames_a_second': frames}).relative_to(PROJECT)}")
    slow = max(facts["server_median_ms"] for facts in summary.values())
    if slow >= BUDGET_MS or any(facts["heavy_modules"] for facts in summary.values()):
        raise SystemExit(f"over budget: median {slow:.1f} ms, allowed {BUDGET_MS:.0f} ms without torch or scikit-learn")
    if frames < LEAST_FRAMES:
        raise SystemExit(f"too slow: {frames:.0f} frames a second while dragging, at least {LEAST_FRAMES:.0f} are wanted")


if __name__ == "__main__":
    main()

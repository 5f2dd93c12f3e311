"""Takes the screenshots of the README: starts a dashboard with an empty home folder and walks through the sample.

make screenshots
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

PROJECT = Path(__file__).parents[1]
IMAGES = PROJECT / "docs" / "images"


def main() -> None:
    """Start the dashboard, open each page and save a screenshot of it."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ctrlab-pictures-") as home:
        port = free_port()
        environment = {**os.environ, "CTRLAB_HOME": home}
        command = [sys.executable, "-m", "ctrlab", "serve", "--port", str(port)]
        server = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL)
        try:
            wait_until_up(port)
            walk(f"http://127.0.0.1:{port}")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)
            stop_workers(home)


def walk(address: str) -> None:
    """Home, spectra and sensitivity of the sample, a plan, a compression, the comparison."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page(viewport={"width": 1360, "height": 900}, device_scale_factor=1.5)
        page.set_default_timeout(180_000)
        page.goto(address)
        page.get_by_role("button", name="Try the sample").wait_for()
        picture(page, "home")
        page.get_by_role("button", name="Try the sample").click()
        page.wait_for_url("**/Spectra?*")
        page.get_by_text("AUC lost by this layer alone").wait_for()
        page.locator(".js-plotly-plot").nth(4).wait_for()
        picture(page, "spectra")
        page.get_by_role("link", name="Data", exact=True).click()
        page.get_by_test_id("stMetric").nth(3).wait_for()
        picture(page, "data")
        page.get_by_role("link", name="Model", exact=True).click()
        page.locator(".st-key-model-map-box .js-plotly-plot").wait_for()
        picture(page, "model")
        page.get_by_role("link", name="Spectra", exact=True).click()
        page.get_by_role("link", name="Choose ranks").click()
        run = page.get_by_role("button", name=re.compile("^Compress to .* parameters"))
        run.wait_for()
        measured(page)
        picture(page, "compress")
        page.get_by_text("Plan for a budget").click()
        page.get_by_role("button", name="Find ranks").click()
        page.locator(".st-key-planner .js-plotly-plot").wait_for()
        measured(page)
        picture(page, "planner")
        page.get_by_text("Plan for a budget").click()
        run.click()
        page.get_by_role("progressbar").wait_for()
        time.sleep(4)
        picture(page, "running")
        page.get_by_role("link", name="Compare with the original").click()
        page.get_by_role("region", name="The chosen model").wait_for()
        picture(page, "compare")
        browser.close()


def measured(page: Page) -> None:
    """Wait until the AUC of the plan is measured."""
    page.locator(".editor .summary").get_by_text(re.compile(r"on [\d,]+ validation rows")).wait_for()


def picture(page: Page, name: str) -> None:
    """Save a screenshot of the window after a pause for drawing."""
    page.mouse.move(2, 2)  # no hover effect
    time.sleep(2.5)
    page.screenshot(path=IMAGES / f"{name}.png")
    print(f"docs/images/{name}.png")


def free_port() -> int:
    """A free TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(port: int) -> None:
    """Wait until the dashboard answers."""
    for _ in range(1200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).read()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the dashboard did not start")


def chromium() -> str:
    """The system's Chromium."""
    return next(path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name)))


def stop_workers(home: str) -> None:
    """End the worker that the dashboard started in `home`."""
    from ctrlab.services.jobs import worker_state
    from ctrlab.services.workspace import open_workspace

    state = worker_state(open_workspace(home))
    if state.pid:
        os.kill(state.pid, signal.SIGTERM)
        time.sleep(3)


if __name__ == "__main__":
    main()

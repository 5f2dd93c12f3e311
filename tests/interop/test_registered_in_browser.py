"""Models trained by FuxiCTR and DeepCTR-Torch in the pages: spectra, sliders with measured AUC, a job, the comparison, the export."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fuxictr", reason="FuxiCTR is not installed here; `make interop` runs these tests")
pytest.importorskip("deepctr_torch", reason="DeepCTR-Torch is not installed here; `make interop` runs these tests")
pytest.importorskip("playwright", reason="Playwright is not installed here; `make interop` has it")

from playwright.sync_api import expect, sync_playwright

import ctrlab
from ctrlab.interop import deepctr_torch, fuxictr
from ctrlab.services.export import export_model
from tests.interop.test_deepctr_torch_models import clicks, dcn
from tests.interop.test_fuxictr_models import batches, deepfm
from tests.support.browser import ERRORS, Dashboard, launch_settings, running_server

ROOT = Path(__file__).parents[2]
#: What somebody with these frameworks writes: train, and return the model with the rows that measure it.
MAKER = """
import sys
from pathlib import Path

sys.path += [{root!r}, {benchmarks!r}]
from ctrlab.interop import deepctr_torch, fuxictr
from tests.interop.test_deepctr_torch_models import clicks, dcn
from tests.interop.test_fuxictr_models import batches, deepfm


def make_fuxictr():
    loader, model = batches(), deepfm(Path({folder!r}), learning_rate=1e-2)
    model.fit(loader, epochs=3, validation_data=loader)
    return fuxictr.outside_model(model, loader)


def make_deepctr():
    (x, y), model = clicks(), dcn()
    model.fit(x, y, batch_size=100, epochs=4, verbose=0)
    return deepctr_torch.outside_model(model, x, y)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("their models")
    maker = MAKER.format(root=str(ROOT), benchmarks=str(ROOT / "benchmarks"), folder=str(folder))
    (folder / "theirs.py").write_text(maker)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        patch.setenv("PYTHONPATH", str(ROOT))
        for name in ("make_fuxictr", "make_deepctr"):
            words = [sys.executable, "-m", "ctrlab", "register", f"theirs:{name}", "--name", name, "--home", str(folder / "home")]
            subprocess.run(words, cwd=folder, check=True, capture_output=True)
        with running_server(folder / "home") as server:
            yield server


@pytest.fixture(scope="module")
def context():
    with sync_playwright() as started:
        browser = started.chromium.launch(**launch_settings())
        yield browser.new_context(viewport={"width": 1440, "height": 1000})
        browser.close()


@pytest.mark.parametrize("name", ["make_fuxictr", "make_deepctr"])
def test_a_framework_model_is_seen_ranked_compressed_compared_and_evaluated_by_its_own_code(context, server, name, tmp_path):
    page = context.new_page()
    dashboard = Dashboard(page, server)
    lab = ctrlab.Lab(server.home)
    (model,) = [found for found in lab.workspace.store.artifacts.list(kind="model") if found.name == name]

    dashboard.open(f"/Spectra?model={model.id}")
    expect(page.get_by_text("All layers, direction by direction")).to_be_visible()
    page.get_by_role("link", name="Choose ranks").click()
    expect(page.get_by_text("AUC now")).to_be_visible()
    expect(page.get_by_text(re.compile("validation rows"))).to_be_visible(timeout=120_000)
    slider = page.get_by_role("slider", name=re.compile("Rank of (mlp|dnn)")).last
    slider.focus()
    for _ in range(8):
        page.keyboard.press("ArrowLeft")
    page.wait_for_url(re.compile("plan="))
    expect(page.get_by_text(re.compile("validation rows"))).to_be_visible(timeout=60_000)
    page.get_by_role("button", name=re.compile("^Compress to")).click()
    expect(page.get_by_text(re.compile("is ready: .* AUC"))).to_be_visible(timeout=180_000)
    page.get_by_role("link", name="Compare with the original").click()
    expect(page.get_by_text(re.compile("Against make_"))).to_be_visible()
    expect(page.locator(ERRORS)).to_have_count(0)
    assert dashboard.complaints == []

    (smaller,) = lab.workspace.store.artifacts.list(kind="model", parent=model.id)
    export_model(lab.workspace, smaller.id, tmp_path / "out")
    measured = lab.compare([smaller.id])["auc"].iloc[0]
    path = tmp_path / "out" / "model.safetensors"
    if name == "make_fuxictr":
        found = fuxictr.restore(deepfm(tmp_path), path).evaluate(batches()[-2:])["AUC"]
    else:
        x, y = clicks()
        found = deepctr_torch.restore(dcn(), path).evaluate({key: column[900:] for key, column in x.items()}, y[900:])["auc"]
    assert measured == pytest.approx(found, abs=1e-4)

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from ctrlab.services.spectra import SpectraConfig
from ctrlab.services.workspace import open_workspace
from ctrlab.ui import cache
from ctrlab.ui.components.layers import layer_table
from tests.support.patience import PATIENCE
from tests.support.workspaces import deepfm_workspace

APP = Path(__file__).parents[2] / "app.py"


@pytest.fixture
def ids(tmp_path, monkeypatch) -> dict[str, str]:
    monkeypatch.setenv("CTRLAB_HOME", str(tmp_path))
    monkeypatch.setattr("ctrlab.services.jobs.ensure_worker", lambda *_: None)
    return deepfm_workspace(tmp_path, num_tables=3, mlp_dims=(40, 40))


def open_page(**query: str) -> AppTest:
    page = AppTest.from_file(str(APP), default_timeout=PATIENCE)
    for key, value in query.items():
        page.query_params[key] = value
    page.switch_page("pages/Spectra.py").run()
    assert not page.exception
    return page


def captions(page: AppTest) -> str:
    return " ".join(caption.value for caption in page.caption)


def test_without_spectra_one_action_computes_them(ids, tmp_path):
    open_workspace(tmp_path).store.artifacts.delete(ids["spectra"])
    page = open_page(model=ids["model"])
    page.button(key="run-spectra").click().run()
    (job,) = open_workspace(tmp_path).store.jobs.list(5)
    assert SpectraConfig.from_dict(job.config).model_id == ids["model"]
    assert page.button(key="run-spectra").disabled and page.query_params["job"] == job.id


def test_a_second_browser_sees_the_running_job_without_its_link(ids, tmp_path):
    workspace = open_workspace(tmp_path)
    workspace.store.artifacts.delete(ids["spectra"])
    open_page(model=ids["model"]).button(key="run-spectra").click().run()
    assert open_page(model=ids["model"]).button(key="run-spectra").disabled


def test_the_layer_in_the_link_is_shown_with_its_numbers(ids):
    page = open_page(model=ids["model"], layer="embedding.C2")
    assert page.selectbox(key="layer-box-embedding.C2").value == "embedding.C2"
    assert "variance of embedding.C2 lies in 4 of 16 directions" in captions(page)


def test_an_unknown_layer_in_the_link_falls_back_to_one_that_is_there(ids):
    page = open_page(model=ids["model"], layer="nonsense")
    assert page.query_params["layer"] == "mlp.2"


def test_choosing_a_layer_changes_charts_sentence_and_address(ids):
    page = open_page(model=ids["model"])
    page.selectbox(key="layer-box-mlp.2").set_value("mlp.0").run()
    assert page.query_params["layer"] == "mlp.0" and "variance of mlp.0 lies in" in captions(page)
    page.button(key="next-layer").click().run()
    assert page.query_params["layer"] == "mlp.2" and "variance of mlp.2 lies in" in captions(page)


def test_the_table_lists_linear_layers_before_tables_with_their_ranks(ids):
    table = layer_table(cache.workspace(), ids["model"], ids["spectra"]).set_index("layer")
    assert list(table.index) == ["mlp.0", "mlp.2", "embedding.C1", "embedding.C2", "embedding.C3"]
    assert table.loc["mlp.2", ["k90", "k95", "k99", "break_even"]].tolist() == [
        2,
        3,
        4,
        20,
    ]  # 0.3, 0.09, 0.027, ... of the variance


def test_no_selected_model_says_what_to_do_first(tmp_path, monkeypatch):
    monkeypatch.setenv("CTRLAB_HOME", str(tmp_path))
    monkeypatch.setattr("ctrlab.services.jobs.ensure_worker", lambda *_: None)
    assert any("No model selected" in text.value for text in open_page().markdown)

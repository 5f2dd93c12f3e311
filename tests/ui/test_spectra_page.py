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


def test_without_any_model_the_page_leads_to_a_first_one(tmp_path, monkeypatch):
    monkeypatch.setenv("CTRLAB_HOME", str(tmp_path))
    monkeypatch.setattr("ctrlab.services.jobs.ensure_worker", lambda *_: None)
    assert any("No model yet" in text.value for text in open_page().markdown)


def test_without_a_selected_model_one_is_chosen_on_the_page(ids):
    page = open_page()
    page.selectbox(key="pick-model").set_value(ids["model"]).run()
    assert page.query_params["model"] == ids["model"] and "variance of mlp.2 lies in" in captions(page)


def test_the_answer_comes_first_with_size_strongest_layer_and_the_way_on(ids):
    page = open_page(model=ids["model"])
    assert page.subheader[0].value == "95 % of the variance fits in 26 % of the directions"
    text = " ".join(markdown.value for markdown in page.markdown)
    assert "smaller is plausible" in text and "Strongest: mlp.0, 3 of 40." in text
    assert any("Choose ranks" in str(element.proto) for element in page.main)


def test_sensitivity_is_measured_by_itself_and_once_however_it_ended(ids, tmp_path):
    open_page(model=ids["model"])
    jobs = open_workspace(tmp_path).store.jobs
    (job,) = jobs.list(5)
    assert (job.kind, job.config["spectra_id"]) == ("sensitivity", ids["spectra"])
    jobs.request_cancel(job.id)
    assert not open_page(model=ids["model"]).button(key="run-sensitivity").disabled
    assert len(jobs.list(5)) == 1


def test_many_layers_are_filtered_ordered_and_found_again_by_the_address(tmp_path, monkeypatch):
    monkeypatch.setenv("CTRLAB_HOME", str(tmp_path))
    monkeypatch.setattr("ctrlab.services.jobs.ensure_worker", lambda *_: None)
    many = deepfm_workspace(tmp_path, num_tables=60, mlp_dims=(8, 8))
    page = open_page(model=many["model"])
    page.text_input(key="layer-filter").set_value("C5").run()
    page.selectbox(key="layer-order").set_value("least").run()
    page.selectbox(key="layer-kind").set_value("embedding").run()
    assert "11 of 62 layers." in captions(page)
    address = {key: page.query_params[key] for key in ("show", "order", "kind")}
    assert address == {"show": "C5", "order": "least", "kind": "embedding"}
    assert "11 of 62 layers." in captions(open_page(model=many["model"], **address))

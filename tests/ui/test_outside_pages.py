"""The pages of models trained elsewhere: what they show, and the sentence in place of what they do not."""

import importlib
import shutil
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

import ctrlab
from ctrlab.services import outside
from ctrlab.services.compression import CompressJobConfig
from ctrlab.services.previews import prepare
from ctrlab.services.workspace import open_workspace
from tests.support.outside_models import MAKER


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """(home, ids): a model with a factory and labels, one of a Python process, compressed, and a file of weights."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "their_model.py").write_text(MAKER)
    save_file({"mlp.0.weight": np.random.default_rng(0).normal(size=(6, 10)).astype("float32")}, str(folder / "bare.safetensors"))
    with pytest.MonkeyPatch.context() as patch, ctrlab.Lab(folder / "home") as lab:
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        factory = lab.register_factory("their_model:make", name="Theirs")
        theirs = importlib.import_module("their_model")
        process = lab.register(theirs.trained(), theirs.rows()[0], name="In Python", evaluate=lambda module: 0.75)
        ranks = {"site": 3, "ad": 4, "mlp.2": 5}
        made = {"factory": factory, "smaller": lab.compress(factory.id, ranks=ranks),
                "process": process, "process_smaller": lab.compress(process.id, ranks=ranks),
                "weights": lab.read_weights(folder / "bare.safetensors")}  # fmt: skip
    sys.modules.pop("their_model", None)
    return folder / "home", {name: model.id for name, model in made.items()}


@pytest.fixture
def ids(filled, workspace, monkeypatch):
    """The home that the pages use is a copy of the filled one; this process holds no module, as the dashboard's does not."""
    home, ids = filled
    workspace.store.close()
    shutil.rmtree(workspace.home)
    shutil.copytree(home, workspace.home)
    monkeypatch.setattr(outside, "_held", {})
    return ids


def words(page) -> str:
    """All texts of a page."""
    kinds = (page.markdown, page.caption, page.info, page.warning, page.subheader)
    return " ".join(element.value for kind in kinds for element in kind)


PAGES = ("Home", "Data", "Model", "Spectra", "Compress", "Compare", "Storage")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("model", ["factory", "smaller", "process", "weights"])
def test_every_page_opens_with_a_model_from_outside(open_page, ids, name, model):
    opened = open_page(name, model=ids[model])
    assert not opened.exception and not opened.error


def test_a_model_without_a_dataset_deselects_the_dataset_before(open_page, ids, workspace):
    page = open_page("Model", model=ids["factory"])
    assert "dataset" not in page.query_params


def test_compress_measures_the_plan_and_queues_a_job_with_settings_that_are_allowed(open_page, ids, workspace, measured):
    page = open_page("Compress", model=ids["factory"])
    assert measured[-1].model_id == ids["factory"]
    assert "its data flow is not known" in words(page) and "trained outside ctrlab" in words(page)
    page.button(key="preset-paper-criteo").click().run()
    page.button(key="run-compress").click().run()
    (job,) = [job for job in open_workspace(workspace.home).store.jobs.list() if job.active and job.kind == "compress"]
    config = CompressJobConfig.from_dict(job.config).compress
    assert (config.method, config.precision, config.finetune) == ("afm", "float32", None)


def test_a_module_of_a_python_process_shows_costs_and_says_why_it_is_not_measured(open_page, ids, measured):
    page = open_page("Compress", model=ids["process"])
    assert measured == []
    assert page.button(key="run-compress").disabled
    assert "Only the Python process that registered this model" in words(page)


def test_a_file_of_weights_says_what_its_spectra_are_of_and_what_is_missing(open_page, ids):
    page = open_page("Spectra", model=ids["weights"])
    assert "Of the weights alone" in words(page)
    assert "holds weights and no architecture" in words(page)


def test_the_model_page_lists_what_is_not_offered_and_every_matrix_that_is_not_compressed(open_page, ids):
    page = open_page("Model", model=ids["factory"])
    text = words(page)
    assert "**Fine-tuning.** This model was trained outside ctrlab" in text
    assert "`scale`: raw parameter of TheirModel" in text and "`mlp.4`: one output unit" in text


def test_compare_holds_the_family_alone_and_offers_no_timing(open_page, ids):
    page = open_page("Compare", model=ids["factory"])
    assert set(page.multiselect(key="compare:None").value) == {ids["factory"], ids["smaller"]}
    assert page.button(key="time-again").disabled


def test_nothing_starts_to_measure_where_nothing_can_be_measured(ids, workspace, monkeypatch):
    monkeypatch.setattr("ctrlab.services.previews.preview_process", lambda workspace: pytest.fail("a process was started"))
    prepare(open_workspace(workspace.home), ids["weights"], "unused")

import json
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from ctrlab.plans.configs import CompressConfig, RankPlan
from ctrlab.services.annotations import annotate
from ctrlab.services.bundles import BundleConfig
from ctrlab.services.comparison import EvaluateConfig
from ctrlab.services.compression import CompressJobConfig
from ctrlab.services.controls import finetune_key, submit_with_controls
from ctrlab.services.workspace import open_workspace
from ctrlab.storage import NewArtifact
from ctrlab.training.configs import FINETUNE
from tests.support.compress_page import open_compress
from tests.support.patience import PATIENCE
from tests.support.workspaces import add_compressed, add_evaluation, deepfm_workspace

APP = Path(__file__).parents[2] / "app.py"


@pytest.fixture
def ids(tmp_path, monkeypatch) -> dict[str, str]:
    monkeypatch.setenv("CTRLAB_HOME", str(tmp_path))
    monkeypatch.setattr("ctrlab.services.jobs.ensure_worker", lambda *_: None)
    ids = deepfm_workspace(tmp_path, num_tables=3, mlp_dims=(40, 40))
    workspace = open_workspace(tmp_path)
    ids["compressed"] = add_compressed(workspace, ids).id
    add_evaluation(workspace, ids["model"], auc=0.7629)
    return ids


def open_page(**query: str) -> AppTest:
    page = AppTest.from_file(str(APP), default_timeout=PATIENCE)
    for key, value in query.items():
        page.query_params[key] = value
    page.switch_page("pages/Compare.py").run()
    assert not page.exception
    return page


def html(page: AppTest) -> str:
    return " ".join(element.proto.body for element in page.get("html"))


def shown(page: AppTest) -> dict[str, Any]:
    """What the browser gets to draw the comparison from; rows by id."""
    (element,) = page.get("bidi_component")
    data = json.loads(element.proto.json)
    return data | {"rows": {row["id"]: row for row in data["rows"]}}


def texts(page: AppTest) -> str:
    return " ".join(text.value for text in page.markdown)


def test_the_original_and_its_compressed_models_are_the_default(ids):
    page = open_page(model=ids["model"])
    assert page.multiselect[0].value == [ids["model"], ids["compressed"]]
    assert page.query_params["models"] == f"{ids['model']},{ids['compressed']}"


def test_a_model_that_was_not_measured_shows_dashes_and_can_be_measured(ids, tmp_path):
    page = open_page(model=ids["model"])
    rows = shown(page)["rows"]
    assert rows[ids["model"]]["texts"]["auc"] == "0.7629" and rows[ids["compressed"]]["texts"]["auc"] == "\N{EN DASH}"
    page.button(key="run-evaluate").click().run()
    (job,) = open_workspace(tmp_path).store.jobs.list(5)
    assert EvaluateConfig.from_dict(job.config).model_ids == (ids["compressed"],)


def test_measured_models_get_a_sentence_that_names_what_is_not_known(ids, tmp_path):
    add_evaluation(open_workspace(tmp_path), ids["compressed"], auc=0.7631, speed=1.4)
    page = open_page(model=ids["model"])
    data = shown(page)
    card = data["rows"][ids["compressed"]]["card"]
    assert "4.0x smaller, 1.4x faster at batch 4096" in card["sentence"] and card["smaller"] == "4.0x smaller"
    assert "+0.0002" in card["sentence"] and "may come from fine-tuning" in card["sentence"]
    assert data["chosen"] == ids["compressed"] and data["baseline"] == ids["model"]
    assert "run-evaluate" not in [button.key for button in page.button]


def test_the_address_holds_the_chosen_model_the_baseline_and_how_the_table_is_looked_at(ids, tmp_path):
    add_evaluation(open_workspace(tmp_path), ids["compressed"], auc=0.7631)
    page = open_page(model=ids["model"], chosen=ids["model"], baseline=ids["compressed"], view="sort=-auc&text=afm")
    data = shown(page)
    assert (data["chosen"], data["baseline"], data["view"]) == (ids["model"], ids["compressed"], "sort=-auc&text=afm")
    assert data["rows"][ids["model"]]["values"]["smaller"] == pytest.approx(0.25, rel=0.01)
    assert page.query_params["chosen"] == ids["model"]
    assert page.query_params["baseline"] == ids["compressed"] and page.query_params["view"] == "sort=-auc&text=afm"


def test_stars_notes_and_tags_are_in_the_table(ids, tmp_path):
    annotate(open_workspace(tmp_path), ids["compressed"], note="for serving", star=True, tags=["mobile"])
    data = shown(open_page(model=ids["model"]))
    row = data["rows"][ids["compressed"]]
    assert row["star"] and row["texts"]["note"] == "for serving" and row["texts"]["tags"] == "mobile"
    assert {"note", "tags"} <= {column["key"] for column in data["columns"]}


def test_two_models_differ_in_the_settings_listed(ids, tmp_path):
    other = add_compressed(open_workspace(tmp_path), ids, name="lower", ranks=8)
    page = open_page(model=ids["model"], models=f"{ids['compressed']},{other.id}")
    difference = page.dataframe[0].value
    assert difference.to_numpy().tolist() == [["rank of mlp.2", "64", "8"]]


def test_nothing_chosen_asks_for_a_model(ids):
    page = open_page(model=ids["model"])
    page.multiselect[0].set_value([]).run()
    assert not page.exception and any("at least one" in info.value for info in page.info)


def test_an_empty_workspace_says_what_to_do_first(tmp_path, monkeypatch):
    monkeypatch.setenv("CTRLAB_HOME", str(tmp_path))
    monkeypatch.setattr("ctrlab.services.jobs.ensure_worker", lambda *_: None)
    assert "Nothing to compare yet" in texts(open_page())


def test_the_page_shows_the_claims_of_each_compressed_model(ids, tmp_path):
    tuned = bool(finetune_key(open_workspace(tmp_path).store.artifacts.get(ids["compressed"])))
    add_evaluation(open_workspace(tmp_path), ids["compressed"], auc=0.7631, speed=1.4)
    shown = html(open_page(model=ids["model"])).split('class="claims"')[1].replace("\N{NO-BREAK SPACE}", " ")
    assert "3 to 5x fewer" in shown and "+0.0030 to +0.0100" in shown and "+35 % to +170 %" in shown
    assert "+40 %" in shown and "as claimed" in shown and shown.count("not run") == 3 * tuned


@pytest.fixture
def run(ids, tmp_path) -> list[str]:
    """Job ids of a compression with its controls, of which the compression itself has succeeded."""
    workspace = open_workspace(tmp_path)
    compress = CompressConfig(plan=RankPlan.of({"mlp.2": 3}), finetune=FINETUNE)
    config = CompressJobConfig(model_id=ids["model"], spectra_id=ids["spectra"], compress=compress)
    queued = submit_with_controls(workspace, config)
    end(workspace, queued[0], ids["compressed"])
    return queued


def end(workspace, job_id: str, model_id: str) -> None:
    job = workspace.store.jobs.claim("tester", job_id)
    workspace.store.jobs.finish(job, "succeeded", result={"model": model_id})


def test_controls_join_the_comparison_of_their_run_as_they_end(ids, run, tmp_path):
    workspace = open_workspace(tmp_path)
    assert [workspace.store.jobs.get(job).kind for job in run] == ["compress", "control", "compress"]
    page = open_page(model=ids["model"], models=f"{ids['model']},{ids['compressed']}", run=run[0])
    assert page.multiselect[0].value == [ids["model"], ids["compressed"]]
    assert "fine-tuned alone: waiting" in texts(page) and "truncated only: waiting" in texts(page)
    control = add_compressed(workspace, ids, name="DeepFM, fine-tuned alone").id
    end(workspace, run[1], control)
    page.run()
    assert page.multiselect[0].value == [ids["model"], ids["compressed"], control]
    assert "fine-tuned alone: waiting" not in texts(page)
    page.multiselect[0].set_value([ids["model"], ids["compressed"]]).run()  # what was removed stays away
    assert page.multiselect[0].value == [ids["model"], ids["compressed"]]
    workspace.store.jobs.request_cancel(run[2])
    page.run()
    assert "waiting" not in texts(page) and "run" not in page.query_params


def test_the_result_of_a_run_with_controls_leads_to_them(ids, run):
    page = open_compress(model=ids["model"], job="")
    page.session_state["selection"] = {"dataset": ids["dataset"], "model": ids["model"], "spectra": ids["spectra"], "job": run[0]}
    page.run()
    assert any("2 controls still to finish" in caption.value for caption in page.caption)
    links = " ".join(str(link.proto) for link in page.get("page_link"))
    assert f"run={run[0]}" in links


def test_the_header_never_shows_a_control_as_the_compressed_model(ids, tmp_path):
    workspace = open_workspace(tmp_path)
    original = workspace.store.artifacts.get(ids["model"])
    workspace.store.artifacts.add(NewArtifact(
        "model", "DeepFM, truncated only", parents=[ids["model"]], summary={**original.summary, "role": "compressed"},
        config={**original.config, "original_id": ids["model"], "compression": {"finetune": None}, "is_control": True},
    ))  # fmt: skip
    header = " ".join(str(link.proto) for link in open_page(model=ids["model"]).get("page_link"))
    assert "DeepFM, AFM" in header and "truncated only" not in header


def test_what_came_of_the_form_in_integers_is_said(ids, tmp_path):
    refused = "serve the float form: a row's probability changes by 0.2000, and at most 0.05 is allowed"
    open_workspace(tmp_path).store.artifacts.add(
        NewArtifact("serving", "In integers", parents=[ids["model"]], summary={"refused": "so", "advice": refused})
    )
    page = open_page(model=ids["model"], chosen=ids["model"])
    assert any(f"In integers: {refused}" in caption.value for caption in page.caption)


def test_a_bundle_is_made_by_a_job_and_then_downloaded(ids, tmp_path):
    store = open_workspace(tmp_path).store
    page = open_page(model=ids["model"], chosen=ids["model"])
    page.segmented_control(key=f"bundle-form-{ids['model']}").set_value("integers").run()
    page.checkbox(key=f"bundle-calibrate-{ids['model']}").check().run()
    page.button(key=f"make-bundle-{ids['model']}").click().run()
    page.button(key="prepare-serving").click().run()
    assert not page.exception
    plain, chosen = store.jobs.list(5)
    assert (plain.kind, BundleConfig.from_dict(plain.config)) == ("bundle", BundleConfig(model_id=ids["model"]))
    assert BundleConfig.from_dict(chosen.config) == BundleConfig(model_id=ids["model"], form="integers", calibrate=True)
    folder = tmp_path / "made" / "bundle"
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_text("{}")
    store.artifacts.add(NewArtifact(
        "bundle", "Bundle", parents=[ids["model"]], config=plain.config, summary={"version": "abc", "form": "float"},
        files_from=folder.parent,
    ))  # fmt: skip
    page = open_page(model=ids["model"], chosen=ids["model"])
    assert page.button(key=f"make-bundle-{ids['model']}").label == "Version abc has this form"
    assert "version abc, float" in next(one for one in page.get("download_button") if "serving" in one.label).help

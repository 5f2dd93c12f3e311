"""Plans for a budget, the measured figures, and plans by name, on the Compress page."""

import json
import time

import numpy as np
import pytest

from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.plans.ranks import pays
from ctrlab.plans.sensitivity import LayerSensitivity, Sensitivity, save_sensitivity
from ctrlab.plans.speed import FormSpeed, LayerSpeed, SpeedModel, save_speed
from ctrlab.services import plans
from ctrlab.services.sensitivity import load_model_sensitivity
from ctrlab.services.workspace import open_workspace
from ctrlab.storage import NewArtifact
from ctrlab.ui import cache
from tests.support.compress_page import editor, move, open_compress, ranks, run_button, settings
from tests.support.patience import PATIENCE
from tests.support.workspaces import deepfm_workspace


def add_sensitivity(home, ids):
    """Losses that fall with the rank, filed as the job files them."""
    workspace = open_workspace(home)
    layers = {}
    for number, layer in enumerate(cache.model_profile(cache.workspace(), ids["model"]).compressible):
        ranks = tuple(rank for rank in range(1, layer.out_features) if pays(layer, rank))
        losses = tuple((0.01 * (number + 1) / np.array(ranks)).tolist())
        layers[layer.layer_name] = LayerSensitivity(
            layer_name=layer.layer_name, width=layer.out_features, auc_dense=0.77, ranks=ranks, log_losses=losses,
            aucs=tuple(0.77 - np.array(losses)), log_loss_increases=losses, auc_losses=losses,
        )  # fmt: skip
    folder = home / "unfiled"
    save_sensitivity(folder, Sensitivity(log_loss=0.5, auc=0.77, split="valid", num_rows=1000, layers=layers))
    parents = [ids["model"], ids["spectra"]]
    workspace.store.artifacts.add(NewArtifact("sensitivity", "Sensitivity", parents=parents, files_from=folder))
    workspace.store.close()


@pytest.fixture
def planned_page(ids, tmp_path):
    """The page with a measured sensitivity and the planner open."""
    add_sensitivity(tmp_path, ids)
    page = open_compress(model=ids["model"])
    page.session_state["planner"] = True
    page.run()
    assert not page.exception
    return page


def planned_parameters(page, ids):
    profile = cache.model_profile(cache.workspace(), ids["model"])
    return serving_cost(
        profile, {name: rank for name, rank in ranks(page).items() if pays(profile.by_name[name], rank)}
    ).parameters


def test_without_a_sensitivity_the_planner_offers_to_measure_it(ids):
    page = open_compress(model=ids["model"])
    page.session_state["planner"] = True
    page.run()
    page.button(key="run-sensitivity").click().run()
    workspace = open_workspace()
    (job,) = workspace.store.jobs.list(5, ("queued",))
    assert job.kind == "sensitivity" and job.config["model_id"] == ids["model"] and job.config["spectra_id"] == ids["spectra"]


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_the_ranks_found_meet_the_budget_and_undo_reverts_them(planned_page, ids, share):
    limit = int(share * serving_cost(cache.model_profile(cache.workspace(), ids["model"]), {}).parameters)
    before = run_button(planned_page).label
    planned_page.number_input(key="planner-parameters").set_value(limit).run()
    planned_page.button(key="planner-find").click().run()
    assert 0.8 * limit < planned_parameters(planned_page, ids) <= limit
    planned_page.button(key="undo").click().run()
    assert run_button(planned_page).label == before


def test_a_budget_that_cannot_be_met_is_refused_with_the_nearest_and_changes_nothing(planned_page):
    before = run_button(planned_page).label
    planned_page.number_input(key="planner-parameters").set_value(5).run()
    planned_page.button(key="planner-find").click().run()
    assert any("ask for that or more" in error.value for error in planned_page.error)
    assert run_button(planned_page).label == before


def test_a_loss_of_auc_is_planned_for_too(planned_page, ids):
    planned_page.selectbox(key="planner-goal").set_value("auc").run()
    planned_page.number_input(key="planner-auc").set_value(0.02).run()
    planned_page.button(key="planner-find").click().run()
    profile = cache.model_profile(cache.workspace(), ids["model"])
    chosen = {name: rank for name, rank in ranks(planned_page).items() if pays(profile.by_name[name], rank)}
    (found,) = open_workspace().store.artifacts.list("sensitivity")
    sensitivity = load_model_sensitivity(open_workspace(), found.id)
    assert not planned_page.error and 0.75 <= sensitivity.predicted_auc(chosen) < 0.77


def test_the_front_is_drawn_with_the_current_plan_predicted_and_measured(planned_page):
    (chart,) = [one for one in planned_page.get("plotly_chart") if "front" in one.proto.id]
    names = [trace["name"] for trace in json.loads(chart.proto.spec)["data"]]
    assert names == ["best plans, predicted", "original", "this plan, predicted", "this plan, measured"]


def test_every_move_measures_its_plan_and_shows_the_result(ids, measured):
    page = open_compress(model=ids["model"])
    move(page, {"mlp.2": 7})
    page.selectbox(key="compress-method").set_value("svd").run()
    assert measured[-2].spec.plan.as_dict()["mlp.2"] == 7
    assert [request.spec.method for request in measured[-2:]] == ["afm", "svd"]
    shown = editor(page)["measured"]
    assert (shown["auc"], shown["original_auc"], shown["rows"]) == (0.765, 0.77, "on 1,000 validation rows")
    assert shown["auc_change"] == [-0.005, -0.007, -0.003] and not editor(page)["waiting"]


def test_a_named_plan_is_saved_applied_and_deleted(ids, tmp_path):
    page = open_compress(model=ids["model"])
    page.session_state["saved-plans"] = True
    move(page, {"mlp.2": 7})
    page.text_input(key="plan-name").set_value("seven").run()
    page.button(key="save-plan").click().run()
    workspace = open_workspace(tmp_path)
    (saved,) = plans.list_plans(workspace, ids["model"])
    assert saved.name == "seven" and plans.load_plan(workspace, saved.id).as_dict()["mlp.2"] == 7
    page.button(key="preset-dense").click().run()
    page.button(key=f"apply-{saved.id}").click().run()
    assert ranks(page)["mlp.2"] == 7
    page.button(key=f"delete-{saved.id}").click().run()
    assert plans.list_plans(workspace, ids["model"]) == []


def add_speed(home, ids):
    """A machine that takes a hundredth of a millisecond a direction of each layer, filed as the job files it."""
    workspace = open_workspace(home)
    layers = {
        layer.layer_name: LayerSpeed(ranks=(1,), ms=((0.01,),), dense_ms=(0.01 * layer.out_features,))
        for layer in cache.model_profile(cache.workspace(), ids["model"]).compressible if layer.kind == "linear"
    }  # fmt: skip
    form = FormSpeed(widths=(1,), base_ms=(0.5, 1.0), group_ms=0.0, first=(), layers=layers)
    original = 1.0 + sum(layer.dense_ms[0] for layer in layers.values())
    speed = SpeedModel(batch_size=4096, threads=1, machine="a clock", original_ms=original, forms={"folded": form})
    save_speed(home / "unfiled-speed", speed)
    facts = {"batch_size": 4096, "threads": 1, "machine": "a clock", "original_ms": original}
    parents = [ids["model"], ids["spectra"]]
    added = workspace.store.artifacts.add(
        NewArtifact("speed", "Speed", parents=parents, summary=facts, files_from=home / "unfiled-speed")
    )
    workspace.store.close()
    return added.id


def test_milliseconds_are_offered_once_the_speed_was_measured(planned_page, ids):
    planned_page.selectbox(key="planner-goal").set_value("latency_ms").run()
    assert not planned_page.exception and not [one for one in planned_page.button if one.key == "planner-find"]
    planned_page.button(key="run-speed").click().run()
    (job,) = open_workspace().store.jobs.list(5, ("queued",))
    assert job.kind == "speed" and job.config["batch_size"] == 4096 and job.config["spectra_id"] == ids["spectra"]


def test_a_plan_for_milliseconds_is_a_job_and_one_that_no_plan_meets_is_refused_at_once(planned_page, ids, tmp_path):
    speed = add_speed(tmp_path, ids)
    planned_page.selectbox(key="planner-goal").set_value("latency_ms").run()
    planned_page.number_input(key="planner-latency_ms").set_value(0.01).run()
    planned_page.button(key="run-plan_speed").click().run()
    assert any("the fastest takes" in error.value and "ask for that" in error.value for error in planned_page.error)
    assert open_workspace().store.jobs.list(5, ("queued",)) == []
    planned_page.number_input(key="planner-latency_ms").set_value(1.5).run()
    planned_page.button(key="run-plan_speed").click().run()
    (job,) = open_workspace().store.jobs.list(5, ("queued",))
    assert job.kind == "plan_speed" and job.config["limit_ms"] == 1.5 and job.config["speed_id"] == speed


def test_predictions_of_afm_are_not_shown_for_another_method(planned_page):
    def shown() -> tuple[bool, bool, bool]:
        terms = settings(planned_page)["terms"]
        note = any("predicted for AFM alone" in caption.value for caption in planned_page.caption)
        return note, terms["variance"] is not None, terms["sensitivity"] is not None

    assert shown() == (False, True, True)
    planned_page.selectbox(key="compress-method").set_value("svd").run()
    assert not planned_page.exception and shown() == (True, False, False)
    planned_page.selectbox(key="compress-method").set_value("tensor_train").run()  # linear layers as AFM, tables not
    assert not planned_page.exception and shown() == (False, True, False)


def planned_editor(page):
    """The data of the editor once the dial's plans are known."""
    end = time.monotonic() + PATIENCE
    while editor(page)["pending"] and time.monotonic() < end:
        time.sleep(0.05)
        page.run()
    return editor(page)


def test_the_dial_walks_plans_by_variance_and_those_of_least_loss_once_they_are_known(ids, tmp_path):
    page = open_compress(model=ids["model"])
    by_variance = editor(page)["stops"]
    assert not editor(page)["pending"] and "Measure the sensitivity" in editor(page)["walk"]
    add_sensitivity(tmp_path, ids)
    shown = planned_editor(open_compress(model=ids["model"]))
    assert "lose least AUC" in shown["walk"] and shown["stops"] != by_variance
    stops = json.loads(shown["stops"])
    assert stops[0] == "40x2.16x3" and len(stops) > 5  # dense first


def test_before_a_sensitivity_is_measured_the_dial_walks_plans_by_the_gradients_in_the_spectra(tmp_path, ids):
    estimated = deepfm_workspace(tmp_path, num_tables=3, mlp_dims=(40, 40), gradients=True)
    shown = planned_editor(open_compress(model=estimated["model"]))
    assert "by the gradients in the spectra" in shown["walk"] and len(json.loads(shown["stops"])) > 5

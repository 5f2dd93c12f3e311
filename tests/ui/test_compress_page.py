import re

import pytest

from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.cost_prediction import predict
from ctrlab.plans.ranks import plan_ranks
from ctrlab.services.compression import CompressJobConfig
from ctrlab.services.workspace import open_workspace
from ctrlab.ui import cache
from ctrlab.ui.format import count
from tests.support.compress_page import editor, editors, move, open_compress, ranks, run_button, send, settings
from tests.support.workspaces import add_compressed


def test_the_editor_has_every_layer_with_a_spectrum_linear_layers_first(ids):
    page = open_compress(model=ids["model"])
    assert list(ranks(page)) == ["mlp.0", "mlp.2", "embedding.C1", "embedding.C2", "embedding.C3"]
    shown = settings(page)
    names = [shown["terms"]["layers"][layer["number"]]["name"] for layer in shown["layers"]]
    assert names == list(ranks(page))


def test_the_page_starts_at_99_percent_and_its_button_says_what_predict_says(ids):
    profile, spectra = (
        cache.model_profile(cache.workspace(), ids["model"]),
        cache.layer_spectra(cache.workspace(), ids["spectra"]),
    )
    expected = predict(profile, spectra, CompressionSpec(plan=plan_ranks(profile, spectra, variance=0.99))).serving.parameters
    assert run_button(open_compress(model=ids["model"])).label == f"Compress to {count(expected)} parameters"


def test_a_reported_rank_changes_prediction_and_link_and_undo_reverts_it(ids):
    page = open_compress(model=ids["model"])
    before, link = run_button(page).label, page.query_params["plan"]
    move(page, {"mlp.2": 12})
    assert run_button(page).label != before and page.query_params["plan"] != link
    page.button(key="undo").click().run()
    assert run_button(page).label == before and page.query_params["plan"] == link
    assert ranks(page)["mlp.2"] == 4
    page.button(key="redo").click().run()
    assert ranks(page)["mlp.2"] == 12


def test_a_report_that_is_older_than_an_undo_or_than_the_last_report_is_ignored(ids):
    page = open_compress(model=ids["model"])
    known = editor(page)["others"]
    move(page, {"mlp.2": 12})
    page.button(key="undo").click().run()
    move(page, {"mlp.2": 13}, base=known)
    assert ranks(page)["mlp.2"] == 4
    move(page, {"mlp.2": 14}, serial=7)
    move(page, {"mlp.2": 15}, serial=6)
    assert ranks(page)["mlp.2"] == 14 and editor(page)["seen"] == ["browser", 7]
    move(page, {"mlp.2": 16}, serial=8, plan="4.16")
    send(page, "no report")
    assert ranks(page)["mlp.2"] == 14


def test_reports_in_one_breath_are_all_taken(ids):
    page = open_compress(model=ids["model"])
    known = editor(page)["others"]
    for serial, rank in enumerate((7, 8, 9), 1):
        move(page, {"mlp.2": rank}, base=known, serial=serial)
    assert ranks(page)["mlp.2"] == 9
    page.button(key="undo").click().run()
    assert ranks(page)["mlp.2"] == 8


def test_at_break_even_a_layer_stays_dense(ids):
    page = open_compress(model=ids["model"])
    names = {layer["name"]: layer for layer in settings(page)["terms"]["layers"]}
    assert names["mlp.2"]["break_even"] == 20  # 40 * 40 / (40 + 40)
    page.button(key="preset-dense").click().run()
    assert not run_button(move(page, {"mlp.2": 10})).disabled
    assert run_button(move(page, {"mlp.2": 20})).disabled


def test_the_button_says_why_it_cannot_run(ids):
    page = open_compress(model=ids["model"])
    page.button(key="preset-dense").click().run()
    assert run_button(page).disabled
    assert any("every layer is dense" in caption.value.lower() for caption in page.caption)


@pytest.mark.parametrize(("preset", "share"), [("variance-90", 0.90), ("variance-99", 0.99)])
def test_a_variance_preset_keeps_that_share_in_every_layer(ids, preset, share):
    page = open_compress(model=ids["model"])
    page.button(key=f"preset-{preset}").click().run()
    spectra, profile = (
        cache.layer_spectra(cache.workspace(), ids["spectra"]),
        cache.model_profile(cache.workspace(), ids["model"]),
    )
    for layer in profile.compressible:
        rank = ranks(page)[layer.layer_name]
        assert rank == layer.out_features or spectra[layer.layer_name].cumulative[rank - 1] >= share


def test_relu_in_the_bottleneck_is_labelled_as_invalidating_the_prediction(ids):
    page = open_compress(model=ids["model"])
    assert not any("does not hold" in caption.value for caption in page.caption)
    page.selectbox(key="compress-bottleneck").set_value("relu").run()
    assert any("does not hold" in caption.value for caption in page.caption)


def test_in_a_shared_basis_every_table_has_the_largest_rank(ids, tmp_path):
    page = open_compress(model=ids["model"])
    page.selectbox(key="compress-basis").set_value("shared").run()
    assert settings(page)["terms"]["shared"] and settings(page)["terms"]["shared_variance"] is not None
    move(page, {f"embedding.C{number}": 2 for number in (1, 2, 3)})
    profile, spectra = (
        cache.model_profile(cache.workspace(), ids["model"]),
        cache.layer_spectra(cache.workspace(), ids["spectra"]),
    )
    run_button(page).click().run()
    (job,) = open_workspace(tmp_path).store.jobs.list(5)
    compress = CompressJobConfig.from_dict(job.config).compress
    assert compress.basis == "shared"
    promised = predict(profile, spectra, CompressionSpec(plan=compress.plan, basis="shared"))
    assert {promised.ranks[f"embedding.C{number}"] for number in (1, 2, 3)} == {2}
    assert run_button(page).label == f"Compress to {count(promised.serving.parameters)} parameters"


def test_run_queues_exactly_the_settings_on_the_page(ids, tmp_path):
    page = open_compress(model=ids["model"])
    move(page, {"mlp.0": 7, "mlp.2": 7})
    page.selectbox(key="compress-order").set_value("joint").run()
    page.number_input(key="finetune-epochs").set_value(2).run()
    promised = re.search(r"to (.*) parameters", run_button(page).label).group(1)
    run_button(page).click().run()
    (job,) = open_workspace(tmp_path).store.jobs.list(5)
    config = CompressJobConfig.from_dict(job.config)
    assert (config.model_id, config.spectra_id) == (ids["model"], ids["spectra"])
    assert config.compress.order == "joint" and config.compress.finetune.epochs == 2 and config.compress.finetune.keep_initial
    assert {config.compress.plan.as_dict()[name] for name in ("mlp.0", "mlp.2")} == {7}
    profile, spectra = (
        cache.model_profile(cache.workspace(), ids["model"]),
        cache.layer_spectra(cache.workspace(), ids["spectra"]),
    )
    assert count(predict(profile, spectra, CompressionSpec(plan=config.compress.plan)).serving.parameters) == promised
    assert run_button(page).disabled and page.query_params["job"] == job.id


def test_without_fine_tuning_it_only_truncates(ids, tmp_path):
    page = open_compress(model=ids["model"])
    page.toggle(key="finetune-wanted").set_value(False).run()
    run_button(page).click().run()
    assert open_workspace(tmp_path).store.jobs.list(1)[0].config["compress"]["finetune"] is None


def test_every_setting_of_a_compression_has_a_widget_and_reaches_the_job(ids, tmp_path):
    page = open_compress(model=ids["model"])
    page.selectbox(key="compress-precision").set_value("int8")
    page.number_input(key="compress-max_rows").set_value(500)
    page.number_input(key="finetune-learning_rate").set_value(1e-3).run()
    run_button(page).click().run()
    config = CompressJobConfig.from_dict(open_workspace(tmp_path).store.jobs.list(1)[0].config).compress
    assert (config.precision, config.max_rows, config.finetune.learning_rate) == ("int8", 500, 1e-3)


def test_a_faulty_setting_is_named_and_nothing_can_be_queued(ids):
    page = open_compress(model=ids["model"])
    page.number_input(key="compress-max_rows").set_value(0).run()
    assert not page.exception and any("Calibration rows must be" in error.value for error in page.error)
    assert run_button(page).disabled and ranks(page)["mlp.2"] == 4


def test_a_link_carries_the_plan(ids):
    page = open_compress(model=ids["model"], plan="5x2.2x3")
    assert list(ranks(page).values()) == [5, 5, 2, 2, 2]


def test_a_compressed_model_is_sent_back_to_its_original(ids, tmp_path):
    workspace = open_workspace(tmp_path)
    compressed = add_compressed(workspace, ids, compressed_profile=True)
    page = open_compress(model=compressed.id)
    assert not editors(page) and any("already compressed" in text.value for text in page.markdown)


def test_without_spectra_the_page_says_what_to_do_first(ids, tmp_path):
    open_workspace(tmp_path).store.artifacts.delete(ids["spectra"])
    page = open_compress(model=ids["model"])
    assert not editors(page) and any("No spectra yet" in text.value for text in page.markdown)


@pytest.mark.parametrize("method", ["tensor_train", "rare_ids", "qr_hash"])
def test_tables_of_another_method_are_predicted_and_queued_as_such(ids, tmp_path, method):
    page = open_compress(model=ids["model"])
    move(page, {f"embedding.C{number}": 3 for number in (1, 2, 3)})
    page.selectbox(key="compress-method").set_value(method).run()
    assert not page.exception and page.selectbox(key="compress-basis").disabled
    assert any("not projections of the original ones" in caption.value for caption in page.caption)
    run_button(page).click().run()
    (job,) = open_workspace(tmp_path).store.jobs.list(5)
    config = CompressJobConfig.from_dict(job.config).compress
    profile = cache.model_profile(cache.workspace(), ids["model"])
    promised = predict(profile, None, CompressionSpec(plan=config.plan, method=method)).serving.parameters
    assert config.method == method and run_button(page).label == f"Compress to {count(promised)} parameters"
    assert (config.order == "joint" and not config.finetune.keep_initial) == (method == "qr_hash")


def test_a_method_that_retrains_says_so_whatever_the_settings_of_fine_tuning(ids):
    page = open_compress(model=ids["model"])
    page.toggle(key="finetune-wanted").set_value(False).run()
    page.selectbox(key="compress-method").set_value("qr_hash").run()
    assert not page.exception and any("initialised anew" in caption.value for caption in page.caption)


def test_the_settings_are_one_line_above_their_folded_form_and_a_result_can_be_named(ids, tmp_path):
    page = open_compress(model=ids["model"])

    def line() -> str:
        return next(text.value for text in page.markdown if "ranks as chosen" in text.value)

    assert line() == "AFM, ranks as chosen, fine-tune 1 epoch on 80.0 k training rows, MLP first, no controls."
    page.selectbox(key="compress-precision").set_value("int8")
    page.selectbox(key="compress-bottleneck").set_value("prelu")
    page.checkbox(key="controls").set_value(True)
    page.toggle(key="finetune-wanted").set_value(False).run()
    assert line() == "AFM, ranks as chosen, PReLU between the factors, 8 bits, no fine-tuning, with controls."
    page.checkbox(key="controls").set_value(False).run()
    page.text_input(key="result-name-0").set_value("a third of it").run()
    run_button(page).click().run()
    (job,) = open_workspace(tmp_path).store.jobs.list(5)
    assert job.config["name"] == "a third of it" and page.text_input(key="result-name-1").value == ""

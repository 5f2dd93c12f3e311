import re

import pytest

from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.cost_prediction import predict
from ctrlab.plans.ranks import plan_ranks
from ctrlab.services.compression import CompressJobConfig
from ctrlab.services.workspace import open_workspace
from ctrlab.ui import cache
from ctrlab.ui.format import count
from tests.support.compress_page import html, open_compress, run_button, slider
from tests.support.workspaces import add_compressed


def test_every_layer_and_table_has_a_slider_and_each_kind_a_group_slider(ids):
    labels = [slider.label for slider in open_compress(model=ids["model"]).slider]
    assert labels == [
        "Rank of all MLP layers", "Rank of mlp.0", "Rank of mlp.2",
        "Rank of all tables", "Rank of embedding.C1", "Rank of embedding.C2", "Rank of embedding.C3",
    ]  # fmt: skip


def test_the_page_starts_at_99_percent_and_its_button_says_what_predict_says(ids):
    profile, spectra = (
        cache.model_profile(cache.workspace(), ids["model"]),
        cache.layer_spectra(cache.workspace(), ids["spectra"]),
    )
    expected = predict(profile, spectra, CompressionSpec(plan=plan_ranks(profile, spectra, variance=0.99))).serving.parameters
    assert run_button(open_compress(model=ids["model"])).label == f"Compress to {count(expected)} parameters"


def test_moving_one_slider_changes_prediction_and_link_and_undo_reverts_it(ids):
    page = open_compress(model=ids["model"])
    before, link = run_button(page).label, page.query_params["plan"]
    slider(page, "Rank of mlp.2").set_value(12).run()
    assert run_button(page).label != before and page.query_params["plan"] != link
    page.button(key="undo").click().run()
    assert run_button(page).label == before and page.query_params["plan"] == link
    assert slider(page, "Rank of mlp.2").value == 4
    page.button(key="redo").click().run()
    assert slider(page, "Rank of mlp.2").value == 12


def test_a_group_slider_moves_all_layers_of_its_kind(ids):
    page = open_compress(model=ids["model"])
    slider(page, "Rank of all tables").set_value(3).run()
    assert [slider(page, f"Rank of embedding.C{number}").value for number in (1, 2, 3)] == [3, 3, 3]
    assert slider(page, "Rank of mlp.0").value == 4
    page.button(key="undo").click().run()
    assert slider(page, "Rank of embedding.C2").value == 4


def test_at_break_even_a_layer_stays_dense_and_says_so(ids):
    page = open_compress(model=ids["model"])
    slider(page, "Rank of mlp.2").set_value(20).run()  # 40 * 40 / (40 + 40)
    assert "dense <small>from 20</small>" in html(page)
    slider(page, "Rank of mlp.2").set_value(19).run()
    assert "dense <small>from 20</small>" not in html(page).split("Rank")[0].split("mlp.2")[1].split("</div>")[1]


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
        rank = slider(page, f"Rank of {layer.layer_name}").value
        assert rank == layer.out_features or spectra[layer.layer_name].cumulative[rank - 1] >= share


def test_relu_in_the_bottleneck_is_labelled_as_invalidating_the_prediction(ids):
    page = open_compress(model=ids["model"])
    assert not any("does not hold" in caption.value for caption in page.caption)
    page.selectbox(key="compress-bottleneck").set_value("relu").run()
    assert any("does not hold" in caption.value for caption in page.caption)


def test_in_a_shared_basis_one_slider_gives_every_table_its_rank(ids, tmp_path):
    page = open_compress(model=ids["model"])
    page.selectbox(key="compress-basis").set_value("shared").run()
    assert not any("embedding." in slider.label for slider in page.slider)
    slider(page, "Rank of all tables").set_value(2).run()
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
    slider(page, "Rank of all MLP layers").set_value(7).run()
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
    assert run_button(page).disabled and slider(page, "Rank of mlp.2").value == 4


def test_a_link_carries_the_plan(ids):
    page = open_compress(model=ids["model"], plan="5x2.2x3")
    assert [found.value for found in page.slider if "all" not in found.label] == [5, 5, 2, 2, 2]


def test_a_compressed_model_is_sent_back_to_its_original(ids, tmp_path):
    workspace = open_workspace(tmp_path)
    compressed = add_compressed(workspace, ids, compressed_profile=True)
    page = open_compress(model=compressed.id)
    assert not page.slider and any("already compressed" in text.value for text in page.markdown)


def test_without_spectra_the_page_says_what_to_do_first(ids, tmp_path):
    open_workspace(tmp_path).store.artifacts.delete(ids["spectra"])
    page = open_compress(model=ids["model"])
    assert not page.slider and any("No spectra yet" in text.value for text in page.markdown)


@pytest.mark.parametrize("method", ["tensor_train", "rare_ids", "qr_hash"])
def test_tables_of_another_method_are_predicted_and_queued_as_such(ids, tmp_path, method):
    page = open_compress(model=ids["model"])
    slider(page, "Rank of all tables").set_value(3).run()
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

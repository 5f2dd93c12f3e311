from dataclasses import replace

import pytest
import torch

import ctrlab.compression.pipeline as pipeline
from ctrlab.compression.pipeline import compress_and_finetune
from ctrlab.compression.surgery import compress_model
from ctrlab.errors import CompressionError, JobCancelled, StorageError
from ctrlab.evaluation.prediction import evaluate_model
from ctrlab.plans.configs import CompressConfig, CompressionSpec, RankPlan
from ctrlab.training.configs import FitConfig
from tests.support.small_models import MemoryDataset, logits, make_model, perturb_, spectra_of

DATA = MemoryDataset()
PLAN = RankPlan.of({"embedding.site": 2, "embedding.ad": 3, "mlp.0": 6, "mlp.2": 4})
FIT = FitConfig(batch_size=200, epochs=1, evaluations_per_epoch=2, learning_rate=3e-3, device="cpu")
CONFIG = CompressConfig(plan=PLAN, finetune=FIT)


def _same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("order", "names"), [("mlp_first", ["mlp", "tables"]), ("tables_first", ["tables", "mlp"]), ("joint", ["joint"])]
)
def test_each_order_runs_its_stages_and_ends_with_the_whole_plan(order, names):
    model = make_model("deepfm")
    result = compress_and_finetune(model, DATA, CONFIG.replace(order=order))
    assert [stage.name for stage in result.stages] == names
    assert result.model.structure.ranks == PLAN.as_dict() == result.plan.as_dict()
    assert all(stage.steps == 6 and stage.history for stage in result.stages)
    assert model.structure is None


def test_a_stage_without_layers_does_not_run():
    result = compress_and_finetune(make_model("dcn"), DATA, CONFIG.replace(plan=RankPlan.of({"embedding.ad": 2})))
    assert [stage.name for stage in result.stages] == ["tables"]


def test_fine_tuning_never_ends_below_truncation_even_when_it_only_harms():
    config = CONFIG.replace(finetune=FIT.replace(learning_rate=0.9))
    result = compress_and_finetune(make_model("dcn"), DATA, config)
    for stage in result.stages:
        assert stage.valid_auc >= stage.truncated_auc
    measured = evaluate_model(result.model, DATA.split("valid"))
    assert measured.auc == pytest.approx(result.stages[-1].valid_auc, abs=1e-9)


@pytest.mark.parametrize("monitor", ["auc", "log_loss"])
@pytest.mark.parametrize("rate", [0.003, 0.05, 0.9])
def test_the_end_is_no_worse_than_the_whole_plan_without_fine_tuning(rate, monitor):
    model = make_model("deepfm")
    spectra = spectra_of(model)
    result = compress_and_finetune(
        model, DATA, CONFIG.replace(finetune=FIT.replace(learning_rate=rate, monitor=monitor)), spectra
    )
    alone = evaluate_model(compress_model(model, CompressionSpec(plan=PLAN), spectra).model, DATA.split("valid"))
    assert (result.truncated_auc, result.truncated_log_loss) == (alone.auc, alone.log_loss)
    measured = evaluate_model(result.model, DATA.split("valid"))
    assert measured.auc >= alone.auc if monitor == "auc" else measured.log_loss <= alone.log_loss


def test_the_truncated_original_is_kept_where_the_stages_came_to_nothing_better(monkeypatch):
    def spoil(model, dataset, config, **options):
        fitted = real(model, dataset, config, **options)
        perturb_(fitted.model, 0.5)
        worse = [row | {"valid_auc": 0.5, "valid_log_loss": 9.0} for row in fitted.history]
        return replace(fitted, history=worse)

    real = pipeline.fit
    monkeypatch.setattr(pipeline, "fit", spoil)
    model = make_model("deepfm")
    spectra = spectra_of(model)
    result = compress_and_finetune(model, DATA, CONFIG, spectra)
    assert result.kept_truncated and _same(result.model, compress_model(model, CompressionSpec(plan=PLAN), spectra).model)
    assert not compress_and_finetune(model, DATA, CONFIG.replace(order="joint"), spectra).kept_truncated


def test_without_fine_tuning_the_stages_only_truncate():
    model = make_model("deepfm")
    result = compress_and_finetune(model, DATA, CONFIG.replace(finetune=None))
    assert all(stage.valid_auc == stage.truncated_auc and stage.steps == 0 for stage in result.stages)
    joint = compress_and_finetune(model, DATA, CONFIG.replace(finetune=None, order="joint"))
    torch.testing.assert_close(logits(result.model, DATA.fields()), logits(joint.model, DATA.fields()), rtol=1e-5, atol=1e-5)


def test_given_spectra_are_used_for_the_original_and_later_stages_collect_their_own(monkeypatch):
    collected = []

    def spy(model, dataset, **options):
        collected.append((model.structure is not None, sorted(options["layer_names"])))
        return real(model, dataset, **options)

    real = pipeline.collect_spectra
    monkeypatch.setattr(pipeline, "collect_spectra", spy)
    model = make_model("dcn")
    with_spectra = compress_and_finetune(model, DATA, CONFIG, spectra_of(model))
    assert collected == [(True, ["embedding.ad", "embedding.site"])]
    without = compress_and_finetune(model, DATA, CONFIG)
    assert len(collected) == 3 and _same(with_spectra.model, without.model)


def test_the_same_run_twice_gives_the_same_weights():
    model = make_model("deepfm")
    assert _same(compress_and_finetune(model, DATA, CONFIG).model, compress_and_finetune(model, DATA, CONFIG).model)


@pytest.mark.parametrize(
    "moment", ["mlp: collecting", "mlp: factoring", "mlp: fine-tuning", "mlp: done", "tables: factoring", "tables: fine-tuning"]
)
def test_a_cancelled_run_goes_on_where_it_was_and_ends_the_same(tmp_path, moment):
    model, seen = make_model("dcn"), []
    whole = compress_and_finetune(model, DATA, CONFIG)
    with pytest.raises(JobCancelled):
        compress_and_finetune(
            model, DATA, CONFIG, checkpoint_dir=tmp_path,
            on_progress=lambda _, message: seen.append(message), should_stop=lambda: seen != [] and seen[-1].startswith(moment),
        )  # fmt: skip
    resumed = compress_and_finetune(model, DATA, CONFIG, checkpoint_dir=tmp_path)
    assert _same(resumed.model, whole.model)
    assert [stage.best_step for stage in resumed.stages] == [stage.best_step for stage in whole.stages]
    again = compress_and_finetune(model, DATA, CONFIG, checkpoint_dir=tmp_path)
    assert _same(again.model, whole.model) and again.stages == resumed.stages


def test_finished_stages_are_not_run_again(tmp_path, monkeypatch):
    model = make_model("dcn")
    compress_and_finetune(model, DATA, CONFIG, checkpoint_dir=tmp_path)
    assert sorted(path.name for path in (tmp_path / "1-mlp").iterdir()) == ["model.safetensors", "stage.json"]
    monkeypatch.setattr(pipeline, "fit", None)
    compress_and_finetune(model, DATA, CONFIG, checkpoint_dir=tmp_path)


def test_checkpoints_of_another_compression_are_refused(tmp_path):
    compress_and_finetune(make_model("dcn"), DATA, CONFIG.replace(finetune=None), checkpoint_dir=tmp_path)
    for model, config in ((make_model("dcn", seed=5), CONFIG.replace(finetune=None)), (make_model("dcn"), CONFIG)):
        with pytest.raises(StorageError, match="another compression"):
            compress_and_finetune(model, DATA, config, checkpoint_dir=tmp_path)


def test_progress_rises_from_stage_to_stage_and_names_them():
    reports, steps = [], []
    compress_and_finetune(
        make_model("dcn"), DATA, CONFIG,
        on_progress=lambda fraction, message: reports.append((fraction, message)), on_step=lambda stage, _: steps.append(stage),
    )  # fmt: skip
    fractions = [fraction for fraction, _ in reports]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert {message.split(":")[0] for _, message in reports} == {"mlp", "tables"} == set(steps)


def test_a_plan_that_compresses_nothing_is_refused():
    with pytest.raises(CompressionError, match="leaves every layer dense"):
        compress_and_finetune(make_model("dcn"), DATA, CONFIG.replace(plan=RankPlan.of({"mlp.0": 32})))

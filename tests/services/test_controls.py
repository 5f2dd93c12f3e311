"""A compression with its controls: what is queued, what each arm is, and how the comparison tells them apart."""

import pytest

from ctrlab.errors import ConfigError
from ctrlab.plans.configs import CompressConfig, CompressionSpec, RankPlan
from ctrlab.plans.cost_prediction import predict
from ctrlab.services import comparison, controls
from ctrlab.services.compression import CompressJobConfig, submit_compress
from ctrlab.services.models import TrainConfig, model_profile, role_of
from ctrlab.training.configs import FINETUNE, FitConfig

TUNING = FINETUNE.replace(batch_size=256, learning_rate=1e-3)
PLAN = RankPlan.of({"mlp.2": 4, "embedding.site": 2, "embedding.ad": 2})


@pytest.fixture(scope="module")
def lab(small_lab):
    return small_lab.lab


@pytest.fixture(scope="module")
def original(small_lab):
    return small_lab.model


def job_config(lab, original, **changes):
    compress = CompressConfig(plan=PLAN, finetune=TUNING).replace(**changes)
    return CompressJobConfig(model_id=original.id, spectra_id=lab.spectra_of(original.id).id, compress=compress, name="small")


def test_every_arm_is_queued_run_and_told_apart(lab, original):
    jobs = controls.submit_with_controls(lab.workspace, job_config(lab, original), seeds=2)
    found = [lab.workspace.store.artifacts.get(lab.wait(job)["model"]) for job in jobs]
    names = [model.name for model in found]
    assert names == [
        "small, seed 1", "small, seed 2", f"{original.name}, fine-tuned alone, seed 1", f"{original.name}, fine-tuned alone, seed 2",
        "small, truncated only", f"{original.name}, small from scratch, seed 1", f"{original.name}, small from scratch, seed 2",
    ]  # fmt: skip
    kinds = [role_of(model) for model in (original, *found)]
    assert kinds == ["original", *["compressed"] * 2, *["control"] * 2, "compressed", *["from_scratch"] * 2]
    compressed, other, control, _, truncated, scratch, _ = found
    assert control.config["control"]["rounds"] == 2  # MLP, then tables
    assert control.summary["cost"] == original.summary["cost"]
    assert controls.finetune_key(compressed) == controls.finetune_key(control) and controls.finetune_key(truncated) == ""
    assert controls.run_group(compressed) == controls.run_group(other) != controls.run_group(truncated)
    parameters = [model.summary["cost_serving"]["parameters_tables"] + model.summary["cost_serving"]["parameters_dense"]
                  for model in (compressed, scratch)]  # fmt: skip
    assert parameters[1] <= parameters[0]
    table = comparison.comparison_table(lab.workspace, [model.id for model in (scratch, original, compressed, control)])
    assert table["kind"].tolist() == ["from_scratch", "original", "compressed", "control"]
    assert table["auc"].notna().all() and table["auc_change"].notna().tolist() == [True, False, True, True]


def test_without_fine_tuning_there_is_nothing_to_control_but_the_size(lab, original):
    jobs = controls.submit_with_controls(lab.workspace, job_config(lab, original, finetune=None))
    kinds = [lab.workspace.store.jobs.get(job).kind for job in jobs]
    assert kinds == ["compress", "train"]


def test_a_method_that_retrains_is_controlled_by_reinitialised_tables_and_has_no_truncation(lab, original):
    jobs = controls.submit_with_controls(lab.workspace, job_config(lab, original, method="qr_hash", order="joint"))
    queued = [lab.workspace.store.jobs.get(job) for job in jobs]
    assert [job.kind for job in queued] == ["compress", "control", "train"] and queued[1].config["redraw_tables"]
    hashed, control = (lab.workspace.store.artifacts.get(lab.wait(job)["model"]) for job in jobs[:2])
    assert control.name == f"{original.name}, tables re-initialised" and hashed.config["compression"]["method"] == "qr_hash"
    assert hashed.summary["cost_serving"]["bytes_tables"] < control.summary["cost_serving"]["bytes_tables"]


@pytest.mark.parametrize("method", ["tensor_train", "rare_ids"])
def test_other_forms_of_tables_are_compressed_and_served_as_promised(lab, original, method):
    config = job_config(lab, original, method=method, precision="int8")
    model = lab.workspace.store.artifacts.get(lab.wait(submit_compress(lab.workspace, config))["model"])
    promised = predict(
        model_profile(lab.workspace, original.id), None, CompressionSpec(plan=PLAN, precision="int8", method=method)
    ).serving
    assert model.summary["cost_serving"] == promised.to_dict()


def test_a_smaller_model_is_distilled_from_its_teacher(lab, original):
    settings = {"dataset_id": original.config["dataset_id"], "architecture": "deepfm", "model": original.config["model"]}
    fit = FitConfig.from_dict(original.config["fit"]).replace(distillation=0.5)
    small = lab.train(TrainConfig(**settings, fit=fit, max_parameters=500, teacher_id=original.id))
    assert role_of(small) == "from_scratch" and small.config["teacher_id"] == original.id
    with pytest.raises(ConfigError, match="a teacher and a distillation above 0 go together"):
        TrainConfig(**settings, fit=fit)


def test_at_once_is_one_round(lab, original):
    jobs = controls.submit_with_controls(lab.workspace, job_config(lab, original, order="joint"))
    control = next(job for job in map(lab.workspace.store.jobs.get, jobs) if job.kind == "control")
    assert control.config["rounds"] == 1


@pytest.mark.parametrize("seeds", [0, 11])
def test_an_unusable_number_of_seeds_is_refused(lab, original, seeds):
    with pytest.raises(ConfigError, match="choose 1 to 10"):
        controls.submit_with_controls(lab.workspace, job_config(lab, original), seeds)


def test_a_control_has_a_round_for_each_stage_that_runs(lab, original):
    """Tables at break-even stay dense, so their stage does not run and the control has one round."""
    dense = {layer.layer_name: layer.out_features for layer in model_profile(lab.workspace, original.id).compressible
             if layer.kind == "embedding"}  # fmt: skip
    config = job_config(lab, original)
    linear = {name: rank for name, rank in config.compress.plan.as_dict().items() if not name.startswith("embedding")}
    plan = RankPlan.of(linear | dense)
    queued = controls.submit_with_controls(lab.workspace, config.replace(compress=config.compress.replace(plan=plan)))
    found = [job for job in map(lab.workspace.store.jobs.get, queued) if job.kind == "control"]
    assert [job.config["rounds"] for job in found] == [1]


def test_the_arms_of_a_run_are_found_by_their_settings_whatever_their_seed(lab, original):
    mine = controls.submit_with_controls(lab.workspace, job_config(lab, original, max_rows=777), seeds=2)
    other = controls.submit_with_controls(lab.workspace, job_config(lab, original, max_rows=778))
    config = CompressJobConfig.from_dict(lab.workspace.store.jobs.get(mine[1]).config)  # the second seed's
    found = {job.id for job in controls.arms_of(lab.workspace, config)}
    compressions = {job for job in other if lab.workspace.store.jobs.get(job).kind == "compress"}
    assert found >= set(mine) and len(compressions) == 2 and not found & compressions
    for job in (*mine, *other):
        lab.workspace.store.jobs.request_cancel(job)

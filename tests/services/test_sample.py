"""The sample shows what its README says: planted ranks, a leak that is kept out, calibrated predictions, much to compress."""

import numpy as np
import pytest

import ctrlab
from ctrlab.data.synthetic import SyntheticConfig
from ctrlab.evaluation.delong import auc_difference, log_loss_difference
from ctrlab.evaluation.prediction import evaluate_model
from ctrlab.measuring.probe import Probe
from ctrlab.models.cost import measure_cost
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.cost_prediction import predict
from ctrlab.plans.ranks import plan_ranks
from ctrlab.services.sample import sample_folder
from ctrlab.services.work.shared import open_model, open_spectra

#: The tables at the ranks that the planner chose for at most 0.0005 of AUC; the last hidden layer by what clicks need of it.
RANKS = {
    "embedding.time_*": 1, "embedding.device": 5, "embedding.region": 6, "embedding.site": 3, "embedding.placement": 3,
    "embedding.advertiser": 6, "embedding.campaign": 4, "embedding.creative": 1, "embedding.user": 1, "embedding.page": 1,
    "mlp.2": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with ctrlab.Lab(tmp_path_factory.mktemp("sample") / "home") as lab:
        yield lab


@pytest.fixture(scope="module")
def ids(lab):
    return lab.open_sample()


@pytest.fixture(scope="module")
def opened(lab, ids):
    """The model and its dataset."""
    _, model, dataset = open_model(lab.workspace, ids["model"])
    return model, dataset


@pytest.fixture(scope="module")
def probe(lab, ids, opened):
    """Measures plans on the test part."""
    model, dataset = opened
    return Probe(model, open_spectra(lab.workspace, ids["spectra"]), dataset.split("test"))


def loss_of_auc(probe, name, rank):
    return probe.original.auc - probe.measure(CompressionSpec.of({name: rank})).auc


def test_the_committed_files_are_under_six_megabytes():
    assert sum(path.stat().st_size for path in sample_folder().iterdir() if path.is_file()) < 6e6


def test_it_is_opened_once(lab, ids):
    assert lab.open_sample() == ids


def test_its_predictions_are_calibrated_and_no_better_than_the_true_ones(opened):
    model, dataset = opened
    metrics = evaluate_model(model, dataset.split("test"))
    assert metrics.calibration_ratio == pytest.approx(1.0, abs=0.02)
    assert 0.74 < metrics.auc < 0.82
    rate = float(np.mean(dataset.split("test").labels))
    assert metrics.log_loss < -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)) - 0.05


def test_most_of_its_parameters_are_in_tables_with_a_long_tail(opened):
    model, dataset = opened
    cost = measure_cost(model)
    assert cost.parameters_tables > 0.85 * cost.parameters
    dims = dict(zip(dataset.schema.field_names, dataset.schema.field_dims, strict=True))
    assert dims["user"] + dims["creative"] > 0.8 * sum(dims.values())


def test_its_dataset_has_a_list_and_a_time_and_leaves_the_leak_out(lab, ids, opened):
    _, dataset = opened
    config = lab.workspace.store.artifacts.get(ids["dataset"]).config
    roles = {column["name"]: column["role"] for column in config["columns"]}
    assert roles[SyntheticConfig().leak_name] == "ignore"
    assert config["split"]["method"] == "time"
    assert [feature.shares for feature in dataset.schema.lists] == ["campaign"]
    assert not any("seconds" in name for name in (*dataset.schema.field_names, *dataset.schema.value_names))


def test_the_table_of_a_field_without_influence_has_variance_that_does_not_matter(probe):
    assert probe.spectra["embedding.page"].rank_for(0.95) >= 6
    assert abs(loss_of_auc(probe, "embedding.page", 1)) < 0.0005


def test_a_field_of_rank_2_needs_two_directions_and_loses_little_beyond(probe):
    assert loss_of_auc(probe, "embedding.region", 1) > 0.01
    assert loss_of_auc(probe, "embedding.region", 3) < 0.001


def test_the_last_hidden_layer_loses_clicks_at_a_rank_that_keeps_its_variance(probe):
    rank = probe.spectra["mlp.2"].rank_for(0.95)
    assert loss_of_auc(probe, "mlp.2", rank) > 0.003
    assert loss_of_auc(probe, "mlp.2", 16) < 0.0005


def test_ten_times_fewer_parameters_lose_nothing_that_can_be_measured(probe):
    spec = CompressionSpec(plan=plan_ranks(probe.profile, probe.spectra, ranks=RANKS))
    cost = predict(probe.profile, probe.spectra, spec).serving
    assert cost.parameters * 10 < probe.profile.cost.parameters
    measured = probe.measure(spec)
    auc = auc_difference(probe.labels, measured.logits, probe.original.logits)
    loss = log_loss_difference(probe.labels, measured.logits, probe.original.logits)
    assert auc.low < 0 < auc.high or auc.low >= 0
    assert loss.low < 0 < loss.high or loss.high <= 0
    assert auc.low > -0.003

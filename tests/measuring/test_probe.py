"""A plan measured in place is the plan's model measured, for every registered architecture."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ctrlab.compression.surgery import compress_model
from ctrlab.decomposition.collect import look_up_counts
from ctrlab.errors import CompressionError, DataError, JobCancelled
from ctrlab.evaluation.prediction import evaluate_model
from ctrlab.measuring.probe import Probe
from ctrlab.measuring.sensitivity_probe import measure_sensitivity, measured_ranks, monotone
from ctrlab.models.configs import MODELS
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import BOTTLENECKS, CompressionSpec, RankPlan
from ctrlab.plans.methods import METHODS
from ctrlab.plans.sensitivity import load_sensitivity, save_sensitivity
from tests.support.small_models import MemoryDataset, logits, make_model, spectra_of

DATA = MemoryDataset()


def probe_of(name, **settings):
    model = make_model(name, **settings)
    return model, Probe(model, spectra_of(model, loss_gradients=True), DATA.split("valid"), counts=look_up_counts(model, DATA))


def low_ranks(model, rank=2):
    return {layer.layer_name: min(rank, layer.out_features) for layer in profile_model(model).compressible}


@pytest.mark.parametrize("basis", ["per_field", "shared"])
@pytest.mark.parametrize("name", MODELS.names())
def test_a_measured_plan_has_the_logits_and_the_auc_of_the_really_compressed_model(name, basis):
    model, probe = probe_of(name)
    ranks = low_ranks(model)
    if not ranks:
        assert probe.measure(CompressionSpec.of({})) is probe.original
        return
    built = compress_model(model, CompressionSpec.of(ranks, basis=basis), probe.spectra).model
    measured = probe.measure(CompressionSpec.of(ranks, basis=basis))
    np.testing.assert_allclose(measured.logits, logits(built, DATA.fields("valid")).numpy(), atol=2e-5, rtol=1e-4)
    metrics = evaluate_model(built, DATA.split("valid"))
    assert measured.auc == pytest.approx(metrics.auc, abs=1e-6)
    assert measured.log_loss == pytest.approx(metrics.log_loss, abs=1e-6)


@pytest.mark.parametrize("method", [name for name in METHODS.names() if not METHODS[name].retrains])
@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_every_method_and_bottleneck_is_measured_as_it_would_be_built(method, bottleneck):
    model, probe = probe_of("deepfm")
    plan = RankPlan.of({"mlp.0": 6, "embedding.ad": 3, "embedding.site": 2})
    built = compress_model(
        model, CompressionSpec(plan=plan, bottleneck=bottleneck, method=method), probe.spectra, counts=probe.counts
    ).model
    measured = probe.measure(CompressionSpec(plan=plan, method=method, bottleneck=bottleneck))
    np.testing.assert_allclose(measured.logits, logits(built, DATA.fields("valid")).numpy(), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["deepfm", "din", "finalmlp"])
def test_measuring_leaves_the_model_as_it_was(name):
    model, probe = probe_of(name)
    modules, state = dict(model.named_modules()), {key: value.clone() for key, value in model.state_dict().items()}
    probe.measure(CompressionSpec.of(low_ranks(model)))
    with pytest.raises(JobCancelled):
        probe.measure(CompressionSpec.of(low_ranks(model)), should_stop=lambda: True)
    assert dict(model.named_modules()) == modules
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    np.testing.assert_array_equal(probe.original.logits, logits(model, DATA.fields("valid")).numpy())


def test_rows_are_drawn_at_random_with_their_labels_where_there_are_more_than_asked_for():
    model = make_model("deepfm")
    probe = Probe(model, {}, DATA.split("valid"), max_rows=150, seed=3)
    again = Probe(model, {}, DATA.split("valid"), max_rows=150, seed=3)
    assert probe.num_rows == len(probe.original.logits) == 150
    np.testing.assert_array_equal(probe.original.logits, again.original.logits)
    assert probe.original.auc == pytest.approx(roc_auc_score(probe.labels, probe.original.logits), abs=1e-12)
    whole = logits(model, DATA.fields("valid")).numpy()
    nearest = np.abs(whole - probe.original.logits[:, None]).argmin(axis=1)
    np.testing.assert_allclose(whole[nearest], probe.original.logits, atol=1e-6)
    np.testing.assert_array_equal(probe.labels, DATA.split("valid").labels[nearest])


def test_layers_at_break_even_stay_dense_as_they_do_in_compression():
    _, probe = probe_of("deepfm")
    assert probe.measure(CompressionSpec.of({"mlp.0": 32})) is probe.original
    full = probe.measure(CompressionSpec.of({"mlp.0": 32, "embedding.ad": 8}), respect_break_even=False)
    np.testing.assert_allclose(full.logits, probe.original.logits, atol=1e-5)


def test_what_does_not_fit_is_refused_with_a_sentence():
    model, probe = probe_of("deepfm")
    with pytest.raises(CompressionError, match="no layer is called mlp"):
        probe.measure(CompressionSpec.of({"mlp.9": 2}))
    with pytest.raises(CompressionError, match=r"has no spectrum.*collect the spectra"):
        Probe(model, {}, DATA.split("valid")).measure(CompressionSpec.of({"mlp.0": 2}))
    with pytest.raises(DataError, match="no validation rows"):
        Probe(model, {}, MemoryDataset(num_train=0).split("train"))
    compressed = compress_model(model, CompressionSpec.of({"mlp.0": 3}), probe.spectra).model
    with pytest.raises(CompressionError, match="compressed already"):
        Probe(compressed, {}, DATA.split("valid"))


def test_sensitivity_measures_every_layer_alone_and_survives_its_file(tmp_path):
    model, probe = probe_of("deepfm")
    seen = []
    found = measure_sensitivity(probe, on_progress=lambda fraction, message: seen.append(fraction))
    assert set(found.layers) == {layer.layer_name for layer in probe.profile.compressible}
    assert (found.auc, found.log_loss, found.num_rows) == (probe.original.auc, probe.original.log_loss, 400)
    assert seen == sorted(seen) and seen[0] >= 0 and seen[-1] < 1
    layer = found.layers["embedding.ad"]
    for rank, auc, log_loss in zip(layer.ranks, layer.aucs, layer.log_losses, strict=True):
        alone = compress_model(model, CompressionSpec.of({"embedding.ad": rank}), probe.spectra).model
        metrics = evaluate_model(alone, DATA.split("valid"))
        assert (auc, log_loss) == pytest.approx((metrics.auc, metrics.log_loss), abs=1e-6)
    save_sensitivity(tmp_path, found)
    assert load_sensitivity(tmp_path) == found


def test_sensitivity_stops_when_asked_and_keeps_to_the_layers_asked_for():
    _, probe = probe_of("deepfm")
    assert list(measure_sensitivity(probe, layer_names=["mlp.0"]).layers) == ["mlp.0"]
    with pytest.raises(JobCancelled):
        measure_sensitivity(probe, should_stop=lambda: True)


def test_layers_that_are_known_are_not_measured_again():
    _, probe = probe_of("dcn")
    partial = []
    whole = measure_sensitivity(probe, on_layer=partial.append)
    assert [len(so_far.layers) for so_far in partial] == list(range(1, len(whole.layers) + 1)) and partial[-1] == whole
    measured = []
    again = measure_sensitivity(
        probe, known=partial[2].layers, on_progress=lambda fraction, message: measured.append(message.split(" at ")[0])
    )
    assert again == whole and set(measured) == set(whole.layers) - set(partial[2].layers)


def test_ranks_measured_reach_from_one_to_the_last_that_pays():
    for layer in profile_model(make_model("deepfm")).compressible:
        grid = measured_ranks(layer)
        assert grid[0] == 1 and grid[-1] < layer.break_even <= grid[-1] + 1 and sorted(set(grid)) == list(grid)


@pytest.mark.parametrize("seed", range(20))
def test_the_monotone_fit_never_grows_and_is_the_nearest_that_does_not(seed):
    random = np.random.default_rng(seed)
    losses = np.sort(random.normal(size=6))[::-1] + random.normal(scale=0.3, size=6)
    fitted = np.array(monotone(losses))
    assert (np.diff(fitted) <= 1e-12).all() and (fitted >= 0).all()
    error = np.square(fitted - losses).sum()
    for _ in range(300):
        other = np.maximum(np.sort(fitted + random.normal(scale=0.2, size=6))[::-1], 0)
        assert np.square(other - losses).sum() >= error - 1e-5

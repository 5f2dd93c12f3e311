"""compression/recovery.py and regression.py: against NumPy's least squares, and the promises of METHOD.md."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ctrlab.compression.linear import FactoredLinear
from ctrlab.compression.pipeline import compress_and_finetune
from ctrlab.compression.recovery import order_of, recover
from ctrlab.compression.regression import Fit, LeastSquares, channel_fit, logistic_fit
from ctrlab.compression.surgery import compress_model
from ctrlab.errors import JobCancelled
from ctrlab.models.configs import MODELS
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressConfig, CompressionSpec, RankPlan
from ctrlab.training.configs import FitConfig
from tests.support.small_models import MemoryDataset, logits, make_model, random_fields, spectra_of

DATA = MemoryDataset()
ROWS = [random_fields(300, seed) for seed in range(3)]
SMALL = {"embedding.site": 2, "embedding.ad": 3, "mlp.0": 6, "mlp.2": 4}


def drawn(rows=400, inputs=7, outputs=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = (
        torch.randn(rows, inputs, generator=generator, dtype=torch.float64) @ torch.diag(torch.arange(1.0, inputs + 1).double())
        + 3
    )
    weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
    return x, x @ weight.T + torch.randn(rows, outputs, generator=generator, dtype=torch.float64) - 1


def counted(x, y):
    return LeastSquares.empty(x, y).add(x, y)


def mean_error(x, y, fit):
    return float((y - x @ fit.weight.T - fit.bias).square().sum(1).mean())


def test_without_ridge_the_fit_is_numpys_least_squares():
    x, y = drawn()
    found = counted(x, y).fit(torch.randn(4, 7).double(), 0.0)
    expected, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y.numpy(), rcond=None)
    np.testing.assert_allclose(found.weight, expected[:-1].T, atol=1e-9)
    np.testing.assert_allclose(found.bias, expected[-1], atol=1e-8)


def test_the_ridge_draws_the_fit_to_the_anchor_and_never_above_its_error():
    (x, y), anchor = drawn(), torch.randn(4, 7).double()
    sums = counted(x, y)
    start = sums.centred(Fit(anchor, torch.zeros(4).double()))
    errors = [sums.error(sums.fit(anchor, ridge)) for ridge in (0.0, 0.1, 10.0, 1e9)]
    assert errors == sorted(errors) and errors[-1] <= sums.error(start) * (1 + 1e-9)
    torch.testing.assert_close(sums.fit(anchor, 1e12).weight, anchor, atol=1e-6, rtol=1e-6)


def test_the_error_from_moments_is_the_mean_over_rows_and_merging_is_exact():
    x, y = drawn()
    fit = Fit(torch.randn(4, 7).double(), torch.randn(4).double())
    whole = counted(x, y)
    merged = counted(x[:150], y[:150]).merge(counted(x[150:], y[150:]))
    assert whole.error(fit) == pytest.approx(mean_error(x, y, fit), rel=1e-10)
    assert merged.error(fit) == pytest.approx(whole.error(fit), rel=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_no_map_of_the_rank_has_a_smaller_error_than_the_cut_fit(rank):
    x, y = drawn()
    sums = counted(x, y)
    full = sums.fit(torch.zeros(4, 7).double(), 0.0)
    encode, decode = sums.directions(full, rank, None, None)
    weight = decode @ encode.T @ full.weight
    own = mean_error(x, y, Fit(weight, sums.mean_y - weight @ sums.mean_x))
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        basis = torch.linalg.qr(torch.randn(4, rank, generator=generator).double()).Q
        other = counted(x, y @ basis).fit(torch.zeros(rank, 7).double(), 0.0)
        weight = basis @ other.weight
        assert own <= mean_error(x, y, Fit(weight, sums.mean_y - weight @ sums.mean_x)) * (1 + 1e-9)


def test_a_layer_without_a_bias_is_fitted_through_zero():
    x, y = drawn()
    found = counted(x, y).fit(torch.randn(4, 7).double(), 0.0, with_bias=False)
    expected, *_ = np.linalg.lstsq(x.numpy(), y.numpy(), rcond=None)
    np.testing.assert_allclose(found.weight, expected.T, atol=1e-8)
    assert not found.bias.any()


def test_channels_are_fitted_one_by_one_and_constant_ones_keep_their_slope():
    x = torch.randn(200, 3).double()
    y = torch.stack([2 * x[:, 0] + 1, -x[:, 1], x[:, 2]], 1)
    x[:, 2] = 5.0
    sums = LeastSquares.empty(x, y, by_channel=True).add(x, y)
    slope, shift = channel_fit(sums, (torch.ones(3).double(), torch.zeros(3).double()))
    torch.testing.assert_close(slope, torch.tensor([2.0, -1.0, 1.0]).double(), atol=1e-9, rtol=0)
    assert shift[0] == pytest.approx(1.0) and shift[2] == pytest.approx(float(y[:, 2].mean()) - 5.0)


def test_the_logistic_fit_finds_scales_and_intercept_that_were_applied():
    terms, rest = torch.randn(500, 2).double(), torch.randn(500).double()
    wanted = torch.sigmoid(rest + terms @ torch.tensor([0.5, 3.0]).double() - 0.7)
    scales, intercept = logistic_fit(terms, rest, wanted)
    assert [*scales, intercept] == pytest.approx([0.5, 3.0, -0.7], abs=1e-5)
    assert logistic_fit(terms, rest, wanted, with_intercept=False)[1] == 0.0


def test_layers_are_ordered_by_what_they_read():
    order = order_of(make_model("deepfm"), ROWS[0])
    assert order.levels == (("mlp.0",), ("mlp.2",)) and order.output_units == ("mlp.4",)
    assert set(order_of(make_model("dcn"), ROWS[0]).output_units) == {"cross_head", "mlp.4"}
    attention = order_of(make_model("autoint"), ROWS[0])
    (first, *_) = attention.levels
    assert len(first) >= 3 and attention.output_units == ("head",)


@pytest.mark.parametrize("name", MODELS.names())
def test_a_model_that_was_not_compressed_is_not_changed(name):
    model = make_model(name, batch_norm=True)
    found = recover(model, model, ROWS)
    torch.testing.assert_close(logits(found, ROWS[0]), logits(model, ROWS[0]), atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize("method", ["afm", "weighted_afm"])
@pytest.mark.parametrize("name", MODELS.names())
def test_every_architecture_is_recovered_with_all_layers_small(name, method):
    model = make_model(name)
    ranks = {layer.layer_name: min(3, layer.out_features) for layer in profile_model(model).compressible}
    spectra = spectra_of(model, loss_gradients=True)
    small = compress_model(model, CompressionSpec.of(ranks, method=method), spectra).model.eval()
    found = recover(model, small, ROWS, spectra)
    assert {key: value.shape for key, value in found.state_dict().items()} == {
        key: value.shape for key, value in small.state_dict().items()
    }
    assert torch.isfinite(logits(found, ROWS[0])).all()


@pytest.mark.parametrize("method", ["afm", "weighted_afm"])
@pytest.mark.parametrize("name", ["deepfm", "dcn"])
def test_at_full_rank_and_without_ridge_nothing_changes(name, method):
    model = make_model(name)
    full = {layer.layer_name: layer.out_features for layer in profile_model(model).compressible}
    spectra = spectra_of(model, loss_gradients=True)
    same = compress_model(model, CompressionSpec.of(full, method=method), spectra, respect_break_even=False).model
    found = recover(model, same, ROWS, spectra, ridge=1e-12)
    torch.testing.assert_close(logits(found, ROWS[0]), logits(model, ROWS[0]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bottleneck", ["none", "prelu", "relu"])
def test_the_squared_error_of_a_layer_never_rises_on_the_calibration_rows(bottleneck):
    model = make_model("deepfm")
    small = compress_model(model, CompressionSpec.of(SMALL, bottleneck=bottleneck), spectra_of(model)).model.eval()
    found = recover(model, small, ROWS)

    def error(compressed):
        total = 0.0
        with torch.no_grad():
            for rows in ROWS:
                x_hat = compressed.embedding.dense_input(compressed.embedding(rows), rows)
                y = model.mlp[0](model.embedding.dense_input(model.embedding(rows), rows))
                total += float((compressed.mlp[0](x_hat) - y).square().sum())
        return total

    assert isinstance(found.mlp[0], FactoredLinear) and found.mlp[0].rank == 6
    assert error(found) < 0.999 * error(small)


def test_the_logits_come_nearer_to_the_originals_and_the_original_stays_as_it_is():
    model = make_model("deepfm", batch_norm=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = compress_model(model, CompressionSpec.of({"embedding.ad": 2, "mlp.0": 4}), spectra_of(model)).model.eval()
    truncated = {name: value.clone() for name, value in small.state_dict().items()}
    found = recover(model, small, ROWS)
    errors = [sum(float((logits(each, rows) - logits(model, rows)).square().sum()) for rows in ROWS) for each in (small, found)]
    assert errors[1] < errors[0]
    for module, kept in ((model, before), (small, truncated)):
        assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_scale_and_shift_of_batch_normalisation_are_fitted_again():
    model = make_model("deepfm", batch_norm=True)
    small = compress_model(model, CompressionSpec.of({"embedding.ad": 1, "mlp.0": 2}), spectra_of(model)).model.eval()
    found = recover(model, small, ROWS)
    norms = [(old, new) for old, new in zip(small.modules(), found.modules(), strict=True) if isinstance(old, nn.BatchNorm1d)]
    assert norms and any(not torch.equal(old.weight, new.weight) for old, new in norms)


def test_a_cancelled_recovery_ends_between_batches():
    model = make_model("deepfm")
    with pytest.raises(JobCancelled):
        recover(model, model, ROWS, should_stop=lambda: True)


@pytest.mark.parametrize("finetune", [None, FitConfig(batch_size=200, epochs=1, learning_rate=3e-3, device="cpu")])
def test_where_it_helps_means_a_lower_log_loss_of_the_validation_rows(finetune, tmp_path):
    model = make_model("deepfm")
    config = CompressConfig(plan=RankPlan.of(SMALL), order="joint", finetune=finetune, method="weighted_afm")
    plain, best, on = (
        compress_and_finetune(model, DATA, config.replace(recovery=recovery), checkpoint_dir=tmp_path / recovery).stages[0]
        for recovery in ("off", "best", "on")
    )
    assert plain.recovery is None and on.recovery["kept"]
    assert best.recovery["kept"] == (best.recovery["log_loss"] < best.recovery["before_log_loss"])
    assert best.recovery["before_log_loss"] == pytest.approx(plain.truncated_log_loss, abs=1e-6)
    least = min(best.recovery["log_loss"], best.recovery["before_log_loss"])
    assert best.truncated_log_loss == pytest.approx(least, abs=1e-6)
    again = compress_and_finetune(model, DATA, config.replace(recovery="best"), checkpoint_dir=tmp_path / "best").stages[0]
    assert again.recovery == best.recovery


def test_the_directions_are_weighted_by_the_loss_only_where_the_method_is():
    model = make_model("deepfm")
    spectra = spectra_of(model, loss_gradients=True)
    plain = {name: replace(spectrum, gradients=None, loss_eigenvalues=None) for name, spectrum in spectra.items()}
    config = CompressConfig(plan=RankPlan.of(SMALL), order="joint", recovery="on")
    with_gradients, without = (compress_and_finetune(model, DATA, config, given).model for given in (spectra, plain))
    torch.testing.assert_close(logits(with_gradients, ROWS[0]), logits(without, ROWS[0]), atol=1e-5, rtol=1e-5)
    weighted = compress_and_finetune(model, DATA, config.replace(method="weighted_afm"), spectra).model
    assert not torch.allclose(logits(weighted, ROWS[0]), logits(without, ROWS[0]), atol=1e-4)

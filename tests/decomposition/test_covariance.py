import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from ctrlab.decomposition.covariance import Moments, decompose
from ctrlab.errors import SpectrumError


def _rows(num_rows: int, width: int, seed: int, offset: float = 0.0, decay: float = 0.7) -> torch.Tensor:
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(width, width)) * decay ** np.arange(width)[:, None]
    return torch.tensor(random.normal(size=(num_rows, width)) @ mixing + offset * (1 + random.random(width)), dtype=torch.float32)


def _spectrum(rows: torch.Tensor, batch: int = 100):
    moments = Moments(rows.shape[1])
    for block in rows.split(batch):
        moments.update(block)
    return decompose("layer", "linear", moments, torch.ones(1))


@given(st.integers(2, 400), st.integers(1, 40), st.integers(1, 150), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_streaming_in_any_batch_size_equals_one_exact_pass(num_rows, width, batch, seed):
    rows = _rows(num_rows, width, seed, offset=3.0)
    moments = Moments(width)
    for block in rows.split(batch):
        moments.update(block)
    exact = rows.double()
    assert moments.n == num_rows
    torch.testing.assert_close(moments.mean, exact.mean(0), rtol=1e-12, atol=1e-12)
    scale = float(torch.cov(exact.T, correction=0).reshape(width, width).diagonal().max())
    torch.testing.assert_close(
        moments.covariance, torch.cov(exact.T, correction=0).reshape(width, width), rtol=0, atol=1e-11 * scale
    )


@pytest.mark.parametrize("offset", [0.0, 30.0, 1000.0])
@pytest.mark.parametrize("decay", [0.9, 0.3])
def test_discarded_eigenvalues_are_the_squared_error_on_the_calibration_rows(offset, decay):
    rows = _rows(3000, 24, seed=1, offset=offset, decay=decay)
    rows = rows / (rows - rows.mean(0)).std() if offset == 0 else rows
    spectrum = _spectrum(rows, batch=257)
    exact = rows.double().numpy()
    for rank in (1, 3, 8):
        basis = spectrum.eigenvectors[:, :rank]
        restored = (exact - spectrum.mean) @ basis @ basis.T + spectrum.mean
        error = ((exact - restored) ** 2).sum(1).mean()
        assert spectrum.discarded(rank) == pytest.approx(error, rel=1e-6)


def test_a_spectrum_agrees_with_scikit_learns_pca():
    rows = _rows(2000, 16, seed=2, offset=5.0)
    spectrum, oracle = _spectrum(rows), PCA(svd_solver="full").fit(rows.double().numpy())
    np.testing.assert_allclose(spectrum.eigenvalues, oracle.explained_variance_ * (1999 / 2000), rtol=1e-9)
    np.testing.assert_allclose(spectrum.explained_variance_ratio, oracle.explained_variance_ratio_, rtol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(spectrum.eigenvectors * oracle.components_.T, axis=0)), 1.0, rtol=1e-7)


def test_weights_count_rows_several_times_and_zero_weights_not_at_all():
    rows = _rows(60, 5, seed=3)
    counts = torch.tensor(np.random.default_rng(0).integers(0, 4, 60))
    weighted = Moments(5)
    for start in range(0, 60, 7):
        weighted.update(rows[start : start + 7], counts[start : start + 7])
    repeated = Moments(5).update(rows.repeat_interleave(counts, dim=0))
    assert weighted.n == repeated.n
    torch.testing.assert_close(weighted.covariance, repeated.covariance, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(Moments(5).update(rows, torch.zeros(60)).merge(repeated).covariance, repeated.covariance)


def test_merging_halves_equals_seeing_all_rows():
    rows = _rows(500, 6, seed=4, offset=100.0)
    merged = Moments(6).update(rows[:123]).merge(Moments(6).update(rows[123:]))
    torch.testing.assert_close(merged.covariance, Moments(6).update(rows).covariance, rtol=1e-10, atol=1e-10)


def test_eigenvectors_are_orthonormal_with_a_positive_largest_entry():
    vectors = _spectrum(_rows(300, 12, seed=5)).eigenvectors
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(12), atol=1e-12)
    assert (vectors[np.abs(vectors).argmax(0), np.arange(12)] > 0).all()


def test_a_constant_output_has_no_variance_and_rank_one_suffices():
    spectrum = _spectrum(torch.full((50, 4), 2.5))
    assert spectrum.total_variance == 0 and spectrum.rank_for(0.99) == 1 and spectrum.variance_lost(1) == 0


def test_no_rows_and_values_that_are_not_finite_are_refused_in_a_sentence():
    with pytest.raises(SpectrumError, match="no rows"):
        decompose("mlp.0", "linear", Moments(3), torch.ones(1))
    with pytest.raises(SpectrumError, match=r"mlp\.0 gave values that are not finite"):
        decompose("mlp.0", "linear", Moments(3).update(torch.full((4, 3), torch.inf)), torch.ones(1))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_wide_float32_rows_keep_the_small_eigenvalues_beside_one_that_holds_nearly_everything(offset, weighted):
    random = np.random.default_rng(5)
    scales = np.concatenate([[30.0], 0.9 ** np.arange(95)])  # 99.9 % of the variance in one direction
    turned = np.linalg.qr(random.normal(size=(96, 96)))[0]
    rows = torch.tensor((random.normal(size=(16_384, 96)) * scales) @ turned + offset, dtype=torch.float32)
    counts = torch.tensor(random.integers(0, 5, len(rows))) if weighted else None
    moments = Moments(96)
    for start in range(0, len(rows), 8192):
        part = slice(start, start + 8192)
        moments.update(rows[part], counts[part] if counts is not None else None)
    exact = np.cov(rows.double().numpy().T, ddof=0, fweights=None if counts is None else counts.numpy())
    values, found = np.linalg.eigvalsh(exact), np.linalg.eigvalsh(moments.covariance.numpy())
    np.testing.assert_allclose(np.cumsum(found), np.cumsum(values), rtol=0, atol=1e-7 * values.sum())
    np.testing.assert_allclose(moments.mean, rows.double().numpy().T @ (np.ones(len(rows)) if counts is None else counts.numpy())
                               / moments.n, rtol=1e-6, atol=1e-6)  # fmt: skip
    np.testing.assert_allclose(found, values, rtol=0, atol=3e-8 * values.sum())


def test_the_float32_path_is_taken_and_differs_only_by_rounding():
    rows = _rows(4096, 70, seed=6, decay=0.9)
    fast, exact = Moments(70).update(rows), Moments(70).update(rows.double())
    assert not torch.equal(fast.scatter, exact.scatter) and torch.equal(fast.scatter, fast.scatter.T)
    torch.testing.assert_close(fast.scatter, exact.scatter, rtol=0, atol=1e-6 * float(exact.scatter.trace()))

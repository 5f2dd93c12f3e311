import numpy as np
import pytest

from ctrlab.kernels.moments import add_moments, project


@pytest.mark.parametrize("width", [1, 3, 4, 10, 16, 33])
@pytest.mark.parametrize("count", [1, 255, 256, 257, 1000])
def test_moments_and_projection_equal_plain_numpy(width, count):
    random = np.random.default_rng(width * count)
    rows = (random.normal(size=(count, width)) + 500).astype(np.float32)
    weights = random.integers(0, 4, count).astype(float)
    weights[0] = 2
    rank = (width + 1) // 2
    for given in (weights, np.empty(0)):
        counted = given if len(given) else np.ones(count)
        mean, scatter = np.zeros(width), np.zeros((width, width))
        half = count // 2
        n = add_moments(rows[:half], given[:half], 0.0, mean, scatter)
        n = add_moments(rows[half:], given[half:], n, mean, scatter)
        expected = counted @ rows.astype(float) / counted.sum()
        centred = rows - expected
        assert n == counted.sum()
        np.testing.assert_allclose(mean, expected, rtol=1e-13)
        np.testing.assert_allclose(scatter, (centred * counted[:, None]).T @ centred, rtol=1e-9, atol=1e-9)
        basis, out = random.normal(size=(width, rank)), np.empty((count, rank), np.float32)
        project(rows, mean, basis, out)
        np.testing.assert_allclose(out, ((rows - mean) @ basis).astype(np.float32), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_not_lost(bad):
    rows = np.ones((300, 5), np.float32)
    rows[280, 2] = bad
    mean, scatter = np.zeros(5), np.zeros((5, 5))
    add_moments(rows, np.empty(0), 0.0, mean, scatter)
    assert not np.isfinite(scatter[2, 2])

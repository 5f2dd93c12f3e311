import subprocess
import sys

import numpy as np
import pytest

from ctrlab.decomposition.spectrum import LayerSpectrum, load_spectra, save_spectra
from ctrlab.errors import SpectrumError


def _spectrum(eigenvalues, name="mlp.0", kind="linear"):
    eigenvalues = np.array(eigenvalues, dtype=np.float64)
    width = len(eigenvalues)
    return LayerSpectrum(
        layer_name=name, kind=kind, eigenvalues=eigenvalues, eigenvectors=np.eye(width), mean=np.arange(width) * 1.0,
        num_samples=10, weight_singular_values=np.ones(width),
    )  # fmt: skip


def test_rank_for_is_the_smallest_rank_that_reaches_the_variance():
    spectrum = _spectrum([6.0, 3.0, 1.0, 0.0])
    assert [spectrum.rank_for(variance) for variance in (0.0, 0.5, 0.6, 0.61, 0.9, 0.95, 1.0)] == [1, 1, 1, 2, 2, 3, 3]
    assert spectrum.cumulative.tolist() == pytest.approx([0.6, 0.9, 1.0, 1.0])
    assert spectrum.variance_lost(1) == pytest.approx(0.4) and spectrum.variance_lost(4) == 0 and spectrum.discarded(2) == 1.0
    with pytest.raises(SpectrumError, match="between 0 and 1"):
        spectrum.rank_for(1.5)


def test_effective_rank_counts_equal_directions():
    assert _spectrum([2.0, 2.0, 2.0, 0.0]).effective_rank == pytest.approx(3)
    assert _spectrum([5.0, 0.0]).effective_rank == pytest.approx(1)


def test_a_tail_a_billion_times_smaller_keeps_its_digits():
    assert _spectrum([1.0, 3e-13, 1e-13]).variance_lost(1) == pytest.approx(4e-13, rel=1e-9)


def test_spectra_come_back_as_they_were_saved(tmp_path):
    saved = {name: _spectrum([4.0, 1.0], name, "embedding") for name in ("embedding.a/b:c", "embedding.ü")}
    saved["mlp.0"] = _spectrum([3.0, 2.0], "mlp.0", "linear")
    save_spectra(tmp_path / "s", saved)
    small, whole = load_spectra(tmp_path / "s"), load_spectra(tmp_path / "s", eigenvectors=True)
    assert list(small) == list(saved) and small["mlp.0"].eigenvectors is None
    np.testing.assert_array_equal(small["embedding.ü"].eigenvectors, saved["embedding.ü"].eigenvectors)
    for name, spectrum in saved.items():
        for part in ("eigenvalues", "eigenvectors", "mean", "weight_singular_values"):
            np.testing.assert_array_equal(getattr(whole[name], part), getattr(spectrum, part))
    with pytest.raises(SpectrumError, match="has no eigenvectors"):
        save_spectra(tmp_path / "t", small)


def test_missing_and_damaged_spectra_are_refused(tmp_path):
    with pytest.raises(SpectrumError, match="collect them again"):
        load_spectra(tmp_path)
    save_spectra(tmp_path, {"a": _spectrum([1.0])})
    (tmp_path / "spectra.npz").write_bytes(b"junk")
    with pytest.raises(SpectrumError, match="cannot be read"):
        load_spectra(tmp_path)


def test_spectra_profiles_and_plans_load_without_torch():
    code = (
        "import sys, ctrlab.decomposition.spectrum, ctrlab.models.profile, ctrlab.plans.ranks, ctrlab.plans.configs;"
        "assert not {'torch', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""One basis for all tables of an embedding, from their spectra; loads without torch."""

from collections.abc import Iterable, Sequence

import numpy as np

from ctrlab.decomposition.spectrum import FloatArray, LayerSpectrum
from ctrlab.errors import CompressionError


def principal_basis(second_moments: Iterable[FloatArray], rank: int) -> FloatArray:
    """U_k (d, k): eigenvectors of the largest eigenvalues of the summed second moments E[e e^T] (d, d), float64.

    No other k directions shared by the fields leave a smaller sum over the fields of E|e_f - U U^T e_f|^2. Not centred, so that
    inner products of vectors are those of their latents. Signs are fixed by making each vector's largest entry positive.
    """
    _, vectors = np.linalg.eigh(np.sum(list(second_moments), axis=0))
    basis = vectors[:, ::-1][:, :rank]
    largest = np.take_along_axis(basis, np.abs(basis).argmax(axis=0, keepdims=True), axis=0)
    signed: FloatArray = basis * np.sign(largest)
    return signed


def second_moment(spectrum: LayerSpectrum) -> FloatArray:
    """E[e e^T] = C + mu mu^T (d, d) over the training rows."""
    if spectrum.eigenvectors is None:
        raise CompressionError(f"a shared basis needs the eigenvectors of {spectrum.layer_name}; load the spectra with them")
    moment: FloatArray = spectrum.eigenvectors * spectrum.eigenvalues @ spectrum.eigenvectors.T + np.outer(
        spectrum.mean, spectrum.mean
    )
    return moment


def shared_variance_lost(spectra: Sequence[LayerSpectrum], rank: int) -> dict[str, float]:
    """{table: squared error of the shared basis of `rank` directions as a share of the table's variance}; may exceed 1."""
    return {name: float(shares[rank]) for name, shares in shared_variance_losses(spectra).items()}


def shared_variance_losses(spectra: Sequence[LayerSpectrum]) -> dict[str, FloatArray]:
    """{table: array (width + 1,)}, `shared_variance_lost` at every rank from 0 on."""
    moments = {spectrum.layer_name: second_moment(spectrum) for spectrum in spectra}
    basis = principal_basis(moments.values(), spectra[0].width)
    lost = {}
    for spectrum in spectra:
        kept = np.einsum("ik,ij,jk->k", basis, moments[spectrum.layer_name], basis, optimize=True)
        errors = np.maximum(np.trace(moments[spectrum.layer_name]) - np.concatenate([[0.0], np.cumsum(kept)]), 0.0)
        lost[spectrum.layer_name] = errors / spectrum.total_variance if spectrum.total_variance > 0 else np.zeros_like(errors)
    return lost

"""One function fills the factors of a linear layer, whoever compresses it."""

import pytest
import torch

import ctrlab
from ctrlab.compression.afm import AFM
from ctrlab.compression.linear import FactoredLinear, factor_linear_, factors_of
from ctrlab.compression.surgery import compress_model
from ctrlab.compression.svd import WeightSVD
from ctrlab.measuring.truncation import truncated
from ctrlab.plans.configs import BOTTLENECKS, CompressionSpec
from tests.support.small_models import MemoryDataset, make_model, spectra_of

RANKS = {"mlp.0": 6, "mlp.2": 4}


def in_place_weights(model, spectra, bottleneck):
    with truncated(model, RANKS, spectra, AFM(), bottleneck, "per_field"):
        return {name: model.get_submodule(name).state_dict() for name in RANKS}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_a_compressed_model_a_probe_and_any_module_get_the_same_weights(bottleneck, dtype):
    model = make_model("deepfm")
    spectra = spectra_of(model, MemoryDataset())
    model = model.to(dtype)
    built = compress_model(model, CompressionSpec.of(RANKS, bottleneck=bottleneck), spectra).model
    foreign = {f"{name.removeprefix('mlp.')}": spectra[name] for name in RANKS}
    alone = ctrlab.compress(model.mlp, None, ranks={"0": 6, "2": 4}, spectra=foreign, bottleneck=bottleneck).model
    measured = in_place_weights(model, spectra, bottleneck)
    for name in RANKS:
        expected = built.get_submodule(name).state_dict()
        assert expected["reduce.weight"].dtype == dtype and expected["reduce.weight"].abs().sum() > 0
        for other in (measured[name], alone.get_submodule(name.removeprefix("mlp.")).state_dict()):
            torch.testing.assert_close(other, expected, rtol=0, atol=0)


def test_factors_that_come_from_elsewhere_can_be_filled_in():
    dense, generator = torch.nn.Linear(9, 7), torch.random.get_rng_state()
    factored = FactoredLinear.unfilled(dense.requires_grad_(False).eval(), 3, "none")
    assert torch.equal(generator, torch.random.get_rng_state())
    assert not factored.training and not any(parameter.requires_grad for parameter in factored.parameters())
    factors = factors_of(dense, WeightSVD(), None, 3)
    shifted = factors._replace(restore_bias=factors.restore_bias + 1)
    factor_linear_(factored, shifted)
    x = torch.randn(5, 9)
    direct = x.double() @ factors.reduce_weight.T @ factors.restore_weight.T + dense.bias.double() + 1
    torch.testing.assert_close(factored(x).double(), direct, rtol=1e-5, atol=1e-5)

"""Training and timing leave the caller's floating-point setting as they found it."""

import pytest
import torch

from ctrlab.engines.denormals import are_flushed, flushed_denormals
from ctrlab.evaluation.latency import measure_latency
from ctrlab.training.configs import FitConfig
from ctrlab.training.loop import fit
from tests.support.small_models import MemoryDataset, make_model


@pytest.fixture(params=[False, True])
def setting(request):
    torch.set_flush_denormal(request.param)
    yield request.param
    torch.set_flush_denormal(False)


def test_denormals_are_flushed_inside_the_block_and_as_before_after_it(setting):
    with pytest.raises(ZeroDivisionError), flushed_denormals():
        assert are_flushed()
        raise ZeroDivisionError
    assert are_flushed() == setting


def test_a_fit_leaves_the_setting_as_it_was(setting):
    fit(make_model("deepfm"), MemoryDataset(), FitConfig(batch_size=256))
    assert are_flushed() == setting


def test_a_timing_leaves_the_setting_as_it_was(setting):
    measure_latency(make_model("deepfm"), MemoryDataset().split("valid"), (4,), seconds=0.01)
    assert are_flushed() == setting


def test_overlapping_blocks_may_end_in_any_order(setting):
    first, second = flushed_denormals(), flushed_denormals()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert are_flushed()
    second.__exit__(None, None, None)
    assert are_flushed() == setting

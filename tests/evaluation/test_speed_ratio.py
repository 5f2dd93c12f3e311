"""Ratios of speed: of timings of one job, within their interval, or no verdict."""

import numpy as np
import pytest
import torch

from ctrlab.evaluation.latency import Contender, time_together
from ctrlab.evaluation.speed_ratio import ratio_of_rounds
from tests.support.small_models import MemoryDataset, make_model

ROUNDS = 9


def timing(rounds, wild=1.2):
    return {"p50_ms": float(np.median(rounds)), "p99_ms": float(np.median(rounds)) * wild, "rounds_ms": list(rounds)}


def ratio(model, reference):
    return ratio_of_rounds(model, reference, batch_size=256, runtime="torch")


def test_the_interval_of_a_ratio_covers_the_truth_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        load = np.exp(0.5 * rng.normal(size=ROUNDS))  # of a round: both models meet it
        fast, slow = (load * np.exp(0.03 * rng.standard_t(2, size=ROUNDS)) * own for own in (1.0, 2.0))
        found = ratio(timing(fast), timing(slow))
        covered += found.low <= 2.0 <= found.high
    assert covered / 400 > 0.93


@pytest.mark.parametrize("load", ["none", "drift", "bursts"])
def test_two_models_of_equal_speed_are_called_equal_within_a_tenth_or_there_is_no_verdict(load):
    rng, verdicts = np.random.default_rng(1), 0
    for _ in range(300):
        turns = np.exp(0.02 * rng.normal(size=2 * ROUNDS))
        if load == "drift":
            turns *= np.linspace(1.0, 8.0, 2 * ROUNDS)
        if load == "bursts":
            turns *= np.where(rng.random(2 * ROUNDS) < 0.3, 6.0, 1.0)
        pairs = turns.reshape(ROUNDS, 2)
        pairs[1::2] = pairs[1::2, ::-1]  # every other round runs backwards
        found = ratio(timing(pairs[:, 0]), timing(pairs[:, 1]))
        verdicts += not found.reason
        assert found.reason or 1 / 1.1 < found.ratio < 1.1
    assert load != "none" or verdicts > 290


@pytest.mark.parametrize(
    ("fast", "reason"),
    [
        (timing([1.0, 1.0, 1.0]), "fewer than 6 rounds"),
        (timing([1.0] * ROUNDS, wild=40.0), "the slowest calls took 40 times the median"),
        (timing([0.5, 2.0, 1.0, 0.5, 2.0, 1.0, 1.0, 2.0, 0.5]), "varied too much"),
    ],
)
def test_a_timing_that_says_nothing_says_why(fast, reason):
    found = ratio(fast, timing([2.0] * len(fast["rounds_ms"])))
    assert reason in found.reason


class Counted(torch.nn.Module):
    """Notes its name at every call."""

    def __init__(self, name, calls):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.name, self.calls = name, calls

    def forward(self, fields):
        self.calls.append(self.name)
        return fields.values.sum(dim=1)


def test_in_every_round_each_model_has_its_turn_and_none_is_always_first():
    calls = []
    contenders = {name: Contender(model=Counted(name, calls)) for name in "abc"}
    found = time_together(contenders, MemoryDataset().split("valid"), (4,), seconds=0.0, rounds=6)["torch"]
    turns = [name for name, before in zip(calls, [None, *calls], strict=False) if name != before]
    after_warm_up = "".join(turns[3:] if turns[2] != turns[3] else turns[2:])
    assert {name: len(own[4].rounds_ms) for name, own in found.items()} == dict.fromkeys("abc", 6)
    assert {after_warm_up[0], after_warm_up[-1]} != {"a"}
    assert all(calls.count(name) == calls.count("a") for name in "bc")


def test_two_models_of_equal_shape_timed_together_here_are_within_a_tenth_or_have_no_verdict():
    contenders = {name: Contender(model=make_model("deepfm")) for name in "ab"}
    found = time_together(contenders, MemoryDataset().split("valid"), (256,), seconds=0.2, threads=1)["torch"]
    of_both = ratio(*(own[256].to_dict() for own in found.values()))
    assert of_both.reason or 1 / 1.1 < of_both.ratio < 1.1

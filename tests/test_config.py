"""Configs: validation that lists every fault, and JSON both ways."""

from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrlab.config import Config, option
from ctrlab.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner(Config):
    rate: float = option(0.5, minimum=0.0, maximum=1.0)


@dataclass(frozen=True, kw_only=True)
class Outer(Config):
    name: str
    size: int = option(4, minimum=1, maximum=10)
    widths: tuple[int, ...] = option((8, 8), minimum=1)
    mode: Literal["a", "b"] = "a"
    limit: int | None = None
    inner: Inner = option(default_factory=Inner)
    several: tuple[Inner, ...] = ()

    def faults(self):
        return ["size must be even"] if self.size % 2 else []


def test_every_fault_is_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        Outer(name=3, size=11, widths=(0,), mode="c")
    message = str(caught.value)
    assert all(
        part in message for part in ("name must be str", "between 1 and 10, got 11", "widths must be at least 1", "'a' or 'b'")
    )


def test_faults_across_fields_are_reported():
    with pytest.raises(ConfigError, match="size must be even"):
        Outer(name="x", size=3)


@pytest.mark.parametrize("value", [float("nan"), True, "0.5"])
def test_a_number_field_refuses_what_is_no_number(value):
    with pytest.raises(ConfigError, match="rate must be"):
        Inner(rate=value)


@given(
    size=st.sampled_from([2, 4, 6, 8, 10]),
    widths=st.lists(st.integers(1, 1000), max_size=5),
    limit=st.none() | st.integers(),
    rates=st.lists(st.floats(0, 1), max_size=3),
)
def test_json_round_trip_keeps_everything(size, widths, limit, rates):
    config = Outer(name="é", size=size, widths=widths, limit=limit, several=tuple(Inner(rate=rate) for rate in rates))
    assert Outer.from_json(config.to_json()) == config


def test_lists_become_tuples_so_configs_stay_hashable():
    assert hash(Outer(name="x", widths=[1, 2])) == hash(Outer(name="x", widths=(1, 2)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "x", "sise": 3}, "unknown setting sise; known are"),
        ({"name": "x", "version": 9}, "version 9"),
        ({}, "setting name is required"),
        ({"name": "x", "inner": {"rate": 2}}, "rate must be between"),
        ([1], "expected an object"),
    ],
)
def test_unusable_json_is_refused_with_the_reason(values, message):
    with pytest.raises(ConfigError, match=message):
        Outer.from_dict(values)


def test_text_that_is_no_json_is_refused():
    with pytest.raises(ConfigError, match="not valid JSON"):
        Outer.from_json("{")

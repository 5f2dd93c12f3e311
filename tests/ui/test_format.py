from datetime import UTC, datetime, timedelta

import pytest

from ctrlab.ui import format


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "under 1 s"),
        (42.4, "42 s"),
        (59.7, "1 min"),
        (95, "1 min 35 s"),
        (754, "13 min"),
        (3600, "1 h"),
        (7300, "2 h 2 min"),
        (None, format.NONE),
    ],
)
def test_durations_have_at_most_two_units(seconds: float | None, text: str) -> None:
    assert format.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00061, "+0.0006"), (-0.0012, "\N{MINUS SIGN}0.0012"), (0.00001, "±0.0000"), (float("nan"), format.NONE)],
)
def test_differences_carry_their_sign_and_four_digits(value: float, text: str) -> None:
    assert format.difference(value) == text


def test_auc_has_four_digits_and_a_dash_when_it_is_not_known() -> None:
    assert [format.auc(0.76291), format.auc(None), format.auc(float("nan"))] == ["0.7629", format.NONE, format.NONE]


def test_a_rate_has_its_unit() -> None:
    assert format.rate(61_000) == "61.0 k rows/s"


@pytest.mark.parametrize(("past", "text"), [(3, "just now"), (200, "3 min ago"), (7300, "2 h ago"), (90_000, "22 Nov 2026")])
def test_times_are_shown_relative_to_now(past: int, text: str) -> None:
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert format.ago(now - timedelta(seconds=past), now) == text


@pytest.mark.parametrize(("value", "text"), [((400, 400), "400, 400"), (True, "yes"), (None, "not set"), (1e-3, "0.001")])
def test_settings_show_as_they_would_be_typed(value: object, text: str) -> None:
    assert format.setting(value) == text

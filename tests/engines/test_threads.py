"""engines/threads.py."""

import itertools
import threading

import pytest

from ctrlab.engines.threads import ThreadParts, lookahead, prefetch
from ctrlab.kernels.parts import SMALL


@pytest.mark.parametrize("total", [0, 1, 7, SMALL + 3])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_parts_cover_everything_once(total, threads):
    seen = []
    with ThreadParts(threads) as parts:
        parts(lambda first, last: seen.append((first, last)), total)
    assert sorted(place for first, last in seen for place in range(first, last)) == list(range(total))
    assert len(seen) == (threads if total >= SMALL else 1)


def test_what_a_part_raises_is_raised():
    def fail_late(first, last):
        if first:
            raise ValueError("part")

    with ThreadParts(2) as parts, pytest.raises(ValueError, match="part"):
        parts(fail_late, SMALL)


def test_every_item_comes_with_the_one_behind_it():
    assert list(lookahead("abc")) == [("a", "b"), ("b", "c"), ("c", None)]
    assert list(lookahead([])) == []


def test_items_come_in_order_whatever_is_prefetch():
    assert list(prefetch(iter(range(50)))) == list(range(50))
    assert list(prefetch(iter([]))) == []


def test_what_the_items_raise_is_raised_in_its_place():
    def items():
        yield 1
        raise KeyError("broken")

    ahead = prefetch(items())
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="broken"):
        next(ahead)


def test_closing_ends_the_thread_and_draws_no_more_than_was_prepared():
    drawn = []

    def items():
        for item in itertools.count():
            drawn.append(item)
            yield item

    ahead = prefetch(items(), ahead=2)
    assert next(ahead) == 0
    ahead.close()
    assert not any(thread.name == "ctrlab-batches" for thread in threading.enumerate())
    assert len(drawn) <= 5

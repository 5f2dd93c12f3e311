"""kernels/threads.py."""

import itertools
import threading

import pytest
import torch

from ctrlab.kernels.threads import SMALL, in_parts, prepared_ahead, with_next


@pytest.mark.parametrize("total", [0, 1, 7, SMALL + 3])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_parts_cover_everything_once(total, threads):
    before, seen = torch.get_num_threads(), []
    try:
        torch.set_num_threads(threads)
        in_parts(lambda first, last: seen.append((first, last)), total)
    finally:
        torch.set_num_threads(before)
    assert sorted(place for first, last in seen for place in range(first, last)) == list(range(total))
    assert len(seen) == (threads if total >= SMALL else 1)


def test_what_a_part_raises_is_raised():
    def fail_late(first, last):
        if first:
            raise ValueError("part")

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ValueError, match="part"):
            in_parts(fail_late, SMALL)
    finally:
        torch.set_num_threads(before)


def test_every_item_comes_with_the_one_behind_it():
    assert list(with_next("abc")) == [("a", "b"), ("b", "c"), ("c", None)]
    assert list(with_next([])) == []


def test_items_come_in_order_whatever_is_prepared_ahead():
    assert list(prepared_ahead(iter(range(50)))) == list(range(50))
    assert list(prepared_ahead(iter([]))) == []


def test_what_the_items_raise_is_raised_in_its_place():
    def items():
        yield 1
        raise KeyError("broken")

    ahead = prepared_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="broken"):
        next(ahead)


def test_closing_ends_the_thread_and_draws_no_more_than_was_prepared():
    drawn = []

    def items():
        for item in itertools.count():
            drawn.append(item)
            yield item

    ahead = prepared_ahead(items(), ahead=2)
    assert next(ahead) == 0
    ahead.close()
    assert not any(thread.name == "ctrlab-batches" for thread in threading.enumerate())
    assert len(drawn) <= 5

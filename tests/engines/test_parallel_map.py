import threading

import pytest
import torch

from ctrlab.engines.parallel_map import num_threads, parallel_map


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_items_with_one_torch_thread_each(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = list(parallel_map(lambda item: (item, torch.get_num_threads()), range(40), threads=threads))
        assert found == [(item, 1) for item in range(40)] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_no_more_than_a_few_items_are_drawn_ahead_of_what_was_taken():
    drawn = []
    results = parallel_map(lambda item: item, (drawn.append(item) or item for item in range(100)), threads=2, ahead=1)
    for taken in range(1, 11):
        next(results)
        assert len(drawn) <= taken + 3
    results.close()
    assert len(drawn) <= 13


def test_an_error_stops_the_rest_in_its_turn():
    begun = []

    def work(item):
        begun.append(item)
        if item == 5:
            raise ValueError("five")
        return item

    results = parallel_map(work, range(1000), threads=2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(results)
    assert max(begun) < 12


def test_blocks_really_run_at_the_same_time():
    together = threading.Barrier(2, timeout=30)
    assert list(parallel_map(lambda item: together.wait() >= 0, range(2), threads=2)) == [True, True]


def test_calls_that_overlap_put_the_number_of_threads_back_and_count_the_usual_ones():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        first, second = parallel_map(str, range(9), threads=2), parallel_map(str, range(9), threads=2)
        next(first)
        next(second)
        assert (torch.get_num_threads(), num_threads()) == (1, 3)
        first.close()
        assert (torch.get_num_threads(), num_threads()) == (1, 3)
        second.close()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)

"""engines/memory.py: what is kept is returned."""

import threading

import pytest
import torch

from ctrlab.engines import memory
from ctrlab.engines.memory import Allocator, kept_memory, trim_heap


class Recorded:
    """An allocator that records its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self):
        return Allocator(lambda *args: self.calls.append(args), lambda pad: self.calls.append("trimmed"))


def test_settings_change_with_the_first_one_in_and_the_last_one_out():
    allocator = Recorded()
    with kept_memory(allocator):
        inside = len(allocator.calls)
        with kept_memory(allocator):
            pass
        assert len(allocator.calls) == inside > 0
        assert "trimmed" not in allocator.calls
    assert allocator.calls[-1] == "trimmed"
    assert memory._users == 0


def test_memory_is_returned_after_a_failure_and_on_request():
    allocator = Recorded()
    with pytest.raises(RuntimeError, match="no"), kept_memory(allocator):
        trim_heap(allocator)
        assert allocator.calls.count("trimmed") == 1
        raise RuntimeError("no")
    assert allocator.calls.count("trimmed") == 2
    assert memory._users == 0


def test_without_glibc_nothing_happens():
    with kept_memory(lambda: None):
        trim_heap(lambda: None)
    assert memory._users == 0


def test_threads_that_work_at_once_share_the_settings():
    def work():
        with kept_memory():
            torch.zeros(1 << 20).sum()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory._users == 0

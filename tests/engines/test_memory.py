"""engines/memory.py: what is kept is returned."""

import threading

import pytest
import torch

from ctrlab.engines import memory
from ctrlab.engines.memory import kept_memory, trim_heap


@pytest.fixture
def settings_made(monkeypatch):
    calls = []
    monkeypatch.setattr(memory, "_glibc", lambda: (lambda *args: calls.append(args), lambda pad: calls.append("trimmed")))
    return calls


def test_settings_change_with_the_first_one_in_and_the_last_one_out(settings_made):
    with kept_memory():
        inside = len(settings_made)
        with kept_memory():
            pass
        assert len(settings_made) == inside > 0
        assert "trimmed" not in settings_made
    assert settings_made[-1] == "trimmed"
    assert memory._users == 0


def test_all_goes_back_after_a_failure_and_when_asked_for(settings_made):
    with pytest.raises(RuntimeError, match="no"), kept_memory():
        trim_heap()
        assert settings_made.count("trimmed") == 1
        raise RuntimeError("no")
    assert settings_made.count("trimmed") == 2
    assert memory._users == 0


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    with kept_memory():
        trim_heap()
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

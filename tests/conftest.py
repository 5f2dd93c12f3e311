"""Shared by all tests; its presence also makes the helpers that lie beside this file importable."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _denormal_numbers_are_back_after_each_test():
    """Training and timing switch them off for the whole process, and Hypothesis refuses to draw floats then."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)

"""Loads the libraries of tables and charts in a thread, once the first page is drawn: the first page does without them."""

import functools
import importlib
import threading

#: Whole libraries alone: two threads may import one at the same time, parts of one another they may not.
_LIBRARIES = ("numpy", "pandas", "polars", "pyarrow")


@functools.cache
def start() -> threading.Thread:
    """The thread, started by the first call in this process."""
    thread = threading.Thread(target=_load, name="ctrlab-warm-up", daemon=True)
    thread.start()
    return thread


def _load() -> None:
    for name in _LIBRARIES:
        importlib.import_module(name)
    from plotly.graph_objects import Figure

    Figure()  # loads its parts when they are first used

"""How a loop over rows is split: the interface between compiled loops and whoever owns the threads."""

from collections.abc import Callable
from typing import Protocol

#: Under so many elements a second thread costs more than it saves.
SMALL = 1 << 14


class Parts(Protocol):
    """Runs `loop(first, last)` over disjoint parts that make up range(total); returns when all are done."""

    def __call__(self, loop: Callable[[int, int], object], total: int, *, elements: int | None = None) -> None:
        """`elements`: numbers that are read or written in all, `total` by default; few of them are not worth a second thread."""
        ...


def in_one_part(loop: Callable[[int, int], object], total: int, *, elements: int | None = None) -> None:
    """All at once, in the calling thread."""
    loop(0, total)

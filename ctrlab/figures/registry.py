"""The registry of figures, each with the function that returns its caption."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ParamSpec

import plotly.graph_objects as go

from ctrlab.errors import UnknownNameError

P = ParamSpec("P")


@dataclass(frozen=True)
class FigureEntry:
    """One figure: `draw` and `describe` take the same arguments."""

    name: str
    title: str
    draw: Callable[..., go.Figure]
    describe: Callable[..., str]


class FigureRegistry:
    """Figures in order of registration. A miss lists the names that exist."""

    def __init__(self) -> None:
        self._entries: dict[str, FigureEntry] = {}

    def register(self, *, title: str, describe: Callable[P, str]) -> Callable[[Callable[P, go.Figure]], Callable[P, go.Figure]]:
        """Decorator that files a figure function under its own name."""

        def file(draw: Callable[P, go.Figure]) -> Callable[P, go.Figure]:
            if draw.__name__ in self._entries:
                raise ValueError(f"figure {draw.__name__!r} is registered twice")
            self._entries[draw.__name__] = FigureEntry(draw.__name__, title, draw, describe)
            return draw

        return file

    def __getitem__(self, name: str) -> FigureEntry:
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(f"no figure is called {name!r}; there are {', '.join(self._entries)}") from None

    def __iter__(self) -> Iterator[FigureEntry]:
        return iter(self._entries.values())

    def names(self) -> list[str]:
        """Every figure's name."""
        return list(self._entries)


FIGURES = FigureRegistry()

"""The registry of figures, each with the function that returns its caption."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec

import plotly.graph_objects as go

from ctrlab.registry import Registry

P = ParamSpec("P")


@dataclass(frozen=True)
class FigureEntry:
    """One figure: `draw` and `describe` take the same arguments."""

    name: str
    title: str
    draw: Callable[..., go.Figure]
    describe: Callable[..., str]


class FigureRegistry(Registry[FigureEntry]):
    """Figures by the name of their function."""

    def register(self, *, title: str, describe: Callable[P, str]) -> Callable[[Callable[P, go.Figure]], Callable[P, go.Figure]]:
        """Decorator that registers a figure function under its own name."""

        def add(draw: Callable[P, go.Figure]) -> Callable[P, go.Figure]:
            self.add(FigureEntry(draw.__name__, title, draw, describe))
            return draw

        return add


FIGURES = FigureRegistry("figure")

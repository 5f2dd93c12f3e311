"""Registries: a name leads to a config class and, only when asked for, to the code that builds it.

The config class must import without torch, for the dashboard reads it to draw forms; the builder is named by an
import path ("ctrlab.models.deepfm:DeepFM") and is resolved on first use, in the worker.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ctrlab.config import Config
from ctrlab.errors import UnknownNameError

C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class Entry:
    """One registered thing: its name, config class, one-line description and where its builder lives."""

    name: str
    config_class: type[Config]
    builder_path: str
    title: str
    description: str

    def builder(self) -> Callable[..., Any]:
        """The callable behind `builder_path`, imported now."""
        module_name, _, attribute = self.builder_path.partition(":")
        return getattr(importlib.import_module(module_name), attribute)  # type: ignore[no-any-return]


class Registry(Generic[C]):
    """Named entries in order of registration. A miss lists the names that exist."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def register(self, name: str, *, builder: str, title: str, description: str = "") -> Callable[[type[C]], type[C]]:
        """Class decorator that files a config class under `name`."""

        def file(config_class: type[C]) -> type[C]:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = Entry(name, config_class, builder, title, description)
            return config_class

        return file

    def __getitem__(self, name: str) -> Entry:
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(f"no {self.kind} is called {name!r}; there are {', '.join(self._entries)}") from None

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        return list(self._entries)

    def entry_for(self, config: Config) -> Entry:
        """The entry whose config class `config` is an instance of."""
        for entry in self:
            if type(config) is entry.config_class:
                return entry
        raise UnknownNameError(f"{type(config).__name__} is no {self.kind} configuration; there are {', '.join(self.names())}")

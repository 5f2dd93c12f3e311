"""Registries: named entries in order of registration, with an error that lists the names that exist.

`Registry` holds entries of any kind (figures, known datasets). `ConfigRegistry` maps a name to a config class and to the import
path of a builder ("ctrlab.models.deepfm:DeepFM"): the dashboard imports the config class, without torch, to draw a form; the
builder is imported on first use, in the worker.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from ctrlab.config import Config
from ctrlab.errors import UnknownNameError


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str: ...


E = TypeVar("E", bound=Named)
C = TypeVar("C", bound=Config)


class Registry(Generic[E]):
    """Entries by name, in order of registration.

    kind: a noun for error messages, such as "figure".
    """

    def __init__(self, kind: str, *entries: E) -> None:
        self.kind = kind
        self._entries: dict[str, E] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: E) -> None:
        """Register an entry under its name; ValueError if the name is taken."""
        if entry.name in self._entries:
            raise ValueError(f"{self.kind} {entry.name!r} is registered twice")
        self._entries[entry.name] = entry

    def remove(self, name: str) -> None:
        """Take the entry called `name` out again."""
        del self._entries[self[name].name]

    def __getitem__(self, name: str) -> E:
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(f"no {self.kind} is called {name!r}; there are {', '.join(self._entries)}") from None

    def __iter__(self) -> Iterator[E]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        """Every name, in order of registration."""
        return list(self._entries)


@dataclass(frozen=True)
class Entry:
    """A registered config class with its one-line description and the import path of its builder."""

    name: str
    config_class: type[Config]
    builder_path: str
    title: str
    description: str

    def builder(self) -> Callable[..., Any]:
        """The callable at `builder_path`, imported now."""
        return load(self.builder_path)  # type: ignore[no-any-return]


def load(path: str) -> Any:
    """The object that an import path "module:attribute" names, imported now.

    >>> load("math:sqrt")(9.0)
    3.0
    """
    module_name, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module_name), attribute)


class ConfigRegistry(Registry[Entry], Generic[C]):
    """Config classes by name, each with the import path of a builder."""

    def register(self, name: str, *, builder: str, title: str, description: str = "") -> Callable[[type[C]], type[C]]:
        """Class decorator that registers a config class under `name`."""

        def add(config_class: type[C]) -> type[C]:
            self.add(Entry(name, config_class, builder, title, description))
            return config_class

        return add

    def entry_for(self, config: Config) -> Entry:
        """The entry whose config class is exactly the class of `config`."""
        for entry in self:
            if type(config) is entry.config_class:
                return entry
        raise UnknownNameError(f"{type(config).__name__} is no {self.kind} configuration; there are {', '.join(self.names())}")

"""Frozen configurations: one declaration serves validation, JSON, the forms and the command line.

@dataclass(frozen=True, kw_only=True)
class FitConfig(Config):
    epochs: int = option(1, minimum=1, maximum=100, help="Passes over the training rows.")
"""

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Self

from ctrlab.errors import ConfigError

_VERSION_KEY = "version"
Choices = Sequence[Any] | Mapping[Any, str]


def option(
    default: Any = dataclasses.MISSING,
    *,
    default_factory: Any = dataclasses.MISSING,
    help: str = "",
    label: str = "",
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: "Choices | Callable[[], Choices] | None" = None,
    step: float | None = None,
    advanced: bool = False,
) -> Any:
    """A dataclass field with the metadata that forms, the command line and validation share.

    Args:
        minimum, maximum: inclusive, and of each element of a tuple.
        choices: the values allowed, or {value: title} for forms to show titles; a function of either is called at each use, for
            values that can be registered later. A `Literal` needs none but for its titles.
        advanced: the field starts folded in forms.
    """
    facts = {
        "help": help, "label": label, "unit": unit, "minimum": minimum, "maximum": maximum,
        "choices": choices, "step": step, "advanced": advanced,
    }  # fmt: skip
    return dataclasses.field(default=default, default_factory=default_factory, metadata=facts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every configuration: immutable, keyword-only, validated when created, converted to and from JSON.

    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Rate(Config):
    ...     value: float = option(0.1, minimum=0.0, maximum=1.0)
    >>> Rate.from_dict(Rate(value=0.5).to_dict())
    Rate(value=0.5)
    >>> Rate(value=2.0)
    Traceback (most recent call last):
        ...
    ctrlab.errors.ConfigError: Rate: value must be between 0.0 and 1.0, got 2.0
    """

    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        hints = type_hints(type(self))
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _coerce(hints[field.name], getattr(self, field.name)))
        faults = [*self._field_faults(hints), *self._own_faults(hints)]
        if faults:
            raise ConfigError(f"{type(self).__name__}: " + "; ".join(faults))

    def faults(self) -> list[str]:
        """Faults across fields, one sentence each; subclasses override it. Called only when every field has its declared type."""
        return []

    def _field_faults(self, hints: Mapping[str, Any]) -> list[str]:
        return [
            fault
            for field in dataclasses.fields(self)
            for fault in _value_faults(field, hints[field.name], getattr(self, field.name))
        ]

    def _own_faults(self, hints: Mapping[str, Any]) -> list[str]:
        typed = all(_matches(hints[f.name], getattr(self, f.name)) for f in dataclasses.fields(self))
        return self.faults() if typed else []

    def replace(self, **changes: Any) -> Self:
        """A copy with `changes` applied, validated again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, with the version of this class under `version`."""
        body = {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {_VERSION_KEY: self.VERSION, **body}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Unknown keys and other versions are refused by name."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"{cls.__name__}: expected an object with named settings, got {type(values).__name__}")
        given = dict(values)
        version = given.pop(_VERSION_KEY, cls.VERSION)
        if version != cls.VERSION:
            raise ConfigError(f"{cls.__name__}: version {version} is not the version {cls.VERSION} this ctrlab reads")
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(given) - known)
        if unknown:
            names = ", ".join(map(str, unknown))
            raise ConfigError(f"{cls.__name__}: unknown setting {names}; known are {', '.join(sorted(known))}")
        missing = [field.name for field in dataclasses.fields(cls) if field.name not in given and _is_required(field)]
        if missing:
            raise ConfigError(f"{cls.__name__}: setting {', '.join(missing)} is required")
        hints = type_hints(cls)
        return cls(**{name: _revive(hints[name], value) for name, value in given.items()})

    @classmethod
    def from_json(cls, text: str) -> Self:
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{cls.__name__}: not valid JSON ({error})") from None
        return cls.from_dict(values)


_hints_of = cache(typing.get_type_hints)


def type_hints(cls: type) -> dict[str, Any]:
    """Resolved annotations of a config class, for forms and the command line."""
    return _hints_of(cls)


def choices_of(config_class: type[Config], name: str) -> dict[Any, str]:
    """{value: title} that the setting `name` may have, in order; empty where any value of its type is allowed.

    >>> from ctrlab.plans.configs import CompressConfig
    >>> choices_of(CompressConfig, "order")
    {'mlp_first': 'MLP first, then tables', 'tables_first': 'Tables first, then MLP', 'joint': 'All together'}
    """
    hint = _without_none(type_hints(config_class)[name])
    field = next(field for field in dataclasses.fields(config_class) if field.name == name)
    titles = _titles(field.metadata.get("choices"))
    literals = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    return {value: titles.get(value, str(value)) for value in literals} or titles


def _titles(choices: "Choices | Callable[[], Choices] | None") -> dict[Any, str]:
    given = choices() if callable(choices) else choices or ()
    return dict(given) if isinstance(given, Mapping) else {value: str(value) for value in given}


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(arg for arg in typing.get_args(hint) if arg is not types.NoneType)
    return hint


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _revive(hint: Any, value: Any) -> Any:
    """Rebuild nested configs from their JSON form; other values are checked by validation."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, Config):
        return value if isinstance(value, Config) else hint.from_dict(value)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _revive(next(arg for arg in args if arg is not types.NoneType), value)
    if origin is tuple and isinstance(value, (list, tuple)) and args[1:] == (...,):
        return tuple(_revive(args[0], item) for item in value)
    return value


def _coerce(hint: Any, value: Any) -> Any:
    """Lists become tuples and ints become floats where the annotation declares those."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_coerce(args[0], item) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin in (typing.Union, types.UnionType) and value is not None:
        return _coerce(next(arg for arg in args if arg is not types.NoneType), value)
    return value


def _matches(hint: Any, value: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_matches(arg, value) for arg in args)
    if origin is tuple:
        inner = args[0]
        return isinstance(value, tuple) and all(_matches(inner, item) for item in value)
    if origin is typing.Literal:
        return value in args
    if origin is not None:
        return isinstance(value, origin)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _value_faults(field: dataclasses.Field[Any], hint: Any, value: Any) -> list[str]:
    if not _matches(hint, value):
        wanted = " or ".join(map(repr, typing.get_args(hint))) if typing.get_origin(hint) is typing.Literal else _name(hint)
        return [f"{field.name} must be {wanted}, got {value!r}"]
    low, high = field.metadata.get("minimum"), field.metadata.get("maximum")
    choices = _titles(field.metadata.get("choices"))
    faults = []
    for item in value if isinstance(value, tuple) else (value,):
        if item is None:
            continue
        if isinstance(item, float) and item != item:
            faults.append(f"{field.name} must be a number, got nan")
        elif (low is not None and item < low) or (high is not None and item > high):
            faults.append(f"{field.name} must be {_range(low, high)}, got {item}")
        elif choices and item not in choices:
            faults.append(f"{field.name} must be one of {', '.join(map(str, choices))}, got {item}")
    return faults


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"between {low} and {high}"
    return f"at least {low}" if low is not None else f"at most {high}"


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint)

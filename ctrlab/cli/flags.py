"""Command-line flags made from config classes, with the names, bounds and help of the forms."""

import argparse
import dataclasses
import types
import typing
from collections.abc import Collection
from typing import Any, TypeVar

from ctrlab.config import Config, choices_of, type_hints
from ctrlab.errors import ConfigError

C = TypeVar("C", bound=Config)


def add_config_flags(
    parser: argparse.ArgumentParser,
    config_class: type[Config],
    *,
    skip: Collection[str] = (),
    only: Collection[str] | None = None,
    title: str = "",
    base: Config | None = None,
) -> None:
    """Add a `--flag` for every simple field of `config_class`; its default is that of `base`, or of the class."""
    group = parser.add_argument_group(title or config_class.__name__)
    hints = type_hints(config_class)
    for field in dataclasses.fields(config_class):
        wanted = field.name not in skip and (only is None or field.name in only)
        if not wanted or not _is_simple(hints[field.name]):
            continue
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=field.name,
            default=argparse.SUPPRESS,
            help=_help(field, getattr(base, field.name) if base else field.default),
            **_kind(config_class, field.name),
        )


def config_from_flags(config_class: type[C], args: argparse.Namespace, *, base: C | None = None, **fixed: Any) -> C:
    """The config of the given flags and `fixed` settings; everything else is as in `base`, or the default."""
    given = flag_settings(config_class, args) | fixed
    return config_class(**given) if base is None else base.replace(**given)


def flag_settings(config_class: type[Config], args: argparse.Namespace) -> dict[str, Any]:
    """{name: value} of the flags of `config_class` that were given."""
    names = {name for name, hint in type_hints(config_class).items() if _is_simple(hint)}
    return {name: value for name, value in vars(args).items() if name in names}


def parse_assignments(pairs: list[str]) -> dict[str, str]:
    """{name: text} of NAME=VALUE arguments.

    >>> parse_assignments(["a=1", "b=x,y"])
    {'a': '1', 'b': 'x,y'}
    """
    malformed = [pair for pair in pairs if "=" not in pair]
    if malformed:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {', '.join(malformed)}")
    return dict(pair.split("=", 1) for pair in pairs)


def parse_ranks(pairs: list[str]) -> dict[str, int]:
    """{layer: rank} of LAYER=RANK arguments.

    >>> parse_ranks(["mlp.0=64", "embedding.*=4"])
    {'mlp.0': 64, 'embedding.*': 4}
    """
    return {name: _rank(name, text) for name, text in parse_assignments(pairs).items()}


def _rank(name: str, text: str) -> int:
    if not text.isdigit():
        raise ConfigError(f"the rank of {name} must be a whole number, got {text!r}; write {name}=64")
    return int(text)


def values_for(config_class: type[Config], texts: dict[str, str]) -> dict[str, Any]:
    """Values of NAME=VALUE flags, parsed as `config_class` declares them; unknown names are kept for the config to refuse."""
    hints = type_hints(config_class)
    return {name: _parse(hints[name], text) if name in hints else text for name, text in texts.items()}


def _parse(hint: Any, text: str) -> Any:
    hint = _without_none(hint)
    if typing.get_origin(hint) is tuple:
        return tuple(_parse(typing.get_args(hint)[0], part) for part in text.split(",") if part)
    if hint is bool:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(text.lower(), text)
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            return text  # validation reports it
    return text


def _kind(config_class: type[Config], name: str) -> dict[str, Any]:
    hint = _without_none(type_hints(config_class)[name])
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if typing.get_origin(hint) is not tuple and (choices := choices_of(config_class, name)):
        return {"type": type(next(iter(choices))), "choices": list(choices)}
    if typing.get_origin(hint) is tuple:
        return {"type": lambda text: _parse(hint, text), "metavar": "A,B,..."}
    return {"type": hint, "metavar": hint.__name__.upper()}


def _is_simple(hint: Any) -> bool:
    hint = _without_none(hint)
    if typing.get_origin(hint) is tuple:
        return _is_simple(typing.get_args(hint)[0])
    return typing.get_origin(hint) is typing.Literal or hint in (int, float, str, bool)


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(arg for arg in typing.get_args(hint) if arg is not types.NoneType)
    return hint


def _help(field: dataclasses.Field[Any], default: Any) -> str:
    text = field.metadata.get("help", "")
    has_default = default is not dataclasses.MISSING and default not in (None, "")
    return (f"{text} (default {default})" if has_default else text).replace("%", "%%")

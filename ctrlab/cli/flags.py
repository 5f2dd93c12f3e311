"""Command-line flags made from config classes, with the names, bounds and help of the forms."""

import argparse
import dataclasses
import types
import typing
from collections.abc import Callable, Collection, Sequence
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
            help=help_of(config_class, field.name, getattr(base, field.name) if base else field.default),
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


def parse_assignments(
    pairs: Sequence[str], *, accepts: Callable[[str, str], bool] = lambda name, value: True, form: str = "NAME=VALUE"
) -> dict[str, str]:
    """{name: text} of NAME=VALUE arguments, in which a name or a value may hold `=` itself.

    Args:
        accepts: whether a name and a value fit; a pair is split at the last `=` that gives such a pair, else at the last `=`.
        form: what a pair looks like, for the error.

    Raises:
        ConfigError: a pair has no `=`, or a name comes twice.

    >>> parse_assignments(["a=1", "b=x,y", "price=net=2"])
    {'a': '1', 'b': 'x,y', 'price=net': '2'}
    """
    if malformed := [pair for pair in pairs if "=" not in pair]:
        raise ConfigError(f"expected {form}, got {', '.join(malformed)}")
    found: dict[str, str] = {}
    for pair in pairs:
        name, value = _split_pair(pair, accepts)
        if name in found:
            raise ConfigError(f"{name} is given twice, as {found[name]} and as {value}; give it once")
        found[name] = value
    return found


def _split_pair(pair: str, accepts: Callable[[str, str], bool]) -> tuple[str, str]:
    splits = [(pair[:place], pair[place + 1 :]) for place in range(len(pair) - 1, -1, -1) if pair[place] == "="]
    return next((split for split in splits if accepts(*split)), splits[0])


def parse_ranks(pairs: list[str]) -> dict[str, int]:
    """{layer: rank} of LAYER=RANK arguments.

    >>> parse_ranks(["mlp.0=64", "embedding.*=4", "embedding.a=b=2"])
    {'mlp.0': 64, 'embedding.*': 4, 'embedding.a=b': 2}
    """
    found = parse_assignments(pairs, form="LAYER=RANK, for example mlp.0=64")
    return {name: _rank(name, text) for name, text in found.items()}


def _rank(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"the rank of {name} must be a whole number, got {text!r}; write {name}=64")
    return int(text)


def parse_settings(config_class: type[Config], pairs: list[str]) -> dict[str, Any]:
    """{setting: value} of NAME=VALUE arguments, parsed as `config_class` declares them."""
    names = type_hints(config_class)
    return values_for(config_class, parse_assignments(pairs, accepts=lambda name, value: name in names))


def values_for(config_class: type[Config], texts: dict[str, str]) -> dict[str, Any]:
    """Values of NAME=VALUE flags, parsed as `config_class` declares them; unknown names are kept for the config to refuse."""
    hints = type_hints(config_class)
    return {name: _parse(hints[name], text) if name in hints else text for name, text in texts.items()}


def parse_value(config_class: type[Config], name: str, text: str) -> Any:
    """The value that a text means for a setting; the text itself where it means none, for the config to refuse."""
    return _parse(type_hints(config_class)[name], text)


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


def help_of(config_class: type[Config], name: str, default: Any = dataclasses.MISSING) -> str:
    """The help of a setting's flag, with its default where one is given."""
    text = config_class.__dataclass_fields__[name].metadata.get("help", "")
    has_default = default is not dataclasses.MISSING and default not in (None, "")
    return (f"{text} (default {default})" if has_default else text).replace("%", "%%")

"""A form made from a config class: labels, help, bounds and choices come from its `option()`s.

Input is kept across page changes, valid or not; the class validates it, and all faults are shown at once.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import streamlit as st

from ctrlab.config import Config, choices_of, type_hints
from ctrlab.errors import ConfigError
from ctrlab.ui import address, format
from ctrlab.ui.feedback import sentence

C = TypeVar("C", bound=Config)
_REQUIRED = dataclasses.MISSING
#: From the values of a form so far to {name: value} of the settings that they decide.
Locked = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def config_form(
    config_class: type[C],
    *,
    key: str,
    values: Mapping[str, Any] | C | None = None,
    omit: Collection[str] = (),
    only: Collection[str] | None = None,
    fixed: Mapping[str, Any] | None = None,
    locked: Locked = lambda values: {},
    columns: int = 3,
    parameter: str = "",
) -> C | None:
    """Draw the settings of `config_class`; returns the config, or None after showing the faults.

    Args:
        key: prefix of the widgets' keys; a form with another key has its own state.
        values: initial values instead of the class's defaults.
        omit: settings not shown; they keep their initial value.
        only: where given, all other settings are omitted.
        fixed: settings not shown, set to these values.
        locked: given the values of the settings above, {name: value} of settings that are shown disabled with that value.
        columns: number of widgets per row.
        parameter: of the address, which holds the settings that are not as at the start; "" for none.
    """
    start = _start_values(config_class, values) | dict(fixed or {})
    hidden = {*omit, *(fixed or {})} | ({field.name for field in dataclasses.fields(config_class)} - set(only) if only else set())
    shown = [field for field in dataclasses.fields(config_class) if field.name not in hidden]
    defaults = {field.name: start[field.name] for field in shown}
    if parameter:
        start |= address.start_values(parameter, config_class, defaults)
    plain = [field for field in shown if not _is_config(type_hints(config_class)[field.name])]
    faults: list[str] = []
    result = dict(start)
    advanced = [field for field in plain if field.metadata.get("advanced")]
    with st.container(gap="small", key=f"{key}-form"):
        result |= _draw(config_class, [f for f in plain if f not in advanced], start, key, columns, faults, locked)
        if advanced:
            with st.expander("More settings"):
                result |= _draw(config_class, advanced, start, key, columns, faults, locked)
    if not faults:
        try:
            config = config_class(**{name: value for name, value in result.items() if value is not _REQUIRED})
            if parameter:
                address.write_values(parameter, result, defaults)
            return config
        except ConfigError as error:
            faults = [_readable(fault, shown) for fault in str(error).split(": ", 1)[-1].split("; ")]
    show_faults(faults)
    return None


def show_faults(faults: list[str]) -> None:
    """Show all faults of a form, one a line."""
    text = "\n".join(f"- {sentence(fault)}" for fault in faults) if len(faults) > 1 else sentence(faults[0])
    st.error(text, icon=":material/error:")


def label_of(field: "dataclasses.Field[Any]") -> str:
    """The label of a setting: the declared one, else its name."""
    words = str(field.metadata.get("label") or field.name.replace("_", " "))
    return words[0].upper() + words[1:]


def _start_values(config_class: type[Config], values: Mapping[str, Any] | Config | None) -> dict[str, Any]:
    if isinstance(values, Config):
        values = {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}
    given = values or {}
    return {field.name: given.get(field.name, _default(field)) for field in dataclasses.fields(config_class)}


def _default(field: "dataclasses.Field[Any]") -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _is_config(hint: Any) -> bool:
    return any(isinstance(part, type) and issubclass(part, Config) for part in (hint, *typing.get_args(hint)))


def _draw(
    config_class: type[Config], fields: list["dataclasses.Field[Any]"], start: dict[str, Any], key: str, columns: int,
    faults: list[str], locked: Locked,
) -> dict[str, Any]:  # fmt: skip
    hints = type_hints(config_class)
    result: dict[str, Any] = {}
    for first in range(0, len(fields), columns):
        for column, field in zip(st.columns(columns, vertical_alignment="bottom"), fields[first : first + columns], strict=False):
            with column:
                try:
                    choices, locks = choices_of(config_class, field.name), locked(result)
                    value = _widget(
                        field, hints[field.name], choices, start[field.name], f"{key}-{field.name}", field.name in locks
                    )
                    result[field.name] = locks.get(field.name, value)
                except ValueError as error:
                    faults.append(str(error))
    return result


def _widget(field: "dataclasses.Field[Any]", hint: Any, choices: Mapping[Any, str], start: Any, key: str, disabled: bool) -> Any:
    """Draw the widget of a setting and return its value; ValueError when text cannot be parsed as the setting's type."""
    facts = field.metadata
    label, unit = label_of(field), facts.get("unit")
    label = f"{label} ({unit})" if unit else label
    optional, inner = _unwrap(hint)
    start = None if start is _REQUIRED else start
    common: dict[str, Any] = {"key": key, "help": _help(facts), "persist_state": "session", "disabled": disabled}
    if choices and typing.get_origin(inner) is not tuple:
        options = [*([None] if optional else []), *choices]
        index = options.index(start) if start in options else 0
        titles = {value: title for value, title in choices.items() if title != str(value)}
        return st.selectbox(label, options, index=index, format_func=lambda value: titles.get(value) or _choice(value), **common)
    if inner is bool:
        if optional:
            options = [None, True, False]
            return st.selectbox(label, options, index=options.index(start), format_func=_choice, **common)
        return st.toggle(label, bool(start), **common)
    if inner in (int, float):
        value = None if start is None else inner(start)
        step = inner(facts.get("step") or (1 if inner is int else 0.1))
        look = None if inner is int else _float_format(value, step)
        number = st.number_input(label, value=value, step=step, format=look, placeholder="not set", **common)
        return _required(number, optional, label)
    if typing.get_origin(inner) is tuple:
        text = st.text_input(label, ", ".join(format.setting(item) for item in start or ()), **common)
        return _parse_tuple(text or "", typing.get_args(inner)[0], label)
    text = st.text_input(label, start or "", placeholder="not set" if optional else None, **common)
    return None if optional and not text else text


def _unwrap(hint: Any) -> tuple[bool, Any]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [arg for arg in typing.get_args(hint) if arg is not types.NoneType]
        return len(inner) < len(typing.get_args(hint)), inner[0]
    return False, hint


def _help(facts: Mapping[str, Any]) -> str | None:
    low, high = facts.get("minimum"), facts.get("maximum")
    bounds = ""
    if low is not None and high is not None:
        bounds = f"From {low:g} to {high:g}."
    elif low is not None:
        bounds = f"At least {low:g}."
    return " ".join(part for part in (facts.get("help"), bounds) if part) or None


def _choice(value: Any) -> str:
    return "automatic" if value is None else format.setting(value)


def _float_format(start: Any, step: float) -> str:
    smallest = min(abs(value) for value in (start or step, step) if value)
    return "%.1e" if smallest < 1e-4 else "%.4f" if smallest < 1e-2 else "%.2f"


def _required(value: Any, optional: bool, label: str) -> Any:
    if value is None and not optional:
        raise ValueError(f"{label} is empty; type a number")
    return value


def _parse_tuple(text: str, item: type, label: str) -> tuple[Any, ...]:
    words = [word for word in text.replace(";", ",").replace(" ", ",").split(",") if word]
    try:
        return tuple(item(word) for word in words)
    except ValueError:
        kind = {int: "whole numbers", float: "numbers"}.get(item, "words")
        raise ValueError(f"{label} must be {kind} separated by commas, got {text!r}") from None


def _readable(fault: str, fields: list["dataclasses.Field[Any]"]) -> str:
    """A fault with the setting's name replaced by its label."""
    for field in fields:
        if fault.startswith(f"{field.name} "):
            return label_of(field) + fault[len(field.name) :]
    return fault

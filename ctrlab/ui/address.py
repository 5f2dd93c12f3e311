"""Settings of a page in its address, so that a link, a reload and a return from another page show the same figures.

The text of a parameter is read once, when a page is entered: from the address, else as it was when this session left the page.
After that the widgets of the page hold the values, and the page writes them into the address as they change, except for defaults.
"""

import json
from typing import Any, TypeVar

import streamlit as st

from ctrlab.config import Config
from ctrlab.errors import ConfigError

C = TypeVar("C", bound=Config)
_START, _KEPT, _PAGE = "address-start", "address-kept", "address-page"


def enter(page: str) -> None:
    """A page is entered: its parameters are read now. Called by the frame."""
    kept = st.session_state.setdefault(_KEPT, {}).setdefault(page, {})
    st.session_state[_START] = {**kept, **st.query_params.to_dict()}
    st.session_state[_PAGE] = page


def start(parameter: str) -> str:
    """The text of a parameter when the page was entered; "" where it had none."""
    return str(st.session_state.get(_START, {}).get(parameter, ""))


def write(parameter: str, text: str) -> None:
    """Keep the text of a parameter in the address and for a return to this page; "" removes it."""
    kept = st.session_state.get(_KEPT, {}).get(st.session_state.get(_PAGE, ""), {})
    if text:
        kept[parameter] = text
        if st.query_params.get(parameter) != text:
            st.query_params[parameter] = text
        return
    kept.pop(parameter, None)
    if parameter in st.query_params:
        del st.query_params[parameter]


def start_values(parameter: str, config_class: type[C], defaults: dict[str, Any]) -> dict[str, Any]:
    """Settings of a config class from "name:value;name:value"; unknown names and refused values are skipped."""
    found: dict[str, Any] = {}
    for part in start(parameter).split(";"):
        name, colon, text = part.partition(":")
        if not colon or name not in defaults:
            continue
        value = _parsed(text)
        try:
            config_class(**{**defaults, **found, name: value})
        except (ConfigError, TypeError):
            continue
        found[name] = value
    return found


def write_values(parameter: str, values: dict[str, Any], defaults: dict[str, Any]) -> None:
    """The settings that are not as the defaults, as "name:value;name:value"."""
    changed = {name: value for name, value in values.items() if name in defaults and value != defaults[name]}
    texts = (f"{name}:{value if isinstance(value, str) else json.dumps(value)}" for name, value in changed.items())
    write(parameter, ";".join(texts))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text

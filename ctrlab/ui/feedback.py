"""Errors and empty states: one sentence for an expected error, the next step on an empty page."""

import logging
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import streamlit as st

from ctrlab.errors import CtrlabError
from ctrlab.ui import state
from ctrlab.ui.navigation import PAGES

_log = logging.getLogger("ctrlab.ui")


class Outcome:
    """Whether the guarded block raised."""

    failed = False


@contextmanager
def guarded() -> Iterator[Outcome]:
    """Show an exception of the block in its place and continue after it; what was typed is kept.

    with guarded() as outcome:
        job_id = submit(...)
    if not outcome.failed: ...
    """
    outcome = Outcome()
    try:
        yield outcome
    except CtrlabError as error:
        outcome.failed = True
        show_error(error)
    except Exception as error:  # the page must not break; the traceback goes to the log and into "Details"
        outcome.failed = True
        _log.exception("unexpected error on a page")
        show_error(error)


def show_error(error: Exception) -> None:
    """Show an expected error as its sentence, any other with its traceback in an expander."""
    if isinstance(error, CtrlabError):
        st.error(sentence(str(error)), icon=":material/error:")
        return
    st.error(
        "An unexpected error occurred here. Nothing that was saved is lost; the details below say where.",
        icon=":material/error:",
    )
    with st.expander("Details"):
        st.code("".join(traceback.format_exception(error)), language=None)


def sentence(text: str) -> str:
    """`text` with a capital first letter and a full stop, escaped for Markdown; names inside are unchanged."""
    text = text.strip()
    if not text:
        return text
    first = text.split(maxsplit=1)[0]
    if first.isalpha() and first.islower():
        text = text[0].upper() + text[1:]
    text = text if text[-1] in ".!?" else text + "."
    return escape(text)


def escape(text: str) -> str:
    """`text` escaped for Markdown: column names such as `a_b` or `$x$` are shown literally."""
    for mark in "\\`*_[]$~":
        text = text.replace(mark, "\\" + mark)
    return text.replace("<", "&lt;").replace(":material", "\\:material")


def empty(title: str, what_to_do: str, page: str | None = None, label: str | None = None) -> None:
    """An empty state: what is missing, what to do, and a link to the page where it is done.

    Args:
        title: what is missing, e.g. "No model selected".
        what_to_do: one sentence.
        page, label: name of that page, and the text of the link.
    """
    with st.container(border=True, key=f"empty-{title.lower().replace(' ', '-')}"):
        st.markdown(f"**{title}**")
        st.caption(what_to_do)
        if page is not None:
            st.page_link(
                PAGES[page].path,
                label=label or f"Go to {page}",
                icon=":material/arrow_forward:",
                query_params=state.current().params(),
            )


def show_doubts(doubts: Iterable[str]) -> None:
    """A warning for each thing that speaks against a model."""
    for doubt in doubts:
        st.warning(sentence(doubt), icon=":material/warning:")

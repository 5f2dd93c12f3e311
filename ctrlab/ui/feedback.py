"""How the dashboard speaks: one sentence for an expected error, what to do first on an empty page, notes."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from ctrlab.errors import CtrlabError
from ctrlab.ui import state
from ctrlab.ui.navigation import PAGES

_log = logging.getLogger("ctrlab.ui")


class Outcome:
    """Whether the guarded block went through."""

    failed = False


@contextmanager
def guarded() -> Iterator[Outcome]:
    """Show what goes wrong inside the block, here, and carry on after it; what was typed stays.

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
    except Exception as error:  # the page must survive anything; the trace goes to the log and to whoever asks
        outcome.failed = True
        _log.exception("unexpected error on a page")
        show_error(error)


def show_error(error: Exception) -> None:
    """An expected error as its sentence, any other with its traceback folded away."""
    if isinstance(error, CtrlabError):
        st.error(sentence(str(error)), icon=":material/error:")
        return
    st.error(
        "Something unexpected went wrong here. Nothing that was saved is lost; the details below help to repair it.",
        icon=":material/error:",
    )
    with st.expander("Details"):
        st.code("".join(traceback.format_exception(error)), language=None)


def sentence(text: str) -> str:
    """Start with a capital and end with a stop, without touching names inside; safe inside Markdown."""
    text = text.strip()
    if not text:
        return text
    first = text.split(maxsplit=1)[0]
    if first.isalpha() and first.islower():
        text = text[0].upper() + text[1:]
    text = text if text[-1] in ".!?" else text + "."
    return escape(text)


def escape(text: str) -> str:
    """Plain text for places that read Markdown: column names such as `a_b` or `$x$` stay as they are."""
    for mark in "\\`*_[]$~":
        text = text.replace(mark, "\\" + mark)
    return text.replace("<", "&lt;").replace(":material", "\\:material")


def empty(title: str, what_to_do: str, page: str | None = None, label: str | None = None) -> None:
    """An empty place that says what to do first and links there.

    Args:
        title: what is missing, e.g. "No model in hand".
        what_to_do: one sentence.
        page, label: name of the page to go to and the link's text.
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

"""The script and the style that draw a comparison, on the page and in the HTML report."""

from functools import cache
from pathlib import Path

_ASSETS = Path(__file__).parent / "assets"


@cache
def comparison_script() -> str:
    """JavaScript: the class `Comparison(root, data, on)`; it loads nothing and exports nothing."""
    return (_ASSETS / "comparison.js").read_text(encoding="utf-8")


@cache
def comparison_style() -> str:
    """CSS of what the script draws."""
    return (_ASSETS / "comparison.css").read_text(encoding="utf-8")


@cache
def page_style() -> str:
    """CSS of a page of its own, with the names that the dashboard's theme gives."""
    return (_ASSETS / "report.css").read_text(encoding="utf-8")

"""The Compare page."""

from ctrlab.ui.views.compare.page import render

__all__ = ["render"]

"""The Compress page, one file a part."""

from ctrlab.ui.views.compress.page import render

__all__ = ["render"]

"""The Spectra page, one file a part."""

from ctrlab.ui.views.spectra.page import render

__all__ = ["render"]

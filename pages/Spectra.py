"""The Spectra page: a shim for ctrlab.ui.views.spectra."""

from ctrlab.ui.frame import frame
from ctrlab.ui.views.spectra import render

with frame("Spectra"):
    render()

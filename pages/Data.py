"""The Data page: a shim for ctrlab.ui.views.data."""

from ctrlab.ui.frame import frame
from ctrlab.ui.views.data import render

with frame("Data"):
    render()

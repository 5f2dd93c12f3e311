"""The Model page: a shim for ctrlab.ui.views.model."""

from ctrlab.ui.frame import frame
from ctrlab.ui.views.model import render

with frame("Model"):
    render()

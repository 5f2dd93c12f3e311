"""The Model page; its content lives in ctrlab.ui.views.model."""

from ctrlab.ui.frame import frame
from ctrlab.ui.views.model import render

with frame("Model"):
    render()

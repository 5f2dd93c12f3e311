"""The Compare page: a shim for ctrlab.ui.views.compare."""

from ctrlab.ui.frame import frame
from ctrlab.ui.views.compare import render

with frame("Compare"):
    render()

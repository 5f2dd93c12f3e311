"""The Learn page: a shim for ctrlab.ui.views.learn."""

from ctrlab.ui.frame import frame
from ctrlab.ui.views.learn import render

with frame("Learn"):
    render()

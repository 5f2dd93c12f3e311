"""The Learn page; its content lives in ctrlab.ui.views.learn."""

from ctrlab.ui.frame import frame
from ctrlab.ui.views.learn import render

with frame("Learn"):
    render()

"""The Compress page; its content lives in ctrlab.ui.views.compress."""

from ctrlab.ui.frame import frame
from ctrlab.ui.views.compress import render

with frame("Compress"):
    render()

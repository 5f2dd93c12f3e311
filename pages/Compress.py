"""The Compress page: a shim for ctrlab.ui.views.compress."""

from ctrlab.ui.frame import frame
from ctrlab.ui.views.compress import render

with frame("Compress"):
    render()

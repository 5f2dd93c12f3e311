"""The Storage page: a shim for ctrlab.ui.views.storage."""

from ctrlab.ui.frame import frame
from ctrlab.ui.views.storage import render

with frame("Storage"):
    render()

"""The Jobs page: a shim for ctrlab.ui.views.jobs."""

from ctrlab.ui.frame import frame
from ctrlab.ui.views.jobs import render

with frame("Jobs"):
    render()

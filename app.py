"""Entry point of the dashboard: `streamlit run app.py`."""

from ctrlab.ui.frame import frame
from ctrlab.ui.views.home import render

with frame("Home"):
    render()

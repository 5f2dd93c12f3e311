"""Figures: functions from tables and arrays to a plotly figure, each with a `describe_*` that returns its caption.

`ctrlab.figures.gallery` imports all of them into `FIGURES`. It is not imported here, because pages that only format numbers
(`ctrlab.figures.text`) start faster without plotly and pandas. Nothing here imports Streamlit, so notebooks and reports use
the same figures.
"""

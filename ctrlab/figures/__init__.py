"""Figures: tables and arrays in, a plotly figure out; beside each a `describe_*` that says in numbers what it shows.

`ctrlab.figures.gallery` has them all, with `FIGURES` by name; it is not imported here, for pages that only write numbers
(`ctrlab.figures.text`) are on screen sooner without plotly and pandas. Nothing here knows the dashboard, so the same figures
serve notebooks and reports.
"""

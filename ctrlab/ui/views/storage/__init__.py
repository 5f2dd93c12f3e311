"""The Storage page: everything stored, what it takes on disk, and the trash."""

from ctrlab.ui.views.storage.page import render

__all__ = ["render"]

"""Shared by all tests; its presence also makes the helpers that lie beside this file importable."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real files, or a skip that says why."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("CTRLAB_REALDATA", beside))
    if not folder.is_dir():
        pytest.skip(
            "no real data here: set CTRLAB_REALDATA to a folder with criteo_137k.parquet, avazu_33k.csv.gz and frappe_x1/"
        )
    return folder

"""What is loaded when: import-linter forbids torch to the dashboard's rooms; here its imports run once as they do in its process."""

import subprocess
import sys

import pytest

from tests.support.patience import PATIENCE

PAGES = ("home", "data", "model", "spectra", "compress", "compare", "jobs", "learn")


def test_dashboard_and_command_line_load_without_torch_and_sklearn():
    modules = ["ctrlab.ui.frame", *(f"ctrlab.ui.views.{page}" for page in PAGES), "ctrlab.cli.verbs", "ctrlab.services.lab"]
    code = f"import sys, {', '.join(modules)}; print([name for name in ('torch', 'sklearn') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert done.stdout.strip() == "[]"


def test_the_public_names_resolve():
    import ctrlab

    for name in ctrlab.__all__:
        assert getattr(ctrlab, name) is not None
    with pytest.raises(AttributeError, match="it has"):
        _ = ctrlab.nothing

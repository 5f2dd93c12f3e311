"""What may be imported where: the dashboard's process stays free of torch and scikit-learn."""

import subprocess
import sys

import pytest

from tests.support.patience import PATIENCE

TORCH_FREE = [
    "ctrlab",
    "ctrlab.cli.verbs",
    "ctrlab.plans.ranks",
    "ctrlab.data.encoding.encode",
    "ctrlab.figures",
    "ctrlab.models.header",
    "ctrlab.services.lab",
    "ctrlab.ui.frame",
    *(f"ctrlab.ui.views.{page}" for page in ("home", "data", "model", "spectra", "compress", "compare", "jobs", "learn")),
]


@pytest.mark.parametrize("module", TORCH_FREE)
def test_module_loads_without_torch_and_sklearn(module):
    code = f"import sys, {module}; print([name for name in ('torch', 'sklearn') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert done.stdout.strip() == "[]"


def test_the_public_names_resolve():
    import ctrlab

    for name in ctrlab.__all__:
        assert getattr(ctrlab, name) is not None
    with pytest.raises(AttributeError, match="it has"):
        _ = ctrlab.nothing

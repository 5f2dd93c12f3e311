"""What is loaded when: import-linter forbids torch to these rooms; here their imports run once, as tests/ui/test_pages does the pages'."""

import subprocess
import sys

import pytest

from tests.support.patience import PATIENCE


def test_the_command_line_and_the_lab_load_without_torch_and_sklearn():
    modules = ["ctrlab.cli.verbs", "ctrlab.services.lab"]
    code = f"import sys, {', '.join(modules)}; print([name for name in ('torch', 'sklearn') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert done.stdout.strip() == "[]"


def test_the_public_names_resolve():
    import ctrlab

    for name in ctrlab.__all__:
        assert getattr(ctrlab, name) is not None
    with pytest.raises(AttributeError, match="it has"):
        _ = ctrlab.nothing

"""Examples in docstrings run, and every public name has one."""

import doctest
import importlib
from pathlib import Path

import pytest

import ctrlab

_PACKAGE = Path(ctrlab.__file__).parent
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(_PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


WITH_EXAMPLES = [module_name(path) for path in sorted(_PACKAGE.rglob("*.py")) if ">>> " in path.read_text()]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTRLAB_HOME", str(tmp_path / "home"))
    result = doctest.testmod(importlib.import_module(name), optionflags=_FLAGS)
    assert result.attempted > 0 and result.failed == 0, "see the captured output"


@pytest.mark.parametrize("name", [name for name in ctrlab.__all__ if callable(getattr(ctrlab, name))])
def test_every_public_name_has_an_example(name: str) -> None:
    assert ">>> " in (getattr(ctrlab, name).__doc__ or "")

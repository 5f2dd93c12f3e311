"""The benchmarks, which take hours, still fit the package: every name that they import from it exists."""

import ast
import importlib
from pathlib import Path

import pytest

import ctrlab

FOLDER = Path(ctrlab.__file__).parents[1] / "benchmarks"


def imported(path: Path) -> list[tuple[str, str]]:
    """(module, name) of every import from the project, those inside functions too."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    own = [node for node in nodes if (node.module or "").split(".")[0] in ("ctrlab", "tests")]
    return [(str(node.module), alias.name) for node in own for alias in node.names]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_names_imported_by_a_benchmark_exist(path: Path) -> None:
    for module, name in imported(path):
        if module.startswith("ctrlab.interop"):
            continue  # needs the other frameworks' environment
        found = importlib.import_module(module)
        assert hasattr(found, name) or (Path(str(found.__file__)).parent / f"{name}.py").exists(), f"{module}.{name}"

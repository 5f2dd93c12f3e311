"""requirements.txt names what the package imports, and nothing else."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import ctrlab

PACKAGE = Path(ctrlab.__file__).parent
#: Needed without being imported here, and why.
INDIRECT = {
    "onnx": "torch's exporter writes files by it",
    "psycopg": "SQLAlchemy's driver of PostgreSQL, requirements-postgres.txt",
}
#: Imported for models of other frameworks only, which have requirements-interop.txt.
OPTIONAL = {"fuxictr", "deepctr-torch", "psycopg"}


def distributions() -> dict[str, str]:
    """{distribution: a file that imports it}, names in lower case."""
    owners, found = packages_distributions(), {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            else:
                continue
            for top in {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names) - {"ctrlab"}:
                found[owners.get(top, [top])[0].lower().replace("_", "-")] = str(path.relative_to(PACKAGE))
    return found


def declared() -> set[str]:
    lines = (PACKAGE.parent / "requirements.txt").read_text().splitlines()
    return {
        re.split(r"[=<>\[]", line)[0].strip().lower().replace("_", "-") for line in lines if line and not line.startswith("#")
    }


def test_everything_imported_is_declared() -> None:
    assert {name: file for name, file in distributions().items() if name not in declared() | OPTIONAL} == {}


def test_everything_declared_is_imported() -> None:
    assert declared() - set(distributions()) - set(INDIRECT) == set()

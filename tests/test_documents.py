"""What the documents say of files, links, make targets and Python calls is true of the code; commands are tested in tests/cli."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import ctrlab

ROOT = Path(ctrlab.__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


@pytest.mark.parametrize("name", NAMES)
def test_make_targets_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / name).read_text(), flags=re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    path = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file) if file else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_named_source_files_exist(name: str) -> None:
    folders = [ROOT / folder for folder in ("ctrlab", "tests", "benchmarks", "docs", "pages", "sample_data")]
    known = [f"/{path.relative_to(ROOT)}" for folder in folders for path in folder.rglob("*.py")] + ["/app.py"]
    named = set(re.findall(r"`([\w/]+\.py)`", (ROOT / name).read_text()))
    assert [file for file in sorted(named) if not any(path.endswith(f"/{file}") for path in known)] == []


def test_every_room_is_in_the_architecture() -> None:
    package = ROOT / "ctrlab"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")} | {path.stem for path in package.glob("[a-z_]*.py")}
    table = (ROOT / "docs" / "ARCHITECTURE.md").read_text().partition("## The rooms")[2].partition("\n## ")[0]
    named = {name for line in table.splitlines() if line.startswith("|") for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert rooms - {"__init__"} == named


def calls() -> list[ast.Call]:
    """Every call of the package or of a Lab in the Python blocks of the README."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    nodes = [node for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    return [node for node in nodes if re.match(r"(ctrlab|lab)\.", ast.unparse(node.func))]


@pytest.mark.parametrize("call", calls(), ids=ast.unparse)
def test_python_calls_of_the_readme_fit_their_signatures(call: ast.Call) -> None:
    owner, _, name = ast.unparse(call.func).partition(".")
    called = getattr(ctrlab if owner == "ctrlab" else ctrlab.Lab, name)
    given = [None] * (len(call.args) + (owner == "lab"))
    inspect.signature(called).bind(*given, **{str(keyword.arg): None for keyword in call.keywords})

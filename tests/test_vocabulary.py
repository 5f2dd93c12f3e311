"""The code obeys docs/VOCABULARY.md: the words that a term replaces are found nowhere, and the files it names exist."""

import re
from functools import cache
from pathlib import Path

import pytest

import ctrlab

ROOT = Path(ctrlab.__file__).parents[1]
PAGE = ROOT / "docs" / "VOCABULARY.md"
#: These name old words on purpose, or are history.
LEFT_OUT = {PAGE, ROOT / "CHANGELOG.md", Path(__file__).resolve()}

#: Personified code and riddles, which the reader cannot search for.
PHRASES = (
    "who knows", "is told", "are told", "is asked for ahead", "lets go of", "let go of", "for those who", "left to luck",
    "as if nothing had happened", "is passed on at most every", "whose yes is final", "stands in for the `forward`",
    "while its slider is still warm", "is to say", "believed when it ran", "this machine's to say", "Bring a checkpoint",
    "Hand back now what is kept", "is then not drawn in", "What hashing starts from", "Who works on this store",
    "until its vocabularies are settled", "Where in time a split by time cuts", "nobody is told",
)  # fmt: skip


def rows() -> list[list[str]]:
    """[term, meaning, where, not] of every line of the page's tables."""
    lines = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    return [line for line in cells if line[0] != "term" and not set(line[0]) <= {"-"}]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


OLD_WORDS = [word for row in rows() for word in quoted(row[3])]


@cache
def texts() -> dict[str, str]:
    """Everything that people read or that runs, without results of measurements."""
    files = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml", "app.py")]
    for folder in ("ctrlab", "tests", "docs", "benchmarks", "pages", "sample_data"):
        files += [path for suffix in ("py", "md", "css", "js", "html") for path in (ROOT / folder).rglob(f"*.{suffix}")]
    return {str(path.relative_to(ROOT)): path.read_text() for path in files if path not in LEFT_OUT and path.exists()}


@cache
def lowered() -> dict[str, str]:
    """`texts` in lower case."""
    return {name: text.lower() for name, text in texts().items()}


def places(word: str) -> list[str]:
    """file:line of every use, whole words only."""
    pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE if word.islower() else 0)
    return [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}"
        for name, text in texts().items()
        if word.lower() in lowered()[name]  # a search for a pattern takes ten times as long
        for match in pattern.finditer(text)
    ]


@pytest.mark.parametrize("word", OLD_WORDS)
def test_a_replaced_word_is_used_nowhere(word: str) -> None:
    assert places(word) == []


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_riddle_is_found_nowhere(phrase: str) -> None:
    assert places(phrase) == []


def test_the_page_names_files_that_exist() -> None:
    named = [path for row in rows() for path in quoted(row[2])]
    assert len(named) > 30
    assert [path for path in named if not any((folder / path).exists() for folder in (ROOT, ROOT / "ctrlab"))] == []


def test_the_readme_links_the_page() -> None:
    assert "docs/VOCABULARY.md" in (ROOT / "README.md").read_text()

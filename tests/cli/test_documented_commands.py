"""Every command in the documents parses, and every verb is documented and has help."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctrlab.__main__ import build_parser

PROJECT = Path(__file__).parents[2]
DOCUMENTS = [PROJECT / "README.md", *sorted(PROJECT.glob("CONTRIBUTING.md")), *sorted((PROJECT / "docs").glob("*.md"))]
_PROGRAM = r"(?:(?:\S*/)?python -m )?ctrlab"
_BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```|((?:^ {4}.*\n)+)", re.MULTILINE | re.DOTALL)
_LINE = re.compile(rf"^\s*(?:\$ )?{_PROGRAM} +(.+)$", re.MULTILINE)
_INLINE = re.compile(rf"`{_PROGRAM} ([a-z][^`]*)`")


def commands(text: str) -> list[str]:
    """The arguments of every command line in the code blocks of a document."""
    blocks = ("".join(found.groups(default="")) for found in _BLOCK.finditer(text))
    return [line for block in blocks for line in _LINE.findall(block.replace("\\\n", " "))]


def verbs(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Every verb, as its words, with its parser; `data` stands for its actions."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield path, parser
    for name, sub in (item for action in below for item in action.choices.items()):
        yield from verbs(sub, (*path, name))


VERBS = dict(verbs(build_parser()))
WRITTEN = [(path.name, line) for path in DOCUMENTS for line in commands(path.read_text(encoding="utf-8"))]
MENTIONED = [(path.name, line) for path in DOCUMENTS for line in _INLINE.findall(path.read_text(encoding="utf-8"))]


def verb_of(words: list[str]) -> tuple[str, ...]:
    return next((path for path in VERBS if tuple(words[: len(path)]) == path), ())


def test_the_documents_have_commands():
    assert {"README.md", "COMMANDS.md"} <= {name for name, _ in WRITTEN}


@pytest.mark.parametrize(("document", "line"), WRITTEN, ids=[f"{name}: {line[:50]}" for name, line in WRITTEN])
def test_every_command_line_of_the_documents_parses(document, line, capsys):
    try:
        build_parser().parse_args(shlex.split(line, comments=True))
    except SystemExit:
        pytest.fail(f"{document}: ctrlab {line}\n{capsys.readouterr().err}")


@pytest.mark.parametrize(("document", "line"), MENTIONED, ids=[f"{name}: {line[:50]}" for name, line in MENTIONED])
def test_every_command_mentioned_in_a_sentence_exists_with_its_flags(document, line):
    words = line.split()
    path = verb_of(words) or next((path for path in VERBS if path[0] == words[0]), ())
    assert path, f"{document} mentions `ctrlab {line}`, which is no verb"
    flags = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert flags <= set(VERBS[path]._option_string_actions), f"{document} mentions `ctrlab {line}`"


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_every_verb_is_documented_with_an_example(path):
    documented = {verb_of(shlex.split(line, comments=True)) for name, line in WRITTEN if name in ("README.md", "COMMANDS.md")}
    assert path in documented, f"`ctrlab {' '.join(path)}` has no example in README.md or docs/COMMANDS.md"


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_every_verb_and_flag_has_help(path):
    parser = VERBS[path]
    assert parser.description, f"{' '.join(path)} has no description"
    undocumented = [action.dest for action in parser._actions if not action.help]
    assert not undocumented, f"{' '.join(path)}: {', '.join(undocumented)}"


def test_a_command_that_does_not_exist_is_found():
    (line,) = commands("```\n.venv/bin/python -m ctrlab compress model-1 --no-such-flag 3  # comment\n```\n")
    with pytest.raises(SystemExit):
        build_parser().parse_args(shlex.split(line, comments=True))

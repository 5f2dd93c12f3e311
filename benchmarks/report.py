"""Draw docs/BENCHMARKS.md from benchmarks/results/*.json and the remarks in benchmarks/commentary/*.md.

    python benchmarks/report.py

A result's "targets" are added to the table of targets, its "tables" are its section, and a remark of
the same name follows them. Quick runs are ignored.
"""

import json
from pathlib import Path
from typing import Any

from common import PROJECT, RESULTS, Table, markdown_table

COMMENTARY = PROJECT / "benchmarks" / "commentary"
DOCUMENT = PROJECT / "docs" / "BENCHMARKS.md"
#: Sections in this order first; others follow by name.
ORDER = ("training", "inference", "spectra", "ingest", "big_table", "big_table_1e10", "metrics", "preview", "scaling")
#: Results with targets of the planner, which have a table of their own.
PLANNER = ("preview", "rank_choice", "speed_model")
VERDICTS = {True: "met", False: "**not met**", None: "not measured"}
INTRODUCTION = """# Benchmarks

Drawn by `python benchmarks/report.py` from `benchmarks/results/` and `benchmarks/commentary/`; not to be edited by hand. Each
figure against a peer is a ratio within one run on one machine. How to run each again stands in its section.
"""

Result = dict[str, Any]


def main() -> None:
    text = document(read_results(RESULTS), read_commentary(COMMENTARY))
    DOCUMENT.write_text(text)
    print(f"written to {DOCUMENT.relative_to(PROJECT)}")


def read_results(folder: Path) -> dict[str, Result]:
    """{name: result} of all that have tables or targets; older results have neither."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        if not path.stem.endswith("-quick") and isinstance(result, dict) and (result.get("tables") or result.get("targets")):
            found[path.stem] = result
    return found


def read_commentary(folder: Path) -> dict[str, str]:
    """{name: remark}."""
    return {path.stem: path.read_text().strip() for path in sorted(folder.glob("*.md"))}


def document(results: dict[str, Result], commentary: dict[str, str]) -> str:
    """The whole page."""
    names = sorted({*results, *commentary}, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    sections = [section(name, results.get(name), commentary.get(name, "")) for name in names]
    speed, planner = ([name for name in names if (name in PLANNER) == own] for own in (False, True))
    targets = [acceptance("Targets", results, speed), acceptance("Targets of the planner", results, planner)]
    return "\n\n".join([INTRODUCTION.rstrip(), *targets, *sections]) + "\n"


def acceptance(title: str, results: dict[str, Result], names: list[str]) -> str:
    """Every target of these results."""
    rows = [
        [target["what"], target["target"], target["measured"], VERDICTS[target["met"]], f"[{name}](#{anchor(name)})"]
        for name in names
        for target in results.get(name, {}).get("targets", [])
    ]
    if not rows:
        return f"## {title}\n\nNone has been measured yet."
    met, judged = sum(row[3] == VERDICTS[True] for row in rows), sum(row[3] != VERDICTS[None] for row in rows)
    table = markdown_table(["what", "target", "measured", "", "section"], rows)
    return f"## {title}\n\n{met} of {judged} measured targets are met.\n\n{table}"


def section(name: str, result: Result | None, remark: str) -> str:
    """A benchmark's tables, how they were made, and the remark."""
    parts = [f"## {heading(name)}"]
    if result is None:
        parts.append("Not measured yet.")
    else:
        parts.append(origin(result))
        parts += [str(Table(**(table | {"title": f"**{table['title']}**"}))).strip() for table in result.get("tables", [])]
    return "\n\n".join([*parts, remark] if remark else parts)


def origin(result: Result) -> str:
    """Where and how it was measured."""
    machine = result.get("machine", {})
    facts = [f"{key} {machine[key]}" for key in ("cpu", "torch", "date") if key in machine]
    threads = (result.get("results") or {}).get("threads") if isinstance(result.get("results"), dict) else None
    threads = threads or machine.get("threads")
    facts += [f"{threads} threads"] if threads else []
    return f"`python {result['command']}` ({', '.join(facts)})" if "command" in result else f"({', '.join(facts)})"


def heading(name: str) -> str:
    return name.replace("_", " ").capitalize()


def anchor(name: str) -> str:
    return heading(name).lower().replace(" ", "-")


if __name__ == "__main__":
    main()

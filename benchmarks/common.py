"""Shared by the benchmarks: paths of real data, Markdown tables, and the format of a result.

A benchmark ends with `write_json(NAME, raw, tables=[...], targets=[...], quick=args.quick)`, which writes
`benchmarks/results/NAME.json`; `benchmarks/report.py` draws docs/BENCHMARKS.md from all of those, whatever their names:

    {"name": "training", "machine": {"cpu", "threads", "torch", "date", ...}, "command": "benchmarks/training.py --rounds 3",
     "tables": [{"title": "...", "headers": ["model", "rows/s"], "rows": [["DeepFM", "61.2 k"]], "note": "..."}],
     "targets": [{"what": "...", "target": "at least 2.3x", "measured": "2.61x", "met": true}],
     "results": raw measurements}
"""

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
RESULTS = PROJECT / "benchmarks" / "results"


def real_data(name: str) -> Path:
    """A file or folder of the real data, which is not part of the project; exits with a message where it is missing."""
    folder = Path(os.environ.get("CTRLAB_REALDATA", PROJECT.parent / "shared" / "data"))
    path = folder / name
    if not path.exists():
        raise SystemExit(f"{name} is not in {folder}; set CTRLAB_REALDATA to the folder that holds it")
    return path


def machine() -> dict[str, Any]:
    """CPU, threads, torch version and date of a measurement."""
    import torch

    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor())
    return {"cpu": cpu, "threads": torch.get_num_threads(), "torch": torch.__version__, "date": f"{datetime.now(UTC):%Y-%m-%d}"}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [headers, ["---"] * len(headers), *rows]]
    return "\n".join(lines)


@dataclass(frozen=True)
class Table:
    """A table of a result. rows: cells as text, already rounded. note: a sentence under it."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def __str__(self) -> str:
        return f"\n{self.title}\n\n{markdown_table(self.headers, self.rows)}" + (f"\n\n{self.note}" if self.note else "")


@dataclass(frozen=True)
class Target:
    """A line of the acceptance table. met: None where nothing was measured; `measured` then says why."""

    what: str
    target: str
    measured: str
    met: bool | None

    def __str__(self) -> str:
        verdict = {True: "met", False: "NOT met", None: "not measured"}[self.met]
        return f"{verdict}: {self.what}: {self.measured} (target: {self.target})"


def at_least(what: str, value: float, bound: float, form: str = "{:.2f}x") -> Target:
    """A lower bound; `form` formats both figures."""
    return Target(what, f"at least {form.format(bound)}", form.format(value), bool(value >= bound))


def at_most(what: str, value: float, bound: float, form: str = "{:.2f}x") -> Target:
    """An upper bound; `form` formats both figures."""
    return Target(what, f"at most {form.format(bound)}", form.format(value), bool(value <= bound))


def result_path(name: str, quick: bool = False) -> Path:
    """Path of a benchmark's result. Quick runs are smoke tests and have a file of their own."""
    return RESULTS / f"{name}{'-quick' if quick else ''}.json"


def stored_result(name: str) -> dict[str, Any]:
    """An earlier result, to draw its tables again with its own machine and command."""
    found: dict[str, Any] = json.loads(result_path(name).read_text())
    return found


def write_json(
    name: str, content: Any, *, tables: Sequence[Table] = (), targets: Sequence[Target] = (), quick: bool = False,
    command: str = "", measured_on: dict[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Write `content`, its tables and targets, and the machine's description to benchmarks/results/<name>.json.

    command: repeats the whole result, where this run measured a part.
    measured_on: the machine, where figures are only drawn again.
    """
    document = {
        "name": name,
        "machine": measured_on or machine(),
        "command": command or " ".join([f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "tables": [asdict(table) for table in tables],
        "targets": [asdict(target) for target in targets],
        "results": content,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = result_path(name, quick)
    path.write_text(json.dumps(document, indent=2, default=_plain) + "\n")
    return path


def _plain(value: Any) -> Any:
    """numpy scalars and arrays as plain JSON values."""
    return value.tolist() if hasattr(value, "tolist") else float(value)

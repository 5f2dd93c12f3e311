"""What the benchmarks share: where real data is, how a table is printed, where its JSON goes."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
RESULTS = PROJECT / "benchmarks" / "results"


def real_data(name: str) -> Path:
    """A file or folder of the real data, which is not part of the project; stops with a sentence where it is absent."""
    folder = Path(os.environ.get("CTRLAB_REALDATA", PROJECT.parent / "shared" / "data"))
    path = folder / name
    if not path.exists():
        raise SystemExit(f"{name} is not in {folder}; set CTRLAB_REALDATA to the folder that holds it")
    return path


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor())
    return {"cpu": cpu, "threads": torch.get_num_threads(), "torch": torch.__version__, "date": f"{datetime.now(UTC):%Y-%m-%d}"}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as the documents hold it."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [headers, ["---"] * len(headers), *rows]]
    return "\n".join(lines)


def write_json(name: str, content: Any) -> Path:
    """Write `content` with the machine's description to benchmarks/results/<name>.json."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), "results": content}, indent=2, default=float))
    return path

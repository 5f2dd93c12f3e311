"""Which code made an artifact: the package's version, and the commit when it runs from a checkout."""

from functools import cache
from pathlib import Path

import ctrlab


@cache
def code_version() -> str:
    """Such as "0.1.0+g1a2b3c4d", or "0.1.0" outside a checkout."""
    commit = _commit(Path(__file__).resolve().parents[2] / ".git")
    return f"{ctrlab.__version__}+g{commit[:8]}" if commit else ctrlab.__version__


def _commit(git: Path) -> str:
    """The commit that HEAD points to, read from the files themselves: no git, no child process."""
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        loose = git / name
        if loose.exists():
            return loose.read_text().strip()
        packed = (git / "packed-refs").read_text().splitlines()
        return next((line.split()[0] for line in packed if line.endswith(" " + name)), "")
    except OSError:
        return ""

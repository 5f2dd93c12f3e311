"""Journal of artifact folders that are being added or deleted; after a crash it names the folders that may be removed.

A change is recorded in a file before its folders or rows are touched, and the file is removed once both agree. A folder that no
such file names is never removed by a sweep, even without a row: it may belong to a database that was moved aside, to
another one, or to rows that an older backup does not have.
"""

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ctrlab.storage.locks import FileLock


class PendingChanges:
    """The journal of one store in one home. Each change is locked while the process that makes it is at work."""

    def __init__(self, root: Path, store_id: str) -> None:
        self._root = root
        self._store_id = store_id

    @contextmanager
    def record(self, artifact_ids: Sequence[str]) -> Iterator[None]:
        """Record that these artifacts are being changed, until the end of the block. The record of a killed process stays."""
        lock = FileLock(self._root / f"change-{secrets.token_hex(8)}")
        lock.acquire()
        try:
            lock.path.write_text(json.dumps({"store": self._store_id, "artifacts": list(artifact_ids)}))
            yield
            lock.path.unlink(missing_ok=True)
        finally:
            lock.release()

    @contextmanager
    def abandoned(self, older_than_seconds: float) -> Iterator[list[str]]:
        """Ids of artifacts whose change was not finished. Their records are removed at the end of the block, unless it raises."""
        with ExitStack() as locks:
            records: dict[Path, list[str]] = {}
            for path in sorted(self._root.glob("change-*")):
                lock = FileLock(path)
                if _age_seconds(path) > older_than_seconds and lock.acquire():
                    locks.callback(lock.release)
                    ids = self._ids(path)
                    if ids is not None:
                        records[path] = ids
            yield [artifact_id for ids in records.values() for artifact_id in ids]
            for path in records:
                path.unlink(missing_ok=True)

    def _ids(self, path: Path) -> list[str] | None:
        """The artifacts of a record; none of one that was not finished, and None of another store's."""
        try:
            record = json.loads(path.read_text())
        except (OSError, ValueError):
            return []
        return record["artifacts"] if record["store"] == self._store_id else None


def _age_seconds(path: Path) -> float:
    """Seconds since the file was written; 0 where it has just been removed."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0

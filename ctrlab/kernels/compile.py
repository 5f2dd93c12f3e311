"""`compiled`: numba's `njit` with a machine code cache that notices every edit of the sources beside a loop.

numba keys its cache by the file of the loop alone, while loops inline functions of other files: after an edit of those files
the old machine code went on running. Here the cache folder is named by a digest of all Python sources in the folder of the loop,
so functions may be inlined from that folder only.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import stat
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import numba
from numba import njit, types
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.serialize import dumps

F = TypeVar("F", bound=Callable[..., Any])

#: Sums may be reordered and contracted (hence held in vector registers); nan and infinity keep their meaning.
REORDER_SUMS = {"contract", "reassoc", "nsz"}


def compiled(**options: Any) -> Callable[[F], F]:
    """A decorator: compile a loop for the CPU, release the GIL while it runs, and cache the machine code on disk.

    Args:
        options: further options of `numba.njit`, such as `fastmath`.
    """

    def decorate(function: F) -> F:
        dispatcher = njit(nogil=True, **options)(function)
        dispatcher._cache = _SourceDigestCache(function)
        dispatcher.get_call_template = functools.partial(_call_template, dispatcher.get_call_template)
        return dispatcher  # type: ignore[no-any-return]

    return decorate


def _call_template(original: Callable[..., Any], args: Sequence[types.Type], kws: Mapping[str, types.Type]) -> Any:
    """How another loop calls this one: numba would compile it once more for every constant among the arguments."""
    return original(tuple(map(types.unliteral, args)), {name: types.unliteral(kind) for name, kind in kws.items()})


class _SourceDigestLocator(_CacheLocator):  # type: ignore[misc, unused-ignore]
    """Where the machine code of one loop is cached, and the version of its sources."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._py_file = file
        self._first_line = function.__code__.co_firstlineno
        self._digest = source_digest(Path(file).parent)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> Self:
        return cls(py_func, py_file)

    def get_cache_path(self) -> str:
        return str(cache_folder() / self._digest)

    def get_source_stamp(self) -> str:
        return self._digest

    def get_disambiguator(self) -> str:
        return str(self._first_line)


class _SourceDigestImpl(CompileResultCacheImpl):  # type: ignore[misc, unused-ignore]
    _locator_classes = [_SourceDigestLocator]  # noqa: RUF012 - as numba declares it


class _SourceDigestCache(FunctionCache):
    """One file per signature, written atomically.

    numba's own cache numbers the signatures of a loop in an index: of two processes that compile different signatures at the same
    time, one could load the machine code of the other's.
    """

    _impl_class = _SourceDigestImpl

    def _load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            content = self._file_of(sig, target_context.codegen()).read_bytes()
        except OSError:
            return None
        return self._impl.rebuild(target_context, pickle.loads(content))

    def _save_overload(self, sig: Any, data: Any) -> None:
        if not self._impl.check_cachable(data):
            return
        self._impl.locator.ensure_cache_path()
        path = self._file_of(sig, data.codegen)
        unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        unfinished.write_bytes(dumps(self._impl.reduce(data)))
        unfinished.replace(path)

    def _file_of(self, sig: Any, codegen: Any) -> Path:
        key = repr((numba.__version__, self._index_key(sig, codegen)))
        return Path(self._cache_path) / f"{self._impl.filename_base}.{hashlib.sha256(key.encode()).hexdigest()[:20]}.nbc"


@functools.cache
def source_digest(folder: Path) -> str:
    """20 hexadecimal digits over the names and contents of all Python sources directly in `folder`."""
    digest = hashlib.sha256()
    for source in sorted(folder.glob("*.py")):
        content = source.read_bytes()
        digest.update(f"{source.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:20]


@functools.cache
def cache_folder() -> Path:
    """The folder of all machine code caches: in the user's cache folder or, where that cannot be written, a temporary one."""
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: the user has no home folder
        folder = (Path(base) if base else Path.home() / ".cache") / "ctrlab" / "machine-code"
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        return folder
    return _temporary_folder()


def _temporary_folder() -> Path:
    """One of this user's own: machine code that others could write must not be run."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"ctrlab-machine-code-{user}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o077:
            return folder
    return Path(tempfile.mkdtemp(prefix="ctrlab-machine-code-"))

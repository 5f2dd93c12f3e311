"""Functions named `module:function` that make an outside model, and which of them this user allowed to be imported.

Importing a module runs its code. A factory is imported only by the command line that names it and, later, by jobs and the
preview process where *this user, on this machine* registered that model with it: `register` writes model, address and folder into
a file in the user's configuration folder, outside every home. A row of the store alone imports nothing, and no page can add to
that file.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import platformdirs

from ctrlab.errors import ConfigError, CtrlabError
from ctrlab.services.workspace import Workspace
from ctrlab.storage.folders import PRIVATE_FILE, make_private_folder
from ctrlab.storage.locks import FileLock

_ALLOWED_FILE = "factories.json"
_LOCK_SECONDS = 10.0
#: {folder of a factory: names of the modules that its calls imported from it}; the folder was put on the path for them.
_imported: dict[str, set[str]] = {}


@dataclass(frozen=True, kw_only=True)
class Factory:
    """A function of a Python module. address: "module:function"; folder: searched for the module first."""

    address: str
    folder: str

    @classmethod
    def here(cls, address: str) -> Self:
        """In the working folder.

        Raises:
            ConfigError: it is not written module:function.
        """
        module_name, _, function_name = address.partition(":")
        if not module_name or not function_name:
            raise ConfigError(f"the factory must be written module:function, such as train:make; got {address!r}")
        return cls(address=address, folder=str(Path.cwd()))

    def make(self) -> Any:
        """Import the module and call the function.

        Modules of other factories' folders are imported anew when those are called again, so that two folders may both have a
        train.py.

        Raises:
            ConfigError: there is no such module or function, a module of this name was imported from elsewhere, or it failed.
        """
        module_name, _, function_name = self.address.partition(":")
        _forget_other_folders(self.folder)
        if self.folder not in sys.path:
            sys.path.insert(0, self.folder)
            _imported.setdefault(self.folder, set())
        before = set(sys.modules)
        try:
            return self._function(module_name, function_name)()
        except CtrlabError:
            raise
        except Exception as error:  # of the user's own code
            reason = " ".join(str(error).split()) or "no message"
            raise ConfigError(
                f"{self.address} failed with {type(error).__name__}: {reason}; call it in Python to see where"
            ) from error
        finally:
            if self.folder in _imported:
                _imported[self.folder] |= _modules_below(self.folder) - before

    def _function(self, module_name: str, function_name: str) -> Callable[[], Any]:
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{module_name} cannot be imported from {self.folder} ({error}); start ctrlab in the folder of {module_name}.py"
            ) from error
        if not callable(getattr(module, function_name, None)):
            raise ConfigError(f"{module_name} has no function {function_name}")
        self._check_origin(module)
        function: Callable[[], Any] = getattr(module, function_name)
        return function

    def _check_origin(self, module: ModuleType) -> None:
        """ConfigError where the folder has a module of this name, and another one is imported."""
        found = PathFinder.find_spec(module.__name__.rpartition(".")[2], [self.folder]) if "." not in module.__name__ else None
        if found is None or found.origin is None or module.__file__ is None:
            return
        if Path(found.origin).resolve() != Path(module.__file__).resolve():
            raise ConfigError(
                f"a module {module.__name__} is already imported from {module.__file__}; give {found.origin} another name"
            )


def make_module(address: str) -> Any:
    """(module, calibration batches) from the factory at `address`, in the working folder.

    Raises:
        ConfigError: there is no such function, or it returns something else.
    """
    made = Factory.here(address).make()
    if not isinstance(made, tuple) or len(made) != 2 or not hasattr(made[0], "named_modules"):
        raise ConfigError(f"{address} must return a pair (module, batches); got {type(made).__name__}")
    return made


def allow(workspace: Workspace, model_id: str, factory: Factory) -> None:
    """Let jobs and the preview process of this user import the factory for this model.

    Raises:
        ConfigError: the user's configuration folder cannot be written, or another process writes there for long.
    """
    path = _allowed_path()
    try:
        make_private_folder(path.parent)
        lock = FileLock(path.with_suffix(".lock"))
        if not lock.acquire(_LOCK_SECONDS):  # two registrations at once keep both entries
            raise ConfigError(f"another process holds {lock.path}; wait for its registration to end, then register again")
        try:
            _write(path, [*_allowed(), _entry(workspace, model_id, factory)])
        finally:
            lock.release()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}), so no other process may import the factory; set XDG_CONFIG_HOME to a "
            "folder that can be written"
        ) from error


def _write(path: Path, entries: list[dict[str, str]]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(entries, file, indent=1)
    temporary.replace(path)


def check_allowed(workspace: Workspace, model_id: str, factory: Factory) -> None:
    """ConfigError where this user has not registered the model with this factory on this machine."""
    if _entry(workspace, model_id, factory) not in _allowed():
        raise ConfigError(
            f"the factory {factory.address} of {model_id} was not registered by this user on this machine, so it is not "
            f"imported; run `ctrlab register {factory.address}` here"
        )


def _forget_other_folders(folder: str) -> None:
    for other in [known for known in _imported if known != folder]:
        for name in _imported.pop(other):
            sys.modules.pop(name, None)
        if other in sys.path:
            sys.path.remove(other)


def _modules_below(folder: str) -> set[str]:
    """Names of the imported modules whose files lie in the folder itself, not in an environment below it."""
    found = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        own = name.partition(".")[0] not in ("ctrlab", "__main__")
        if own and file and file.startswith(folder + os.sep) and "site-packages" not in file:
            found.add(name)
    return found


def _entry(workspace: Workspace, model_id: str, factory: Factory) -> dict[str, str]:
    home = str(workspace.home.absolute())
    return {"home": home, "model": model_id, "address": factory.address, "folder": factory.folder}


def _allowed_path() -> Path:
    return platformdirs.user_config_path("ctrlab", appauthor=False) / _ALLOWED_FILE


def _allowed() -> list[dict[str, str]]:
    try:
        found = json.loads(_allowed_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []

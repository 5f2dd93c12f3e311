"""The workspace: one home folder with its store, the first argument of every service; and the processes started for it."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

import ctrlab
from ctrlab.storage import Store
from ctrlab.storage.folders import PRIVATE_FILE

HOME_VARIABLE = "CTRLAB_HOME"
URL_VARIABLE = "CTRLAB_STORE_URL"
#: Files that our processes create are readable by their user alone.
PRIVATE_UMASK = 0o077


@dataclass(frozen=True)
class Workspace:
    """A home folder and its store. url: the store's address when it is not the SQLite file in `home`."""

    home: Path
    store: Store
    url: str | None = None

    def environment(self) -> dict[str, str]:
        """This process's environment, changed so that a child process finds ctrlab and opens the same workspace."""
        environment = {name: value for name, value in os.environ.items() if name != URL_VARIABLE}
        environment[HOME_VARIABLE] = str(self.home)
        # Read when torch is imported: its waiting threads sleep, for spinning ones slow down compiled loops and other processes.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if self.url:  # in the environment and not on a command line, for it may hold a password
            environment[URL_VARIABLE] = self.url
        source = str(Path(ctrlab.__file__).parents[1])  # ctrlab need not be installed
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [source, environment.get("PYTHONPATH")]))
        return environment

    def start_process(
        self,
        command: Sequence[str],
        *,
        log: str,
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Start a process that works in this home, in a session of its own: it outlives this process unless it watches `stdin`.

        Args:
            command: program and arguments.
            log: name of the file in the home that its standard error, and its output unless `stdout` is given, is appended to.
            stdin: as of `subprocess.Popen`.
            stdout: as of `subprocess.Popen`; None appends it to the log.
            variables: added to its environment.
        """
        descriptor = os.open(self.home / log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            return subprocess.Popen(
                command, stdin=stdin, stdout=descriptor if stdout is None else stdout, stderr=descriptor, start_new_session=True,
                cwd=self.home, env={**self.environment(), **(variables or {})}, umask=PRIVATE_UMASK,
            )  # fmt: skip
        finally:
            os.close(descriptor)


def open_workspace(home: Path | str | None = None, url: str | None = None) -> Workspace:
    """Open the workspace, creating it if it is not there.

    Args:
        home: its folder; else CTRLAB_HOME, else the user's data directory.
        url: the store's SQLAlchemy address; else CTRLAB_STORE_URL, else an SQLite file in `home`.

    Raises:
        StorageError: see `Store.open`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     workspace = open_workspace(folder)
    ...     workspace.store.close()
    ...     str(workspace.home) == folder
    True
    """
    store = Store.open(home_folder(home), address := url or os.environ.get(URL_VARIABLE) or None)
    return Workspace(store.home, store, address)


def home_folder(home: Path | str | None = None) -> Path:
    """The folder that `open_workspace` would use; it need not exist."""
    return Path(home or os.environ.get(HOME_VARIABLE) or platformdirs.user_data_dir("ctrlab", appauthor=False))

"""The workspace: one home folder with its store, handed to every service as its first argument."""

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

import ctrlab
from ctrlab.storage import Store

HOME_VARIABLE = "CTRLAB_HOME"
URL_VARIABLE = "CTRLAB_STORE_URL"


@dataclass(frozen=True)
class Workspace:
    """Where everything is. url: the store's address when it is not the SQLite file in `home`."""

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


def open_workspace(home: Path | str | None = None, url: str | None = None) -> Workspace:
    """Open the workspace, making it if it is not there.

    Args:
        home: its folder; else CTRLAB_HOME, else the user's data directory.
        url: the store's SQLAlchemy address; else CTRLAB_STORE_URL, else an SQLite file in `home`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     workspace = open_workspace(folder)
    ...     workspace.store.close()
    ...     str(workspace.home) == folder
    True
    """
    chosen = Path(home or os.environ.get(HOME_VARIABLE) or platformdirs.user_data_dir("ctrlab", appauthor=False))
    address = url or os.environ.get(URL_VARIABLE) or None
    store = Store.open(chosen, address)
    return Workspace(store.home, store, address)

"""The bundle that is served and the one before it; another takes its place between two requests."""

import threading
from dataclasses import dataclass
from pathlib import Path

from ctrlab.errors import ServingError
from ctrlab.serving.bundle.read import Bundle, load_bundle


@dataclass(frozen=True)
class Served:
    """What a request is answered by, from its beginning to its end."""

    bundle: Bundle
    previous: Bundle | None = None


class Versions:
    """The bundle at a path, which may be a link that is set to a new version.

    >>> Versions(Path("no-such-folder"))
    Traceback (most recent call last):
        ...
    ctrlab.errors.ServingError: no-such-folder holds no bundle, or a damaged one; `ctrlab export MODEL no-such-folder` writes one
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._served = Served(_opened(path))

    @property
    def served(self) -> Served:
        """The present one; a reference is read and set whole."""
        return self._served

    def reload(self) -> Served:
        """Open the path again and serve what is there now, if it answers as it must; else the present one stays.

        Raises:
            ServingError: what is there cannot be served.
        """
        with self._lock:
            bundle = _opened(self.path)
            if bundle.version != self._served.bundle.version:
                self._served = Served(bundle, self._served.bundle)
            return self._served

    def back(self) -> Served:
        """Serve the one before; ServingError where there was none."""
        with self._lock:
            if self._served.previous is None:
                raise ServingError("there is no version before this one; reload after the path was set to another bundle")
            self._served = Served(self._served.previous, self._served.bundle)
            return self._served


def _opened(path: Path) -> Bundle:
    """A bundle whose examples give their probabilities on this machine. The link is followed once, to one version."""
    bundle = load_bundle(path.resolve() if path.exists() else path, threads=1)
    bundle.check()
    return bundle

"""Text files that the user named."""

from pathlib import Path

from ctrlab.errors import ConfigError


def write_text(path: Path, text: str) -> None:
    """Write a file that the user named; ConfigError where that is impossible."""
    try:
        path.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ConfigError(f"{path} cannot be written ({reason}); give a path in a folder that exists and is writable") from error

"""The Compare page."""


def render() -> None:
    """The page."""

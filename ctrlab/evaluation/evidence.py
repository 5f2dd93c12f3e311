"""How many clicks a statement about accuracy needs. Loads without torch."""

#: With fewer rows of the rarer class (clicks, where clicks are rare) no gain or loss is claimed, no measured plan is preferred to
#: the planned one, and intervals do not rely on the normal approximation.
ENOUGH_CLICKS = 30


def rarer_class(num_rows: float, num_clicks: float) -> float:
    """Rows of the rarer class: clicks or non-clicks, whichever are fewer.

    >>> rarer_class(1000, 40), rarer_class(1000, 940)
    (40, 60)
    """
    return min(num_clicks, num_rows - num_clicks)


def has_enough_clicks(num_rows: float, num_clicks: float) -> bool:
    """Whether so many rows with so many clicks can tell a difference of two models from noise.

    >>> has_enough_clicks(1000, 24), has_enough_clicks(1000, 940)
    (False, True)
    """
    return rarer_class(num_rows, num_clicks) >= ENOUGH_CLICKS

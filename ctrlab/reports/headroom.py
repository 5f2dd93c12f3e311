"""What the spectra say of a whole model, in two sentences."""

from ctrlab.figures.text import count, difference, percent, times
from ctrlab.plans.headroom import Headroom

#: Below this factor truncation saves nothing worth a sentence.
_LEAST_FACTOR = 1.05


def headline(found: Headroom) -> str:
    """The share of the directions that holds the variance: "95 % of the variance fits in 9.1 % of the directions"."""
    kept = percent(found.variance, 0)
    if found.directions_needed == found.directions:
        return f"{kept} of the variance needs all {found.directions:,} directions"
    return f"{kept} of the variance fits in {percent(found.share, 0)} of the directions"


def details(found: Headroom) -> str:
    """How much smaller is plausible, what it is predicted to cost, and the layer that needs the fewest directions."""
    strongest = f"Strongest: {found.strongest}, {found.strongest_rank} of {found.strongest_width}."
    if found.times_smaller < _LEAST_FACTOR:
        return f"Truncating to it makes the model no smaller. {strongest}"
    text = (
        f"About {times(found.times_smaller)} smaller is plausible: {count(found.parameters)} parameters become "
        f"{count(found.parameters_left)}"
    )
    if found.log_loss_rise is not None:
        text += f", at a predicted rise of log loss of {difference(found.log_loss_rise)}"
    return f"{text}. {strongest}"

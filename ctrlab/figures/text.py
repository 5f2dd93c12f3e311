"""Formatting of numbers for labels and captions."""

import math

MINUS = "\N{MINUS SIGN}"


def percent(share: float, digits: int | None = None) -> str:
    """A share in per cent, with two significant digits where it is small; never rounded to 0 or 100.

    >>> percent(0.0123), percent(0.000004), percent(0.99996), percent(0.5, 0), percent(0.004, 0), percent(0.999, 0)
    ('1.2 %', '< 0.01 %', '99.99 %', '50 %', '< 1 %', '> 99 %')
    """
    value = 100 * share
    if digits is not None:
        step = 10.0**-digits
        if 0 < value < step / 2:
            return f"< {step:g} %"
        if 100 - step / 2 <= value < 100:
            return f"> {100 - step:g} %"
        return f"{value:.{digits}f} %"
    if value == 0 or share >= 1:
        return f"{value:.0f} %"
    if value < 0.01:
        return "< 0.01 %"
    if value > 99.9:
        return f"{math.floor(value * 100) / 100:.2f} %"
    return f"{value:.2f} %" if value < 1 else f"{value:.1f} %"


def count(number: float) -> str:
    """A number with three significant digits and k, M or G.

    >>> count(1_700_000), count(61_234), count(842)
    ('1.70 M', '61.2 k', '842')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * size:
            return f"{three_digits(number / size)} {unit}"
    return f"{number:.0f}" if float(number).is_integer() else three_digits(number)


def size(num_bytes: float) -> str:
    """A size in bytes with three significant digits, in powers of 1000.

    >>> size(6_800_000), size(512)
    ('6.80 MB', '512 B')
    """
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(num_bytes) >= 0.9995 * scale:
            return f"{three_digits(num_bytes / scale)} {unit}"
    return f"{num_bytes:.0f} B"


def three_digits(number: float) -> str:
    """Three significant digits without an exponent."""
    if number == 0:
        return "0"
    exponent = int(f"{number:.2e}".partition("e")[2])  # after rounding: 0.9996 counts as 1.00
    decimals = max(0, 2 - exponent)
    return f"{number:.{min(decimals, 6)}f}"


def times(factor: float) -> str:
    """A factor.

    >>> times(2.9), times(12.3)
    ('2.9x', '12x')
    """
    return f"{factor:.1f}x" if factor < 9.95 else f"{factor:.0f}x"


def difference(value: float) -> str:
    """A signed difference with four digits and a true minus sign.

    >>> difference(0.00061), difference(-0.0012) == f"{MINUS}0.0012", difference(0.00001)
    ('+0.0006', True, '±0.0000')
    """
    text = f"{abs(value):.4f}"
    if float(text) == 0:
        return f"±{text}"
    return f"{'+' if value > 0 else MINUS}{text}"


def rows_and_clicks(num_rows: float, num_clicks: float | None, split: str = "") -> str:
    """What an accuracy was measured on. Clicks are counted exactly: they say how sure an AUC is.

    >>> rows_and_clicks(5000, 24, "test"), rows_and_clicks(61_234, 15_300), rows_and_clicks(800, 1)
    ('5.00 k test rows with 24 clicks', '61.2 k rows with 15.3 k clicks', '800 rows with 1 click')
    """
    rows = " ".join(word for word in (count(num_rows), split, "rows") if word)
    if num_clicks is None or num_clicks != num_clicks:
        return rows
    return f"{rows} with {count(num_clicks)} {'click' if num_clicks == 1 else 'clicks'}"


def plural(number: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "layer"), plural(3, "layer")
    ('1 layer', '3 layers')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

"""Formatting of numbers for labels and captions."""

import math

MINUS = "\N{MINUS SIGN}"


def percent(share: float, digits: int | None = None) -> str:
    """0.0123 -> '1.2 %'; small shares keep two significant digits, nothing is rounded to a false 0 or 100."""
    if digits is not None:
        return f"{100 * share:.{digits}f} %"
    value = 100 * share
    if value == 0 or share >= 1:
        return f"{value:.0f} %"
    if value < 0.01:
        return "< 0.01 %"
    if value > 99.9:
        return f"{math.floor(value * 100) / 100:.2f} %"
    return f"{value:.2f} %" if value < 1 else f"{value:.1f} %"


def count(number: float) -> str:
    """1_700_000 -> '1.70 M'; 61_234 -> '61.2 k'; 842 -> '842'."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * size:
            return f"{three_digits(number / size)} {unit}"
    return f"{number:.0f}" if float(number).is_integer() else three_digits(number)


def size(num_bytes: float) -> str:
    """6_800_000 -> '6.80 MB' (powers of 1000)."""
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
    """2.9 -> '2.9x'; 12.3 -> '12x'."""
    return f"{factor:.1f}x" if factor < 9.95 else f"{factor:.0f}x"


def difference(value: float) -> str:
    """0.00061 -> '+0.0006', -0.0012 -> '−0.0012' (a true minus sign), 0.00001 -> '±0.0000'."""
    text = f"{abs(value):.4f}"
    if float(text) == 0:
        return f"±{text}"
    return f"{'+' if value > 0 else MINUS}{text}"


def plural(number: int, noun: str) -> str:
    """1, 'layer' -> '1 layer'; 3 -> '3 layers'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

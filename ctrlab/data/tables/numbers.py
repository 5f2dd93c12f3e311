"""Reads numbers in the notations of several countries, and finds the notation of a column."""

from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.configs import NumberFormat
from ctrlab.data.tables.cells import BLANKS, PLAIN_CELLS, CellRules, is_missing

_NEARLY_ALL = 0.99
#: Cells from which a notation is found, and the first of them, which tell texts from numbers.
_SAMPLE, _HEAD = 20_000, 200
_EXPONENT = r"([eE][+-]?\d+)?"
#: Regular expression of the numbers of each notation, after `_bare`; plain numbers come first.
_NOTATIONS: dict[NumberFormat, str] = {
    "1234.5": rf"^-?(\d+\.?\d*|\.\d+){_EXPONENT}$",
    "1234,5": rf"^-?(\d+,?\d*|,\d+){_EXPONENT}$",
    "1,234.5": r"^-?(\d{1,3}(,\d{2,3})*,\d{3}|\d+)(\.\d*)?$",
    "1.234,5": r"^-?(\d{1,3}(\.\d{3})+|\d+)(,\d*)?$",
    "1 234,5": r"^-?(\d{1,3}( \d{3})+|\d+)([.,]\d*)?$",
    "1'234.5": r"^-?(\d{1,3}('\d{3})+|\d+)([.,]\d*)?$",
}
#: Marks of thousands that are removed, and the decimal comma.
_THOUSANDS: dict[NumberFormat, str] = {"1,234.5": ",", "1.234,5": ".", "1 234,5": " ", "1'234.5": "'"}
_DECIMAL_COMMA: tuple[NumberFormat, ...] = ("1234,5", "1.234,5", "1 234,5", "1'234.5")
_CURRENCY = r"(?:[\p{Sc}%‰]|(?i:usd|eur|gbp|jpy|cny|rmb|inr|chf|rub|brl|kr|zł|rs\.?))"
_TEXT = pl.col("text")


def read_numbers(texts: pl.Series, rules: CellRules = PLAIN_CELLS) -> tuple[NDArray[np.float64], int]:
    """Numbers float64 (n,), NaN for a missing, infinite or unreadable cell; and the number of unreadable cells.

    Signs of currency and per cent, blanks, a leading plus and parentheses for negative numbers are accepted in every notation:
    4.2% is 4.2.

    >>> read_numbers(pl.Series(["1,104.84", "$2.50", "(3)", "n/a"]), CellRules(number_format="1,234.5"))[0].tolist()
    [1104.84, 2.5, -3.0, nan]
    """
    if rules.number_format != "1234.5":
        parsed = _normalised(texts, rules.number_format).cast(pl.Float64, strict=False)
    else:
        parsed = texts.cast(pl.Float64, strict=False)
    unreadable = 0
    numbers = parsed.fill_null(float("nan")).to_numpy()
    if parsed.null_count() > texts.null_count():
        rows = np.flatnonzero((parsed.is_null() & texts.is_not_null()).to_numpy())
        others = texts.gather(rows)
        again = _normalised(others, rules.number_format).cast(pl.Float64, strict=False)
        unreadable = int((again.is_null() & ~is_missing(others, rules)).sum())
        numbers = numbers.copy()
        numbers[rows] = again.fill_null(float("nan")).to_numpy()
    if rules.missing_words:  # a number, such as -999, may be a word for "missing"
        numbers = np.where(is_missing(texts, rules).to_numpy(), np.nan, numbers)
    return np.where(np.isfinite(numbers), numbers, np.nan), unreadable


def read_shares(texts: pl.Series, rules: CellRules = PLAIN_CELLS) -> NDArray[np.float64]:
    """`read_numbers` where per cent are hundredths.

    >>> read_shares(pl.Series(["4.2 %", "0.5"])).round(3).tolist()
    [0.042, 0.5]
    """
    units = pl.select(
        pl.when(texts.str.contains("%", literal=True)).then(100.0).when(texts.str.contains("‰", literal=True)).then(1000.0)
    ).to_series()
    shares: NDArray[np.float64] = read_numbers(texts, rules)[0] / units.fill_null(1.0).to_numpy()
    return shares


def find_number_formats(texts: pl.Series) -> tuple[NumberFormat, ...]:
    """The notations in which nearly every cell is a number, the likeliest first; empty if the cells are not numbers.

    Two notations are possible where each mark stands before exactly three digits: 1.234 and 1,234.

    >>> find_number_formats(pl.Series(["1,5", "22,75"])), find_number_formats(pl.Series(["1.234", "7.500"]))
    (('1234,5',), ('1234.5', '1.234,5'))
    """
    texts = texts.drop_nulls().head(_SAMPLE)
    found = _fitting(_bare(texts.head(_HEAD)), tuple(_NOTATIONS), 0.9)
    if not found:
        return ()
    bare = _bare(texts)
    found = _fitting(bare, found, _NEARLY_ALL)
    # Marks that no cell has prove nothing: plain numbers fit every notation.
    found = [name for name in found if name not in _THOUSANDS or _has_groups(bare, _THOUSANDS[name])]
    if "1234,5" in found:
        if not bare.str.contains(",", literal=True).any() or "1234.5" in found:
            found.remove("1234,5")
        elif "1,234.5" in found:  # a comma before three digits everywhere: more likely of thousands
            found.remove("1234,5")
            found.append("1234,5")
    return tuple(found)


def _fitting(bare: pl.Series, names: Iterable[NumberFormat], share: float) -> list[NumberFormat]:
    return [name for name in names if len(bare) and bare.str.contains(_NOTATIONS[name]).sum() >= share * len(bare)]


def _has_groups(bare: pl.Series, mark: str) -> bool:
    """Whether a mark stands in the numbers and never after a leading zero, as in 0.125, which has no thousands."""
    marked = bare.filter(bare.str.contains(mark, literal=True))
    return len(marked) > 0 and not marked.str.contains(r"^-?0").any()


def _bare(texts: pl.Series) -> pl.Series:
    """Numbers without currency, per cent, plus and parentheses, in their own notation; empty cells are dropped."""
    return texts.drop_nulls().alias("text").to_frame().select(_stripped(_TEXT)).to_series()


def _stripped(text: pl.Expr) -> pl.Expr:
    blanks = text.str.replace_all(r"[\x{a0}\x{202f}\x{2009}]", " ").str.strip_chars(BLANKS)
    signed = blanks.str.replace(r"^\((.*)\)$", "-${1}").str.replace_all(r"[\x{2212}\x{2013}]", "-")
    negative = signed.str.replace_all("\u2019", "'")
    bare = negative.str.replace(rf"^([+-]?) *{_CURRENCY} *([+-]?)", "${1}${2}").str.replace(rf" *{_CURRENCY}$", "")
    return bare.str.replace(r"^([+-]) +", "${1}").str.replace(r"^\+", "").str.replace(r"^(\d.*)-$", "-${1}")


def _normalised(texts: pl.Series, number_format: NumberFormat) -> pl.Series:
    """Texts of plain numbers; a cell that is not a number of the notation becomes null."""
    bare = _bare(texts.fill_null("")).alias("text")
    kept: pl.Expr = pl.when(_TEXT.str.contains(_NOTATIONS[number_format])).then(_TEXT)
    if number_format in _THOUSANDS:
        kept = kept.str.replace_all(_THOUSANDS[number_format], "", literal=True)
    if number_format in _DECIMAL_COMMA:
        kept = kept.str.replace_all(",", ".", literal=True)
    return bare.to_frame().select(kept).to_series()

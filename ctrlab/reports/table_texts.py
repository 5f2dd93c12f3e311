"""A comparison table as text: Markdown and LaTeX."""

import pandas as pd

from ctrlab.figures.text import difference
from ctrlab.reports.comparison_view import COLUMNS, NONE, text_of

_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\N{MINUS SIGN}": "$-$", "±": r"$\pm$",
    "\N{EN DASH}": "--", **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}  # fmt: skip


def markdown_table(table: pd.DataFrame) -> str:
    """The columns that the Compare page shows at first, as a Markdown table; changes of AUC with their intervals.

    Args:
        table: as for `comparison_view`.
    """
    heads, rows = shown_table(table)
    lines = [heads, ["---"] * len(heads), *([text.replace("\\", "\\\\").replace("|", "\\|") for text in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex_table(table: pd.DataFrame) -> str:
    """`markdown_table` as a LaTeX tabular with rules of booktabs.

    Args:
        table: as for `comparison_view`.
    """
    heads, rows = shown_table(table)
    lines = [" & ".join(map(_latex, row)) + r" \\" for row in (heads, *rows)]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}"
    return "\n".join([begin, r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}", ""])


def shown_table(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """(heads, rows of texts) of the columns that are shown without being asked for."""
    columns = [column for column in COLUMNS if column.shown and column.key in table]
    rows = table.to_dict("records")
    empty = {column.key for column in columns if all(text_of(column, row[column.key]) in ("", NONE) for row in rows)}
    kept = [column for column in columns if column.key not in empty]
    heads = ["Model", *(column.title for column in kept)]
    return heads, [
        [str(row["name"]), *(_with_interval(column.key, text_of(column, row[column.key]), row) for column in kept)]
        for row in rows
    ]


def _with_interval(key: str, text: str, row: dict[object, object]) -> str:
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    if key != "auc_change" or not isinstance(low, float) or not isinstance(high, float) or low != low:
        return text
    return f"{text} ({difference(low)} to {difference(high)})"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)

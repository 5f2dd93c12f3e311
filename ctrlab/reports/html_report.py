"""A comparison as one HTML file that needs no server: sort, filter, hover, brush; light and dark; printable."""

import html
import json
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from ctrlab.figures.text import rows_and_clicks
from ctrlab.reports.comparison_view import comparison_view
from ctrlab.reports.html_assets import comparison_script, comparison_style, page_style
from ctrlab.reports.table_texts import shown_table

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><button type="button" id="theme">Light or dark</button></header>
<p class="facts">{facts}</p>
<main id="comparison"></main>
<noscript>{table}</noscript>
<h2>Repeat it</h2>
<pre>{command}</pre>
<pre>{python}</pre>
<script type="application/json" id="data">{data}</script>
<script>
{script}
new Comparison(document.getElementById("comparison"), JSON.parse(document.getElementById("data").textContent));
document.getElementById("theme").onclick = () => {{
  const root = document.documentElement, dark = getComputedStyle(root).getPropertyValue("color-scheme") === "dark"
    || (root.style.colorScheme === "" && matchMedia("(prefers-color-scheme: dark)").matches);
  root.style.colorScheme = dark ? "light" : "dark";
}};
</script>
</body>
</html>
"""


def html_report(
    table: pd.DataFrame, *, title: str, baseline: str | None = None, chosen: str = "", view: str = "", now: datetime | None = None
) -> str:
    """The text of the file.

    Args:
        table: as for `comparison_view`.
        title: of the page, any text.
        baseline, chosen: ids of rows, as for `comparison_view`.
        view: order, filter and axes to start with, as the Compare page has them in its address.
        now: when it was made, in UTC; the present when not given.
    """
    data = comparison_view(table, baseline=baseline, chosen=chosen) | {"view": view}
    ids = table["id"].tolist()
    return _PAGE.format(
        title=html.escape(title),
        style=page_style() + comparison_style(),
        facts=html.escape(". ".join([*_measured_on(table), f"Made by ctrlab on {(now or datetime.now(UTC)):%d %B %Y}"]) + "."),
        table=_plain_table(table),
        command=html.escape(as_command(ids, baseline)),
        python=html.escape(as_python(ids, baseline)),
        data=_inside_script(data),
        script=comparison_script(),
    )


def as_command(model_ids: list[str], baseline: str | None = None) -> str:
    """The command line that repeats a comparison.

    >>> as_command(["model-1", "model-2"], "model-2")
    'ctrlab compare model-1 model-2 --baseline model-2 --html comparison.html'
    """
    against = f" --baseline {baseline}" if baseline else ""
    return f"ctrlab compare {' '.join(model_ids)}{against} --html comparison.html"


def as_python(model_ids: list[str], baseline: str | None = None) -> str:
    """The Python that repeats a comparison.

    >>> print(as_python(["model-1", "model-2"]))
    import ctrlab
    <BLANKLINE>
    models = ["model-1", "model-2"]
    with ctrlab.Lab() as lab:
        table = lab.compare(models)
        lab.report(models, "comparison.html")
    """
    against = f', baseline="{baseline}"' if baseline else ""
    names = ", ".join(f'"{model_id}"' for model_id in model_ids)
    return (
        f"import ctrlab\n\nmodels = [{names}]\nwith ctrlab.Lab() as lab:\n    table = lab.compare(models{against})\n"
        f'    lab.report(models, "comparison.html"{against})'
    )


def _measured_on(table: pd.DataFrame) -> list[str]:
    """What accuracies were measured on, a line for each set of rows."""
    measured = table[table["measured_rows"].notna()]
    found = measured[["measured_rows", "measured_clicks", "split"]].drop_duplicates().itertuples(index=False, name=None)
    return [f"Measured on {rows_and_clicks(rows, clicks, split)}" for rows, clicks, split in found]


def _plain_table(table: pd.DataFrame) -> str:
    """The table without the script, where a browser runs none."""
    heads, lines = shown_table(table)
    cells = ["".join(f"<td>{html.escape(text)}</td>" for text in line) for line in lines]
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in cells)}</table>"


def _inside_script(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")

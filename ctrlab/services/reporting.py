"""A comparison as a file: HTML, Markdown, LaTeX, CSV."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from ctrlab.reports.html_report import html_report
from ctrlab.reports.table_texts import latex_table, markdown_table
from ctrlab.services.compared import compared_models
from ctrlab.services.text_files import write_text
from ctrlab.services.workspace import Workspace


def report_text(
    workspace: Workspace,
    model_ids: Sequence[str],
    *,
    baseline: str | None = None,
    chosen: str = "",
    title: str = "",
    view: str = "",
) -> str:
    """The HTML report of a comparison; see `html_report`."""
    table = compared_models(workspace, model_ids, baseline)
    return html_report(table, title=title or _title(table), baseline=baseline, chosen=chosen, view=view)


def write_report(
    workspace: Workspace, model_ids: Sequence[str], path: Path, *, baseline: str | None = None, title: str = ""
) -> Path:
    """Write `report_text` to a file, which is replaced where it exists; ConfigError where that is impossible."""
    write_text(path, report_text(workspace, model_ids, baseline=baseline, title=title))
    return path


#: Forms of the table alone, by the name of their option on the command line.
TABLE_FORMS: dict[str, Callable[[pd.DataFrame], str]] = {
    "csv": lambda table: str(table.to_csv(index=False)), "markdown": markdown_table, "latex": latex_table,
}  # fmt: skip


def _title(table: pd.DataFrame) -> str:
    """The title of a report that was given none, such as: DeepFM on Avazu against 3 others."""
    name, others = str(table["name"].iloc[0]), len(table) - 1
    return f"{name} against {others} other{'s' if others != 1 else ''}" if others else name

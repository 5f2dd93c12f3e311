"""A table of the paper's claims beside the measured results."""

import html
from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st

from ctrlab.reports.comparison import SPEED_BATCH
from ctrlab.reports.paper_claims import PAPER, claims_table
from ctrlab.ui import format
from ctrlab.ui.components.downloads import download_table

if TYPE_CHECKING:
    import pandas as pd


def _times_fewer(value: float) -> str:
    if abs(value - 1) < 0.05:
        return "as many"
    return f"{value:.1f}x fewer" if value > 1 else f"{1 / value:.1f}x more"


_WRITE: dict[str, Callable[[float], str]] = {
    "fewer": _times_fewer,
    "auc": format.difference,
    "faster": lambda value: f"{'+' if value >= 0 else format.MINUS}{abs(value):.0%}".replace("%", "\N{NO-BREAK SPACE}%"),
}
_PAPER: dict[str, Callable[[float, float], str]] = {
    "fewer": lambda low, high: f"{low:g} to {high:g}x fewer",
    "auc": lambda low, high: f"{format.difference(low)} to {format.difference(high)}",
    "faster": lambda low, high: f"+{low:.0%} to +{high:.0%}".replace("%", "\N{NO-BREAK SPACE}%"),
}


def paper_claims(table: "pd.DataFrame") -> None:
    """Draw the section; nothing without an original and a compressed model.

    Args:
        table: `comparison_table` with the column finetune.
    """
    claims = claims_table(table)
    if claims.empty:
        return
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="head-claims"):
        st.markdown("**The paper's claims and the measured results**", width="content")
        download_table(claims, "claims")
    body = "".join(_section(str(name), rows) for name, rows in claims.groupby("name", sort=False))
    heads = "".join(f'<th scope="col">{title}</th>' for title in ("Claim", "Paper", "Measured", "Fine-tuning alone"))
    st.html(f'<div class="claims"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>')
    st.caption(
        f"Paper: the ranges in its abstract ({PAPER}), over seven architectures. "
        "Measured: the serving form against the original, AUC and throughput with 95 % intervals, throughput in PyTorch at batch "
        f"{SPEED_BATCH}, timed in turns in one job. Fine-tuning alone: the original with the same fine-tuning and no "
        "compression; a gain that it shares is not due to compression."
    )


def _section(name: str, rows: "pd.DataFrame") -> str:
    head = f'<tr class="section"><th scope="rowgroup" colspan="4">{html.escape(name)}</th></tr>'
    return head + "".join(_row(row) for _, row in rows.iterrows())


def _row(row: "pd.Series") -> str:
    write = _WRITE[row["measure"]]
    measured = format.NONE if row["measured"] != row["measured"] else write(row["measured"])
    if row["measured_low"] == row["measured_low"]:
        measured += f" <small>({write(row['measured_low'])} to {write(row['measured_high'])})</small>"
    control = write(row["control"]) if row["controls"] else "not run" if row["tuned"] else format.NONE
    if row["controls"] > 1:
        control += f" <small>(mean of {row['controls']})</small>"
    return (
        f'<tr><th scope="row">{row["claim"]}</th><td>{_PAPER[row["measure"]](row["paper_low"], row["paper_high"])}</td>'
        f'<td>{measured}<br><small class="said">{row["verdict"]}</small></td><td>{control}</td></tr>'
    )

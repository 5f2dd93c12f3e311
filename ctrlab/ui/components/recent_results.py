"""The newest compressed models with AUC and size, each a link to its comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from ctrlab.services.models import role_of
from ctrlab.services.of_model import newest_of_models
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact
from ctrlab.ui import format, state
from ctrlab.ui.feedback import escape
from ctrlab.ui.navigation import PAGES

#: Models listed.
_LISTED = 6


@dataclass(frozen=True)
class Result:
    """A compressed model with its original, and their AUCs on the same rows; NaN-free: None where one is not measured."""

    model: Artifact
    original: Artifact
    auc: float | None
    change: float | None

    @property
    def factor(self) -> float:
        """Bytes of the original, divided by those of the model, as served."""
        return _bytes(self.original) / max(_bytes(self.model), 1)

    @property
    def text(self) -> str:
        """Size, factor and AUC in one line."""
        parts = [format.size(_bytes(self.model)), f"{format.times(self.factor)} smaller"]
        if self.auc is not None:
            change = f" ({format.difference(self.change)})" if self.change is not None else ""
            parts.append(f"AUC {format.auc(self.auc)}{change}")
        return ", ".join(parts)

    def link(self, label: str, **arguments: Any) -> None:
        """A link to the comparison with the original."""
        params = state.Selection(model=self.original.id).params() | {"models": f"{self.original.id},{self.model.id}"}
        st.page_link(PAGES["Compare"].path, label=label, icon=":material/balance:", query_params=params, **arguments)


def results(workspace: Workspace) -> list[Result]:
    """The newest compressed models whose original is there, newest first."""
    artifacts = workspace.store.artifacts
    known = {model.id: model for model in artifacts.list(kind="model")}
    compressed = [
        model for model in known.values() if role_of(model) == "compressed" and model.config.get("original_id") in known
    ]
    shown = compressed[:_LISTED]
    measured = newest_of_models(
        workspace, "evaluation", [key for model in shown for key in (model.id, model.config["original_id"])]
    )
    return [_result(model, known[model.config["original_id"]], measured) for model in shown]


def recent_results(found: Sequence[Result]) -> None:
    """One row a model."""
    st.subheader("Recent results", anchor=False)
    for result in found:
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"recent-{result.model.id}"):
            result.link(escape(result.model.name), width="stretch")
            st.markdown(result.text, width="content")
            st.caption(format.ago(result.model.created_at), width="content")


def _result(model: Artifact, original: Artifact, measured: dict[str, Artifact]) -> Result:
    ours, theirs = (measured.get(one.id) for one in (model, original))
    auc = ours.summary["metrics"].get("auc") if ours else None
    comparable = ours and theirs and ours.summary["split"] == theirs.summary["split"]
    before = theirs.summary["metrics"].get("auc") if theirs and comparable else None
    return Result(model, original, auc, auc - before if auc is not None and before is not None else None)


def _bytes(model: Artifact) -> int:
    cost = model.summary["cost_serving"]
    size: int = cost["bytes_tables"] + cost["bytes_dense"]
    return size

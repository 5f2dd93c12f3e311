"""The current plan: a rank for every layer, kept in the session and in the URL, with undo and redo.

A layer at its full width, or at or above break-even, is dense. Pages change the plan only through `change`; the editor in the
browser, which is ahead of the server, by a `Report`. Changes are numbered, so that neither takes an older plan for a newer one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self

import streamlit as st

from ctrlab.models.profile import LayerProfile, ModelProfile
from ctrlab.plans.configs import RankPlan
from ctrlab.plans.ranks import pays

_PARAMETER = "plan"
_MAX_UNDO = 100

Ranks = dict[str, int]


@dataclass(frozen=True)
class Report:
    """All ranks as the editor has them.

    base: number of the last change by others that it knows. client, serial: which editor, and which of its reports.
    """

    base: int
    client: str
    serial: int
    plan: str

    @classmethod
    def of(cls, values: Any) -> Self | None:
        """From the message of the browser; None where it is no report."""
        try:
            return cls(int(values["base"]), str(values["client"]), int(values["serial"]), str(values["plan"]))
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True)
class Place:
    """Where the plan stands. others: number of the last change that was no report; seen: client and serial of the last report."""

    others: int
    seen: tuple[str, int] | None


def current(spectra_id: str, layers: Sequence[LayerProfile], start: Callable[[], Mapping[str, int]]) -> Ranks:
    """{layer: rank} of this session; else of the URL; else of `start()`, where layers without a rank are dense."""
    key = _key(spectra_id)
    if key not in st.session_state:
        linked = decode(st.query_params.get(_PARAMETER, ""), layers)
        st.session_state[key] = {
            "now": linked or _completed(start(), layers), "past": [], "future": [], "others": 0, "seen": None,
        }  # fmt: skip
    ranks: Ranks = st.session_state[key]["now"]
    link = encode(ranks, layers)
    if st.query_params.get(_PARAMETER) != link:
        st.query_params[_PARAMETER] = link
    return ranks


def place(spectra_id: str) -> Place:
    """Which changes and reports the plan contains."""
    plan = st.session_state[_key(spectra_id)]
    return Place(plan["others"], plan["seen"])


def change(spectra_id: str, changes: Mapping[str, int]) -> None:
    """Set the ranks of some layers, as one step of undo."""
    plan = st.session_state[_key(spectra_id)]
    plan["others"] += 1
    _set(plan, {**plan["now"], **changes})


def take(spectra_id: str, layers: Sequence[LayerProfile], report: Report) -> bool:
    """Set the ranks that the editor reports, as one step of undo; False where the report is refused.

    That is one made before the editor knew of the last change by others, one that came before, and one that does not fit.
    """
    plan = st.session_state[_key(spectra_id)]
    ranks, seen = decode(report.plan, layers), plan["seen"]
    outdated = report.base < plan["others"] or (seen is not None and seen[0] == report.client and report.serial <= seen[1])
    if ranks is None or outdated:
        return False
    plan["seen"] = (report.client, report.serial)
    _set(plan, ranks)
    return True


def undo(spectra_id: str) -> None:
    """Restore the plan before the last change; nothing where there is none."""
    _step(spectra_id, "past", "future")


def redo(spectra_id: str) -> None:
    """Restore the plan before the last undo; nothing where there is none."""
    _step(spectra_id, "future", "past")


def _step(spectra_id: str, source: str, target: str) -> None:
    plan = st.session_state[_key(spectra_id)]
    if plan[source]:
        plan["others"] += 1
        plan[target].append(plan["now"])
        plan["now"] = plan[source].pop()


def _set(plan: dict[str, Any], ranks: Ranks) -> None:
    if ranks != plan["now"]:
        plan["past"] = [*plan["past"], plan["now"]][-_MAX_UNDO:]
        plan["now"], plan["future"] = ranks, []


def can_undo(spectra_id: str) -> bool:
    """Whether there is a change to undo."""
    return bool(st.session_state[_key(spectra_id)]["past"])


def can_redo(spectra_id: str) -> bool:
    """Whether there is an undo to redo."""
    return bool(st.session_state[_key(spectra_id)]["future"])


def as_plan(ranks: Mapping[str, int], profile: ModelProfile) -> RankPlan:
    """The plan without the layers that stay dense, as jobs expect it."""
    return RankPlan.of({name: rank for name, rank in ranks.items() if pays(profile.by_name[name], rank)})


def encode(ranks: Mapping[str, int], layers: Sequence[LayerProfile]) -> str:
    """Ranks in the order of the layers, equal neighbours run-length coded: '2x26.64.64.400'."""
    runs = ((rank, len(list(run))) for rank, run in groupby(ranks[layer.layer_name] for layer in layers))
    return ".".join(str(rank) if length == 1 else f"{rank}x{length}" for rank, length in runs)


def decode(text: str, layers: Sequence[LayerProfile]) -> Ranks | None:
    """The inverse of `encode`; None for a text that does not fit these layers."""
    ranks: list[int] = []
    for run in text.split("."):
        rank, _, times = run.partition("x")
        if not rank.isdecimal() or not (times or "1").isdecimal() or int(times or 1) > len(layers):
            return None
        ranks += [int(rank)] * int(times or 1)
    if len(ranks) != len(layers) or any(not 1 <= rank <= layer.out_features for rank, layer in zip(ranks, layers, strict=True)):
        return None
    return {layer.layer_name: rank for layer, rank in zip(layers, ranks, strict=True)}


def _completed(ranks: Mapping[str, int], layers: Sequence[LayerProfile]) -> Ranks:
    return {layer.layer_name: ranks.get(layer.layer_name, layer.out_features) for layer in layers}


def _key(spectra_id: str) -> str:
    return f"plan:{spectra_id}"

"""Which models the page compares, with which baseline, and the controls of a run that are still to come."""

from collections.abc import Sequence

import streamlit as st

from ctrlab.errors import CtrlabError
from ctrlab.services import controls, jobs, models
from ctrlab.services.compression import CompressJobConfig
from ctrlab.services.models import role_of
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact, Job
from ctrlab.ui import address, cache, state
from ctrlab.ui.components.artifact_picker import unique_labels
from ctrlab.ui.feedback import escape

_MODELS, _ALL = "models", "all"
#: The job of a compression whose controls are added as they end.
_RUN = "run"
_POLL_SECONDS = 1.0


def arms_of_run(workspace: Workspace) -> list[Job]:
    """Jobs of the run in the address and of its controls."""
    try:
        job = workspace.store.jobs.get(st.query_params.get(_RUN, ""))
    except CtrlabError:
        return []
    return controls.arms_of(workspace, CompressJobConfig.from_dict(job.config)) if job.kind == "compress" else []


def arrived_of(arms: Sequence[Job], known: Sequence[Artifact]) -> list[str]:
    """Models of the run that this session has not added to the choice yet; once all are there, the run leaves the address."""
    ids = {model.id for model in known}
    added = st.session_state.setdefault(f"{_RUN}:{st.query_params.get(_RUN, '')}", set())
    made = [job.result["model"] for job in arms if job.state == "succeeded"]
    arrived = [model_id for model_id in made if model_id in ids - added]
    added |= set(arrived)
    if _RUN in st.query_params and not any(job.active for job in arms) and ids >= set(made):
        del st.query_params[_RUN]
    return arrived


def pending(arms: Sequence[Job]) -> None:
    """What is still to come, live; the sidebar runs the page again when a job ends."""
    waiting = [job for job in arms if job.active]
    if waiting:
        st.fragment(_waiting, run_every=_POLL_SECONDS)([job.id for job in waiting])


def _waiting(job_ids: list[str]) -> None:
    lines = []
    for job in (jobs.get_job(cache.workspace(), job_id) for job_id in job_ids):
        state_now = f"{100 * job.progress:.0f} %" if job.state == "running" else "waiting" if job.active else job.state
        lines.append(f"{escape(job.config.get('name') or job.title)}: {state_now}")
    with st.container(border=True, key="pending"):
        st.markdown("**Its controls are added here as they end.**  \n" + "  \n".join(lines))


def choose_models(
    workspace: Workspace, known: Sequence[Artifact], selection: state.Selection, arrived: Sequence[str]
) -> list[str]:
    """Ids of the chosen models: those in the URL, else the selected model's original and all models derived from it.

    Args:
        known: all models of the dataset, newest first.
        arrived: models that are added to the choice.
    """
    by_id = {model.id: model for model in known}
    key = f"compare:{selection.dataset}"
    link = st.query_params.get(_MODELS, "")
    linked = [model.id for model in reversed(known)] if link == _ALL else [name for name in link.split(",") if name in by_id]
    family = _family(workspace, known, selection)
    if key not in st.session_state:
        st.session_state[key] = linked or family
    elif linked and st.session_state.get("compare-link") != link:
        st.session_state[key] = linked  # a link was followed within this session
    wanted = dict.fromkeys([*st.session_state[key], *arrived])
    st.session_state[key] = [model_id for model_id in wanted if model_id in by_id]
    names = unique_labels(known)

    def take(ids: list[str]) -> None:
        st.session_state[key] = ids

    with st.popover(f"{len(st.session_state[key])} of {len(known)} models", icon=":material/checklist:"):
        left, right = st.columns(2)
        left.button("This family", on_click=take, args=(family,), width="stretch", help="The original and all that came from it.")
        everything = [model.id for model in reversed(known)]
        right.button("All of the dataset", on_click=take, args=(everything,), width="stretch")
        chosen: list[str] = st.multiselect(
            "Models", list(by_id), key=key, format_func=names.__getitem__, placeholder="Choose models"
        )
    chosen = [model_id for model_id in chosen if model_id in by_id]
    whole = len(chosen) == len(known) > 12
    st.query_params[_MODELS] = st.session_state["compare-link"] = _ALL if whole else ",".join(chosen)
    return chosen


def choose_baseline(known: Sequence[Artifact], chosen: Sequence[str]) -> str | None:
    """Id of the model that the others are compared with; None where no original is chosen and nothing was picked."""
    by_id = {model.id: model for model in known}
    original = next((model_id for model_id in chosen if role_of(by_id[model_id]) == "original"), None)
    names = unique_labels([by_id[model_id] for model_id in chosen])
    started = address.start("baseline")
    start = started if started in names else original
    key = f"compare-baseline:{','.join(chosen)}"
    picked: str | None = st.selectbox(
        "Baseline", list(names), index=list(names).index(start) if start else None, key=key, format_func=names.__getitem__,
        placeholder="Baseline: none", label_visibility="collapsed", help="The model that the others are compared with.",
    )  # fmt: skip
    baseline = picked if picked in names else start
    address.write("baseline", "" if baseline == original else baseline or "")
    return baseline


def _family(workspace: Workspace, known: Sequence[Artifact], selection: state.Selection) -> list[str]:
    """The original of the selected model (else the newest), the models derived from it, and small models from scratch."""
    start = next((model for model in known if model.id == selection.model), known[0])
    original = models.original_of(workspace, start)
    alike = original.config.get("architecture")
    children = [
        model.id
        for model in reversed(known)
        if model.config.get("original_id") == original.id
        or (role_of(model) == "from_scratch" and model.config.get("architecture") == alike)
    ]
    return [original.id, *children]

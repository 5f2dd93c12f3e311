"""The settings of a compression: a form made from `CompressConfig` and `FitConfig`, read into one object."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from ctrlab.plans.configs import CompressConfig, RankPlan
from ctrlab.plans.methods import METHODS
from ctrlab.services.controls import MAX_SEEDS
from ctrlab.training.automatic import schedule_for
from ctrlab.training.configs import FINETUNE, FitConfig
from ctrlab.ui import address, cache
from ctrlab.ui.components.config_form import config_form
from ctrlab.ui.views.compress.context import CompressContext


@dataclass(frozen=True)
class RunSettings:
    """Everything that the page sets but the ranks.

    config: the compression with an empty plan; None where a setting is faulty, which the form has shown.
    controls: also run the control arms, `seeds` of each that depends on a seed.
    """

    config: CompressConfig | None
    controls: bool
    seeds: int


def read_settings(context: CompressContext) -> RunSettings:
    """Draw the form of the settings and return what it holds."""
    st.markdown("**Settings**")
    fixed = {"plan": RankPlan(), "finetune": None}
    config = config_form(CompressConfig, key="compress", fixed=fixed, locked=_locked, columns=3, parameter="settings")
    if config is not None:
        st.caption(METHODS[config.method].description)
    if config is not None and METHODS[config.method].retrains:
        config = config.replace(finetune=_whole_training(context))
    else:
        finetune, valid = _finetuning(context)
        config = config.replace(finetune=finetune) if config is not None and valid else None
    wanted, seeds = _controls()
    return RunSettings(config, wanted, seeds)


def _locked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that the chosen method decides."""
    method = METHODS[values.get("method", "afm")]
    locked = {} if method.keeps_latents else {"basis": "per_field"}
    return locked | ({"order": "joint"} if method.retrains else {})


def _finetuning(context: CompressContext) -> tuple[FitConfig | None, bool]:
    """The fine-tuning after each stage, None for truncation alone; and whether its settings are valid."""
    start_on = address.start("finetune") != "no"
    wanted = st.toggle("Fine-tune after each stage", start_on, key="finetune-wanted", persist_state="session")
    address.write("finetune", "" if wanted else "no")
    if not wanted:
        return None, True
    start = FINETUNE.replace(rows="finetune" if context.finetune_rows else "train")
    only = ("epochs", "learning_rate", *(("rows",) if context.finetune_rows else ()))
    config = config_form(FitConfig, key="finetune", values=start, only=only, columns=3, parameter="tuning")
    return config, config is not None


def _whole_training(context: CompressContext) -> FitConfig:
    """The training of a method with new tables: the original's own training, or the default where that is not known."""
    known = context.model.config.get("fit")
    training = FitConfig.from_dict(known) if known else FitConfig()
    rows = cache.dataset_summary(context.workspace, context.model.config["dataset_id"])["rows"]["train"]
    most = schedule_for(training, rows).epochs
    epochs = "1 epoch" if most == 1 else f"up to {most} epochs"
    how = "like the original" if known else "with default settings, because the original's are not known"
    st.caption(
        f"The tables are initialised anew, so the whole model is trained {how}: {epochs} at learning rate "
        f"{training.learning_rate:g} on the training rows. Order and fine-tuning settings do not apply."
    )
    return training


def _controls() -> tuple[bool, int]:
    """Whether to run the control arms, and the number of seeds."""
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="with-controls"):
        start = address.start("controls")
        seeds = int(start) if start.isdecimal() and 1 <= int(start) <= MAX_SEEDS else 0
        wanted = st.checkbox(
            "Run with controls", bool(seeds), key="controls", persist_state="session",
            help="Also queue the original with the same fine-tuning, truncation alone, and a model of the same size trained from "
            "scratch. The effect of the compression is the difference from these controls.",
        )  # fmt: skip
        if not wanted:
            address.write("controls", "")
            return False, 1
        help = "Repeat the run and its controls with this many random seeds."
        chosen = st.number_input("Seeds", 1, MAX_SEEDS, max(seeds, 1), key="seeds", width=130, help=help, persist_state="session")
        address.write("controls", str(int(chosen)))
        return True, int(chosen)

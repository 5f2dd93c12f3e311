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
from ctrlab.ui import address
from ctrlab.ui.components.config_form import config_form
from ctrlab.ui.format import count, plural
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
    """Draw the settings as one line above their form, which is folded, and return what it holds."""
    line = st.empty()
    with st.expander("Change settings", icon=":material/tune:", key="settings"):
        settings = _form(context)
    line.markdown(in_words(settings, context.finetune_rows, context.train_rows))
    return settings


def in_words(settings: RunSettings, finetune_rows: int, train_rows: int) -> str:
    """The settings as one line: "AFM, ranks as chosen, fine-tune 1 epoch on 10.1 k rows held out for it, no controls"."""
    config = settings.config
    if config is None:
        return ":material/error: A setting is faulty: correct it below."
    parts = [METHODS[config.method].title, "ranks as chosen"]
    parts += [_choice(config, name) for name in ("bottleneck", "basis", "precision") if _differs(config, name)]
    if config.max_rows is not None:
        parts.append(f"spectra from {count(config.max_rows)} rows")
    if config.recovery != "off":
        parts.append("linear layers fitted again")
    parts.append(_tuning_in_words(config, finetune_rows, train_rows))
    seeds = f" and {settings.seeds} seeds" if settings.seeds > 1 else ""
    parts.append(f"with controls{seeds}" if settings.controls else "no controls")
    return ", ".join(parts) + "."


def _tuning_in_words(config: CompressConfig, finetune_rows: int, train_rows: int) -> str:
    tuning = config.finetune
    if tuning is None:
        return "no fine-tuning"
    held_out = tuning.rows == "finetune"
    most = schedule_for(tuning, finetune_rows if held_out else train_rows).epochs
    epochs = f"{'up to ' if tuning.epochs is None else ''}{plural(most, 'epoch')}"
    rows = f"{count(finetune_rows)} rows held out for it" if held_out else f"{count(train_rows)} training rows"
    if METHODS[config.method].retrains:
        return f"trained again for {epochs} on {rows}"
    order = {"mlp_first": ", MLP first", "tables_first": ", tables first"}.get(config.order, ", all layers together")
    return f"fine-tune {epochs} on {rows}{order}"


def _differs(config: CompressConfig, name: str) -> bool:
    return bool(getattr(config, name) != getattr(CompressConfig(), name))


def _choice(config: CompressConfig, name: str) -> str:
    titles = {
        "bottleneck": {"relu": "ReLU between the factors", "prelu": "PReLU between the factors"},
        "basis": {"shared": "one basis for all tables"},
        "precision": {"int8": "8 bits", "int4": "4 bits"},
    }
    value = getattr(config, name)
    return titles[name].get(value, f"{name} {value}")


def _form(context: CompressContext) -> RunSettings:
    fixed = {"plan": RankPlan(), "finetune": None, **context.abilities.fixed_settings}
    config = config_form(CompressConfig, key="compress", fixed=fixed, locked=_locked, columns=2, parameter="settings")
    if config is not None:
        st.caption(METHODS[config.method].description)
    if not context.abilities.allows("finetune"):
        st.caption(" ".join(dict.fromkeys(context.abilities.why_not(ability) for ability in ("methods", "finetune"))))
        return RunSettings(config, False, 1)
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
    config = config_form(FitConfig, key="finetune", values=start, only=only, columns=2, parameter="tuning")
    return config, config is not None


def _whole_training(context: CompressContext) -> FitConfig:
    """The training of a method with new tables: the original's own training, or the default where that is not known."""
    known = context.model.config.get("fit")
    training = FitConfig.from_dict(known) if known else FitConfig()
    most = schedule_for(training, context.train_rows).epochs
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

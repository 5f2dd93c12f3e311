"""`sensitivity`, `speed` and `plan`: accuracy and latency by rank, and the ranks for a budget."""

import argparse
from pathlib import Path
from typing import Any

from ctrlab.cli.common import Subparsers, declare_verb, open_lab
from ctrlab.cli.flags import add_config_flags, flag_settings
from ctrlab.cli.output import print_json, table_text, write_text
from ctrlab.plans.budgets import BUDGET_KINDS, COUNTED_KINDS, LATENCY, Budget
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.services import models, plans, sensitivity
from ctrlab.services.lab import Lab
from ctrlab.services.sensitivity import SensitivityConfig
from ctrlab.services.speed import DEFAULT_BATCH_SIZE, SpeedConfig


def declare_planning(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the verbs `sensitivity`, `speed` and `plan`."""
    help = "measure AUC and log loss with each layer truncated alone, at several ranks"
    measure = declare_verb(subparsers, common, "sensitivity", run_sensitivity, help)
    measure.add_argument("model", help="id of the model")
    add_config_flags(measure, SensitivityConfig, skip=("model_id", "spectra_id"), title="rows")

    help = "time layers and tables at several ranks on this machine, for plans with a latency budget"
    timing = declare_verb(subparsers, common, "speed", run_speed, help)
    timing.add_argument("model", help="id of the model")
    add_config_flags(timing, SpeedConfig, skip=("model_id", "spectra_id"), title="timing")

    plan = declare_verb(subparsers, common, "plan", run_plan, "find the best ranks for a budget, or for a loss of AUC")
    plan.add_argument("model", help="id of the model")
    _goals(plan.add_mutually_exclusive_group(required=True))
    plan.add_argument("--batch", type=int, default=DEFAULT_BATCH_SIZE, metavar="ROWS", help="rows per batch, for --latency-ms")
    plan.add_argument(
        "--multiple-of", type=int, default=1, metavar="M", help="ranks of linear layers are multiples of M; 8 suits most hardware"
    )
    plan.add_argument("--output", type=Path, help="write the plan to this file as JSON, for `compress --plan`")


def _goals(group: Any) -> None:
    """The flags of which `plan` takes exactly one."""
    for kind in BUDGET_KINDS:
        group.add_argument(kind.flag, dest=kind.name, type=float, metavar="MS" if kind.name == LATENCY else "N", help=kind.help)
    group.add_argument(
        "--auc-loss", type=float, metavar="X", help="find the smallest plan predicted to lose at most X of AUC, e.g. 0.0005"
    )


def run_sensitivity(args: argparse.Namespace) -> None:
    """`sensitivity`."""
    with open_lab(args) as lab:
        artifact = lab.sensitivity(args.model, **flag_settings(SensitivityConfig, args))
        table = sensitivity.sensitivity_table(lab.workspace, artifact.id)
        if args.json:
            print_json({"id": artifact.id, **artifact.summary, "ranks": table.to_dict("records")})
        else:
            print(f"{artifact.id}  {artifact.name}, AUC {artifact.summary['auc']:.4f} on {artifact.summary['num_rows']:,} rows")
            print(table_text(list(table.columns), table.round(5).itertuples(index=False, name=None)))


def run_speed(args: argparse.Namespace) -> None:
    """`speed`."""
    with open_lab(args) as lab:
        artifact = lab.speed(args.model, **flag_settings(SpeedConfig, args))
        if args.json:
            print_json({"id": artifact.id, **artifact.summary})
            return
        facts = artifact.summary
        print(f"{artifact.id}  {artifact.name}: the original takes {facts['original_ms']:.3g} ms, {facts['machine']}")


def run_plan(args: argparse.Namespace) -> None:
    """`plan`."""
    with open_lab(args) as lab:
        if args.latency_ms is not None:
            _plan_for_ms(lab, args)
            return
        budget = next(
            (Budget(kind=kind, limit=limit) for kind in COUNTED_KINDS if (limit := getattr(args, kind)) is not None), None
        )
        choice = lab.choose(args.model, budget=budget, max_auc_loss=args.auc_loss, multiple_of=args.multiple_of)
        profile = models.model_profile(lab.workspace, args.model)
        found = sensitivity.load_model_sensitivity(lab.workspace, lab.sensitivity_of(args.model).id)
        rows = []
        for name, plan in choice.plans.items():
            cost, measured = serving_cost(profile, plan.as_dict()), choice.measured[name]
            rows.append(
                {"plan": name, "parameters": cost.parameters, "bytes": cost.size_bytes, "macs": cost.macs,
                 "predicted_auc": found.predicted_auc(plan.as_dict()), "auc": measured.auc,
                 "predicted_log_loss": found.predicted_log_loss(plan.as_dict()), "log_loss": measured.log_loss}
            )  # fmt: skip
        if args.output:
            write_text(args.output, choice.plan.to_json())
        if args.json:
            original = {"auc": found.auc, "log_loss": found.log_loss}
            print_json({"chosen": choice.name, "plan": choice.plan.as_dict(), "candidates": rows, "original": original})
            return
        text = [[value if not isinstance(value, float) else f"{value:.5f}" for value in row.values()] for row in rows]
        print(table_text(list(rows[0]), text))
        print(f"original: AUC {found.auc:.5f}, log loss {found.log_loss:.5f}; chosen: {choice.name}")
        print(" ".join(f"{name}={rank}" for name, rank in choice.plan.as_dict().items()))


def _plan_for_ms(lab: Lab, args: argparse.Namespace) -> None:
    """`plan --latency-ms`: the latency of the plan is measured, its accuracy is predicted."""
    artifact = lab.plan_for_ms(args.model, args.latency_ms, batch_size=args.batch, multiple_of=args.multiple_of)
    plan, tried = plans.load_plan(lab.workspace, artifact.id), artifact.summary["tried"]
    if args.output:
        write_text(args.output, plan.to_json())
    if args.json:
        print_json({"id": artifact.id, "plan": plan.as_dict(), **artifact.summary})
        return
    print(table_text(list(tried[0]), [[f"{value:.5g}" for value in attempt.values()] for attempt in tried]))
    print(" ".join(f"{name}={rank}" for name, rank in plan.as_dict().items()))

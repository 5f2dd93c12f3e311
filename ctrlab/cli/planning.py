"""`sensitivity`, `speed` and `plan`: accuracy and latency by rank, and the ranks for a budget."""

import argparse
from pathlib import Path
from typing import Any

from ctrlab.cli.common import Subparsers, declare_verb, open_lab
from ctrlab.cli.flags import add_config_flags, flag_settings
from ctrlab.cli.output import print_json, table_text
from ctrlab.errors import ConfigError
from ctrlab.models.profile import ModelProfile
from ctrlab.plans.budgets import BUDGET_KINDS, LATENCY, Budget
from ctrlab.plans.configs import CompressionSpec, PlanSettings
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.services import models, plans, sensitivity
from ctrlab.services.lab import Lab
from ctrlab.services.sensitivity import SensitivityConfig
from ctrlab.services.speed import DEFAULT_BATCH_SIZE, SpeedConfig
from ctrlab.services.text_files import write_text


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
    plan.add_argument(
        "--of",
        choices=BUDGET_KINDS.names(),
        default="bytes",
        help="what --times and --share mean (default bytes; latency_ms for X times faster), and what the plan of --auc-loss is "
        "smallest in",
    )
    plan.add_argument("--batch", type=int, default=DEFAULT_BATCH_SIZE, metavar="ROWS", help="rows per batch, for --latency-ms")
    add_config_flags(plan, PlanSettings, title="what is planned")
    plan.add_argument("--output", type=Path, help="write ranks, bits and method to this file as JSON, for `compress --plan`")


def _goals(group: Any) -> None:
    """The flags of which `plan` takes exactly one."""
    for kind in BUDGET_KINDS:
        group.add_argument(kind.flag, dest=kind.name, type=float, metavar="MS" if kind.name == LATENCY else "N", help=kind.help)
    group.add_argument(
        "--times", type=float, metavar="X", help="X times smaller than the original (faster, with --of latency_ms)"
    )
    group.add_argument("--share", type=float, metavar="S", help="at most this share of the original, for example 0.3")
    group.add_argument(
        "--auc-loss",
        type=float,
        metavar="X",
        help="find the smallest plan that loses at most X of AUC on validation rows, e.g. 0.0005",
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
        profile = models.model_profile(lab.workspace, args.model)
        kind, limit = _limit(lab, args, profile)
        if kind == LATENCY and limit is not None:
            _plan_for_ms(lab, args, limit)
            return
        budget = Budget(kind=kind, limit=limit) if limit is not None else None
        settings = flag_settings(PlanSettings, args)
        choice = lab.choose(args.model, budget=budget, max_auc_loss=args.auc_loss, kind=args.of, **settings)
        rows = [
            {"plan": name, "bits": spec.precision, **_amounts(profile, spec), "auc": choice.measured[name].auc,
             "log_loss": choice.measured[name].log_loss}
            for name, spec in choice.specs.items()
        ]  # fmt: skip
        if args.output:
            write_text(args.output, choice.spec.to_json())
        original = {"auc": choice.original.auc, "log_loss": choice.original.log_loss}
        if args.json:
            chosen: dict[str, Any] = {"chosen": choice.name, "method": choice.spec.method, "precision": choice.spec.precision}
            chosen["layer_precisions"] = choice.spec.precisions_by_layer
            print_json({**chosen, "plan": choice.plan.as_dict(), "candidates": rows, "original": original})
            return
        text = [[value if not isinstance(value, float) else f"{value:.5f}" for value in row.values()] for row in rows]
        print(table_text(list(rows[0]), text))
        print(f"original: AUC {original['auc']:.5f}, log loss {original['log_loss']:.5f}; chosen: {choice.name}")
        print("measured on the validation rows that did not choose")
        print(" ".join(f"{name}={rank}" for name, rank in choice.plan.as_dict().items()))
        print(f"{choice.spec.method}, {choice.spec.precision} but for {_bits_text(choice.spec) or 'none'}")


def _bits_text(spec: CompressionSpec) -> str:
    return " ".join(f"{name}={precision}" for name, precision in spec.precisions_by_layer.items())


def _amounts(profile: ModelProfile, spec: CompressionSpec) -> dict[str, int]:
    cost = serving_cost(profile, spec.plan.as_dict(), spec)
    return {"parameters": cost.parameters, "bytes": cost.size_bytes, "macs": cost.macs}


def _limit(lab: Lab, args: argparse.Namespace, profile: ModelProfile) -> tuple[str, float | None]:
    """The kind and limit of the budget; None for a plan by its loss of AUC.

    Raises:
        ConfigError: the share of the original is not between 0 and 1.
    """
    given = next((kind.name for kind in BUDGET_KINDS if getattr(args, kind.name) is not None), None)
    if given is not None:
        return given, getattr(args, given)
    if args.auc_loss is not None:
        if args.of == LATENCY:
            raise ConfigError("--auc-loss has no plan of least latency_ms; give --of with a size that is counted")
        return args.of, None
    share = args.share if args.share is not None else 1 / args.times if args.times else 0.0
    if not 0 < share <= 1:
        flag, wanted = ("--share", "above 0 and at most 1") if args.share is not None else ("--times", "1 or more")
        raise ConfigError(f"{flag} must be {wanted}, got {args.share if args.share is not None else args.times:g}")
    if args.of == LATENCY:
        return LATENCY, share * float(lab.speed_of(args.model, args.batch).summary["original_ms"])
    return args.of, share * BUDGET_KINDS[args.of].amount(serving_cost(profile, {}))


def _plan_for_ms(lab: Lab, args: argparse.Namespace, limit: float) -> None:
    """A plan for milliseconds: its latency is measured, its accuracy is predicted."""
    settings = PlanSettings(**flag_settings(PlanSettings, args))
    artifact = lab.plan_for_ms(args.model, limit, batch_size=args.batch, multiple_of=settings.multiple_of)
    plan, tried = plans.load_plan(lab.workspace, artifact.id), artifact.summary["tried"]
    if args.output:
        write_text(args.output, plan.to_json())
    if args.json:
        print_json({"id": artifact.id, "plan": plan.as_dict(), **artifact.summary})
        return
    print(table_text(list(tried[0]), [[f"{value:.5g}" for value in attempt.values()] for attempt in tried]))
    print(" ".join(f"{name}={rank}" for name, rank in plan.as_dict().items()))

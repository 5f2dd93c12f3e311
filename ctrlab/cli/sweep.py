"""`sweep`: many compressions of a model under one name; `groups`: what became of them."""

import argparse
from pathlib import Path

from ctrlab.cli.common import Subparsers, declare_verb, open_lab
from ctrlab.cli.flags import add_config_flags, config_from_flags
from ctrlab.cli.output import comparison_text, print_json, read_text, table_text
from ctrlab.errors import ConfigError
from ctrlab.plans.configs import RankPlan
from ctrlab.plans.methods import METHODS
from ctrlab.services import plans, sweeps
from ctrlab.services.lab import Lab
from ctrlab.services.paths import input_path
from ctrlab.services.sweeps import Sweep, SweepConfig
from ctrlab.training.configs import FINETUNE, FitConfig


def declare_sweep(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the verbs `sweep` and `groups`."""
    help = "compress a model by every combination of methods, sizes or plans, and seeds"
    parser = declare_verb(subparsers, common, "sweep", run_sweep, help)
    parser.add_argument("model", help="id of the model")
    parser.add_argument("--methods", nargs="+", choices=METHODS.names(), default=["afm"], help="methods (default afm)")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--times", nargs="+", type=float, default=[3.0, 5.0, 10.0], metavar="X",
                       help="times fewer bytes when served (default 3 5 10)")  # fmt: skip
    sizes.add_argument("--plans", nargs="+", metavar="PLAN", help="ids of saved plans, or files that `plan --output` wrote")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each, with different seeds (default 1)")
    parser.add_argument("--no-finetune", action="store_true", help="truncate without fine-tuning")
    parser.add_argument("--name", default="", help="name of the group")
    parser.add_argument("--dry-run", action="store_true", help="print the runs, and queue nothing")
    parser.add_argument("--queue", action="store_true", help="leave the runs to a worker and return at once")
    add_config_flags(parser, FitConfig, title="fine-tuning after each stage", base=FINETUNE, skip=("seed",))

    groups = declare_verb(subparsers, common, "groups", run_groups, "list groups of jobs, and cancel or retry one")
    groups.add_argument("action", nargs="?", default="list", choices=("list", "cancel", "retry"), help="default list")
    groups.add_argument("group", nargs="?", help="id of the group")


def run_sweep(args: argparse.Namespace) -> None:
    """`sweep`."""
    finetune = None if args.no_finetune else config_from_flags(FitConfig, args, base=FINETUNE)
    config = SweepConfig(
        model_id=args.model,
        methods=tuple(args.methods),
        times=tuple(args.times),
        seeds=args.seeds,
        finetune=finetune,
        name=args.name,
    )
    with open_lab(args) as lab:
        lab.spectra_of(args.model)
        sweep = sweeps.plan_sweep(lab.workspace, config, _plans(lab, args))
        if args.dry_run:
            _print_sweep(args, sweep)
            return
        group = sweeps.submit_sweep(lab.workspace, sweep)
        models = [] if args.queue else lab.finish_group(group.id)
        table = lab.compare([args.model, *(model.id for model in models)]) if models else None
        if args.json:
            print_json(
                {"group": group.id, "jobs": group.job_ids, "refused": sweep.refused, "models": [model.id for model in models]}
            )
            return
        print("\n".join([f"{group.id}  {group.name}: {len(group.job_ids)} runs", *_refused(sweep)]))
        if table is not None:
            print(comparison_text(table))


def _plans(lab: Lab, args: argparse.Namespace) -> dict[str, RankPlan] | None:
    """The plans named by --plans, by name."""
    if not args.plans:
        return None
    found: dict[str, RankPlan] = {}
    for given in args.plans:
        if given.startswith("plan-") and not Path(given).exists():
            found[lab.workspace.store.artifacts.get(given).name] = plans.load_plan(lab.workspace, given)
        else:
            text = read_text(input_path(lab.workspace, given), "a file that `plan --output` wrote")
            found[Path(given).stem] = plans.plan_from_json(lab.workspace, args.model, text)
    if len(found) < len(args.plans):
        raise ConfigError("two of the plans have one name; rename one, so that their results can be told apart")
    return found


def _print_sweep(args: argparse.Namespace, sweep: Sweep) -> None:
    if args.json:
        print_json({"name": sweep.name, "runs": [run.name for run in sweep.runs], "refused": sweep.refused})
    else:
        print("\n".join([*(run.name for run in sweep.runs), *_refused(sweep), f"{len(sweep.runs)} runs; nothing was queued"]))


def _refused(sweep: Sweep) -> list[str]:
    return [f"left out: {sentence}" for sentence in sweep.refused]


def run_groups(args: argparse.Namespace) -> None:
    """`groups`."""
    if args.action != "list" and not args.group:
        raise ConfigError(f"groups {args.action} needs the id of a group; `groups` lists them")
    with open_lab(args) as lab:
        if args.action == "list":
            found = sweeps.list_groups(lab.workspace)
        else:
            act = {"cancel": sweeps.cancel_group, "retry": sweeps.retry_group}[args.action]
            found = [act(lab.workspace, args.group)]
        if args.json:
            print_json({"groups": [{"id": g.id, "name": g.name, "jobs": [job.id for job in g.jobs], "active": g.active,
                                    "models": g.models} for g in found]})  # fmt: skip
        else:
            print(table_text(["id", "name", "runs"], [(group.id, group.name, group.sentence) for group in found]))

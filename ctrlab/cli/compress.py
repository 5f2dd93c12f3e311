"""`spectra`, `compress` and `demo`: from a model to a compressed one."""

import argparse
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ctrlab.cli.common import Subparsers, declare_verb, open_lab, print_artifact
from ctrlab.cli.flags import add_config_flags, config_from_flags, flag_settings, parse_ranks
from ctrlab.cli.output import comparison_text, print_json, read_text, table_text
from ctrlab.plans.configs import CompressConfig, CompressionSpec, RankPlan
from ctrlab.plans.ranks import PRESETS
from ctrlab.reports.headroom import details, headline
from ctrlab.services import comparison, models, plans, sample, spectra
from ctrlab.services.paths import input_path
from ctrlab.services.spectra import SpectraConfig
from ctrlab.training.configs import FINETUNE, FitConfig


def declare_compress(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the verbs `spectra`, `compress` and `demo`."""
    for declare in (_spectra, _compress, _demo):
        declare(subparsers, common)


def _spectra(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = declare_verb(subparsers, common, "spectra", run_spectra, "compute the spectra of all layers and tables")
    parser.add_argument("model", help="id of the model")
    parser.add_argument("--values", action="store_true", help="with --json: also every singular value")
    add_config_flags(parser, SpectraConfig, skip=("model_id",), title="rows")


def run_spectra(args: argparse.Namespace) -> None:
    """`spectra`."""
    with open_lab(args) as lab:
        artifact = lab.spectra(args.model, **flag_settings(SpectraConfig, args))
        table, found = spectra.spectra_table(lab.workspace, artifact.id), spectra.spectra_headroom(lab.workspace, artifact.id)
        if args.json:
            values = {}
            if args.values:
                layers = spectra.load_layer_spectra(lab.workspace, artifact.id)
                values = {name: layer.singular_values.tolist() for name, layer in layers.items()}
            answer = asdict(found) if found else None
            print_json({"id": artifact.id, "headroom": answer, "layers": table.to_dict("records"), "singular_values": values})
        else:
            print(f"{artifact.id}  {artifact.name}")
            if found is not None:
                print(f"{headline(found)}. {details(found)}")
            print(table_text(list(table.columns), table.itertuples(index=False, name=None)))


def _compress(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = declare_verb(subparsers, common, "compress", run_compress, "compress layers and tables to low rank, then fine-tune")
    parser.add_argument("model", help="id of the model")
    ranks = parser.add_mutually_exclusive_group(required=True)
    ranks.add_argument("--variance", type=float, help="share of output variance every layer and table keeps, e.g. 0.95")
    ranks.add_argument("--ranks", nargs="+", metavar="LAYER=RANK", help="e.g. mlp.2=64 'embedding.*=4'; other layers stay dense")
    ranks.add_argument("--preset", choices=list(PRESETS), help="a named rule that sets all ranks")
    ranks.add_argument("--all-dense", action="store_true", help="keep all layers dense; only --precision makes the model smaller")
    ranks.add_argument(
        "--plan",
        type=Path,
        metavar="FILE",
        help="ranks, bits and method as JSON, written by `plan --output` or the dashboard; flags win",
    )
    parser.add_argument("--first-dense", action="store_true", help="keep the first MLP layer dense, as in the paper")
    parser.add_argument("--no-finetune", action="store_true", help="truncate without fine-tuning")
    parser.add_argument("--no-measure", action="store_true", help="skip the measurement of speed and accuracy")
    parser.add_argument(
        "--controls",
        action="store_true",
        help="also run the controls: the original with the same fine-tuning, truncation alone, and a model of the same size "
        "trained from scratch",
    )
    parser.add_argument(
        "--control-seeds", type=int, default=1, metavar="N", help="with --controls: repeat with N seeds (default 1)"
    )
    parser.add_argument("--name", default="", help="shown in lists")
    add_config_flags(parser, CompressConfig, title="compression")
    add_config_flags(parser, FitConfig, title="fine-tuning after each stage", base=FINETUNE)


def run_compress(args: argparse.Namespace) -> None:
    """`compress`."""
    ranks = parse_ranks(args.ranks) if args.ranks else None
    with open_lab(args) as lab:
        plan = RankPlan() if args.all_dense else None
        planned: dict[str, Any] = {}
        if args.plan:
            spec = plans.spec_from_json(
                lab.workspace, args.model, read_text(input_path(lab.workspace, args.plan), "a file that `plan --output` wrote")
            )
            plan, planned = spec.plan, {field.name: getattr(spec, field.name) for field in fields(CompressionSpec)}
        if plan is None:
            plan = lab.plan(
                args.model, variance=args.variance, ranks=ranks, preset=args.preset, keep_first_dense=args.first_dense
            )
        finetune = None if args.no_finetune else config_from_flags(FitConfig, args, base=FINETUNE)
        settings = {**planned, "plan": plan, "finetune": finetune, "name": args.name, **flag_settings(CompressConfig, args)}
        if args.controls:
            found = lab.compress_with_controls(args.model, seeds=args.control_seeds, **settings)
        else:
            found = [lab.compress(args.model, measure=not args.no_measure, **settings)]
        original = models.original_of(lab.workspace, found[0])
        together = [original.id, *(model.id for model in found)]
        table = comparison.comparison_table(lab.workspace, together) if args.no_measure else lab.compare(together)
        print_artifact(
            args, found[0], "\n".join([*(model.id for model in found), comparison_text(table)]),
            controls=[model.id for model in found[1:]], comparison=table.to_dict("records"),
        )  # fmt: skip


def _demo(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = declare_verb(subparsers, common, "demo", run_demo, "run spectra, compression and comparison on the sample")
    parser.add_argument(
        "--variance", type=float, default=0.95, help="share of variance every layer and table keeps (default 0.95)"
    )


def run_demo(args: argparse.Namespace) -> None:
    """`demo`."""
    with open_lab(args) as lab:
        ids = lab.open_sample()
        compressed = lab.compress(
            ids["model"], variance=args.variance, finetune=sample.SAMPLE_FINETUNE, name=f"AFM at {args.variance:.0%} variance"
        )
        table = lab.compare([ids["model"], compressed.id])
        if args.json:
            print_json({"sample": ids, "compressed": compressed.id, "models": table.to_dict("records")})
        else:
            print(comparison_text(table))
            print("\nA gain in AUC may come from fine-tuning alone: compare with a control, the original fine-tuned alike.")

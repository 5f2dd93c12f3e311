"""`shrink` and `analyse`: a smaller model in one command, and what can be had."""

import argparse

from ctrlab.cli.common import Subparsers, declare_verb, open_lab, print_artifact
from ctrlab.cli.flags import add_config_flags, flag_settings
from ctrlab.cli.output import print_json, table_text
from ctrlab.plans.analysis import Analysis, Option
from ctrlab.services.shrink import AnalysisConfig, ShrinkConfig


def declare_shrink(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the verbs `shrink` and `analyse`."""
    help = "make a model smaller or faster in one job: spectra, ranks and bits, recovery, fine-tuning, controls, verdict"
    shrink = declare_verb(subparsers, common, "shrink", run_shrink, help)
    shrink.add_argument("model", help="id of the model")
    add_config_flags(shrink, ShrinkConfig, skip=("model_id",), title="goal, exactly one of the first four")

    help = "measure how small a model gets at several losses of AUC, and which layers keep it from being smaller"
    analyse = declare_verb(subparsers, common, "analyse", run_analyse, help)
    analyse.add_argument("model", help="id of the model")
    add_config_flags(analyse, AnalysisConfig, skip=("model_id",), title="rows")


def run_shrink(args: argparse.Namespace) -> None:
    """`shrink`."""
    with open_lab(args) as lab:
        model, said = lab.shrink(args.model, **flag_settings(ShrinkConfig, args))
        print_artifact(args, model, f"{model.id}  {model.name}: {said}", verdict=said)


def run_analyse(args: argparse.Namespace) -> None:
    """`analyse`."""
    with open_lab(args) as lab:
        found = lab.analyse(args.model, **flag_settings(AnalysisConfig, args))
        print_json(found.to_dict()) if args.json else print(_analysis_text(found))


def _analysis_text(found: Analysis) -> str:
    options = [
        [f"{option.max_auc_loss:g}", f"{option.times:.1f}x", f"{option.bytes:,}", _bits(option), f"{option.auc_change:+.4f}",
         f"{option.log_loss_change:+.4f}"]
        for option in found.options
    ]  # fmt: skip
    blockers = [
        [blocker.layer_name, str(blocker.rank or "dense"), f"{blocker.bytes:,}", f"{blocker.log_loss:.4f}"]
        for blocker in found.blockers
    ]
    lines = [
        table_text(["AUC lost at most", "smaller", "bytes", "bits", "AUC change", "log loss change"], options),
        f"before recovery and fine-tuning, on {found.num_rows:,} validation rows that did not choose",
    ]
    if blockers:
        headers = ["layer", "rank", "bytes saved at rank 1", "log loss"]
        lines += ["what keeps the last from being smaller:", table_text(headers, blockers)]
    return "\n".join(lines)


def _bits(option: Option) -> str:
    return "by layer" if option.spec["layer_precisions"] else str(option.spec["precision"])

"""`compress-module`: compresses the module that a Python function returns."""

import argparse
from pathlib import Path
from typing import Any

from ctrlab.cli.common import Subparsers, declare_verb
from ctrlab.cli.factory import make_module
from ctrlab.cli.flags import add_config_flags, flag_settings, parse_ranks
from ctrlab.cli.output import print_json, table_text
from ctrlab.plans.configs import CompressConfig


def declare_modules(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the verb `compress-module`."""
    help = "compress a torch module that a Python function returns"
    parser = declare_verb(subparsers, common, "compress-module", run_compress_module, help)
    parser.add_argument(
        "--factory", required=True, metavar="MODULE:FUNCTION", help="function that returns (module, calibration batches)"
    )
    ranks = parser.add_mutually_exclusive_group(required=True)
    ranks.add_argument("--variance", type=float, help="share of output variance every layer and table keeps, e.g. 0.95")
    ranks.add_argument("--ranks", nargs="+", metavar="LAYER=RANK", help="e.g. mlp.0=64; layers not named stay dense")
    add_config_flags(parser, CompressConfig, only=("bottleneck",), title="compression")
    parser.add_argument(
        "--output", type=Path, required=True, help="the .safetensors file to write; a .json file is written next to it"
    )


def run_compress_module(args: argparse.Namespace) -> None:
    """`compress-module`."""
    import ctrlab  # its compress loads torch

    module, batches = make_module(args.factory)
    ranks = parse_ranks(args.ranks) if args.ranks else None
    result = ctrlab.compress(module, batches, variance=args.variance, ranks=ranks, **flag_settings(CompressConfig, args))
    facts = result.description() | {"factory": args.factory}
    files = [str(path) for path in result.save(args.output)]
    print_json(facts | {"files": files}) if args.json else print(_text(facts, files))


def _text(facts: dict[str, Any], files: list[str]) -> str:
    table = table_text(["layer", "kind", "rank", "before", "after"], [list(row.values()) for row in facts["layers"]])
    skipped = [f"skipped {name}: {reason}" for name, reason in facts["skipped"].items()]
    return "\n".join([table, *skipped, *files])

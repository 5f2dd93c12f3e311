"""`compress-module`: compresses the module that a Python function returns."""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ctrlab.cli.common import Subparsers, declare_verb
from ctrlab.cli.flags import add_config_flags, flag_settings, parse_ranks
from ctrlab.cli.output import print_json, read_text, table_text
from ctrlab.errors import CalibrationWarning
from ctrlab.plans.configs import CompressConfig
from ctrlab.services.factories import make_module
from ctrlab.services.plans import parse_plan


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
    ranks.add_argument("--plan", type=Path, help="a plan as JSON, as `plan --output` and the Compress page write it")
    parser.add_argument("--filter", nargs="+", metavar="PATTERN", help="only layers of these names, such as 'mlp.*'")
    add_config_flags(parser, CompressConfig, only=("bottleneck",), title="compression")
    parser.add_argument(
        "--output", type=Path, required=True, help="the .safetensors file to write; a .json file is written next to it"
    )


def run_compress_module(args: argparse.Namespace) -> None:
    """`compress-module`."""
    import ctrlab  # its compress loads torch

    module, batches = make_module(args.factory)
    ranks = parse_ranks(args.ranks) if args.ranks else None
    if args.plan:
        ranks = parse_plan(read_text(args.plan, "a file that `plan --output` wrote")).as_dict()
    patterns = args.filter
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", CalibrationWarning)
        result = ctrlab.compress(
            module, batches, variance=args.variance, ranks=ranks, on_batch=batch_progress(args.json),
            filter_fn=(lambda name, _: any(fnmatchcase(name, pattern) for pattern in patterns)) if patterns else None,
            **flag_settings(CompressConfig, args),
        )  # fmt: skip
    for warning in warned:
        print(f"warning: {warning.message}", file=sys.stderr)
    facts = result.description() | {"factory": args.factory}
    files = [str(path) for path in result.save(args.output)]
    print_json(facts | {"files": files}) if args.json else print(_text(facts, files))


def _text(facts: dict[str, Any], files: list[str]) -> str:
    table = table_text(["layer", "kind", "rank", "before", "after"], [list(row.values()) for row in facts["layers"]])
    skipped = [f"skipped {name}: {reason}" for name, reason in facts["skipped"].items()]
    difference = facts["difference"]
    checked = [] if difference is None else [f"relative difference of the outputs on the first batch: {difference:.2g}"]
    return "\n".join([table, *skipped, *checked, *files])


def batch_progress(silent: bool) -> Callable[[int], None] | None:
    """Writes the number of batches done to standard error, once a second; None where nobody reads it."""
    if silent or not sys.stderr.isatty():
        return None
    last = 0.0

    def show(number: int) -> None:
        nonlocal last
        if time.monotonic() - last > 1:
            last = time.monotonic()
            print(f"\r{number:,} batches", end="\r", file=sys.stderr, flush=True)

    return show

"""`predict`: the probability of a click for the rows of a table."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ctrlab.cli.common import Subparsers, declare_verb, open_lab
from ctrlab.cli.flags import add_config_flags, flag_settings
from ctrlab.cli.output import print_json
from ctrlab.data.configs import SourceConfig
from ctrlab.services.bundles import BUNDLE_FOLDER

if TYPE_CHECKING:
    from ctrlab.serving.bundle.read import Bundle


def declare_predict(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the verb `predict`."""
    parser = declare_verb(subparsers, common, "predict", run_predict, "score the rows of a table, which needs no label")
    parser.add_argument("model", help="a bundle's folder, or the id of a model, whose bundle is made where it has none")
    parser.add_argument("rows", help="the table: a file, folder or pattern; - reads standard input")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .csv or .parquet file to write")
    parser.add_argument(
        "--keep", nargs="+", default=[], metavar="COLUMN", help="columns to copy beside the scores, such as an id"
    )
    add_config_flags(parser, SourceConfig, skip=("paths",), title="source")


def run_predict(args: argparse.Namespace) -> None:
    """`predict`."""
    from ctrlab.serving.bundle.score import ScoreTable, score_stream, score_table

    bundle = _bundle(args)
    task = ScoreTable(
        source=SourceConfig(paths=(args.rows,), **flag_settings(SourceConfig, args)),
        out=args.output,
        keep=tuple(args.keep),
    )
    show = _show if sys.stderr.isatty() and not args.json else _silent
    if args.rows == "-":
        scored = score_stream(bundle, sys.stdin.buffer, task, on_progress=show)
    else:
        scored = score_table(bundle, task, on_progress=show)
    if args.json:
        print_json({"output": str(args.output), "bundle": bundle.version, **scored.to_dict()})
        return
    rate = f"{scored.rows / max(scored.seconds, 1e-9) / 1e3:.0f} k rows/s"
    print(f"{args.output}: {scored.rows:,} rows, mean probability {scored.mean:.4f}, {rate}")
    for note in scored.notes:
        print(note.line, file=sys.stderr)


def _bundle(args: argparse.Namespace) -> "Bundle":
    """The bundle of a folder, or of a model of the store."""
    from ctrlab.serving.bundle.read import load_bundle

    if Path(args.model).is_dir():
        return load_bundle(args.model, threads=1)  # blocks run side by side
    with open_lab(args) as lab:
        made = lab.bundle(args.model)
        return load_bundle(made.path / BUNDLE_FOLDER, threads=1)


def _show(fraction: float, message: str) -> None:
    print(f"\r{fraction:4.0%}  {message}", end="\r", file=sys.stderr, flush=True)


def _silent(fraction: float, message: str) -> None:
    """Nobody reads it."""

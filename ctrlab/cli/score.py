"""`score`: what scores made elsewhere are worth."""

import argparse
import sys

from ctrlab.cli.columns import add_label_flags, given_label
from ctrlab.cli.common import Subparsers, declare_verb
from ctrlab.cli.flags import add_config_flags, flag_settings
from ctrlab.cli.output import print_json, table_text
from ctrlab.data.configs import SourceConfig
from ctrlab.evaluation.delong import Interval
from ctrlab.services.given_scores import GivenScoresConfig, ScoreReport, evaluate_scores


def declare_score(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the verb `score`."""
    help = "AUC, log loss and calibration of scores made elsewhere, with intervals, and against others on the same rows"
    parser = declare_verb(subparsers, common, "score", run_score, help)
    parser.add_argument("path", help="the table with labels and scores")
    add_config_flags(parser, GivenScoresConfig, skip=("path",), title="scores")
    add_label_flags(parser)
    add_config_flags(parser, SourceConfig, skip=("paths",), title="source")


def run_score(args: argparse.Namespace) -> None:
    """`score`."""
    config = GivenScoresConfig(**flag_settings(GivenScoresConfig, args) | {"path": args.path})
    source = SourceConfig(paths=(args.path,), **flag_settings(SourceConfig, args))
    report = evaluate_scores(config, given_label(args, "click"), source)
    if args.json:
        print_json(report.to_dict())
        return
    print(_text(report))
    for note in report.notes:
        print(note.line, file=sys.stderr)


def _text(report: ScoreReport) -> str:
    own = report.metrics
    lines = [
        f"{own.num_rows:,} rows, {own.num_clicks:,} clicks",
        f"AUC {_interval(report.auc, 4)}" if report.auc else "no AUC: all rows are of one class",
        f"log loss {own.log_loss:.5f}, normalised entropy {report.normalised_entropy:.4f}",
        f"predicted / observed {own.calibration_ratio:.3f}, calibration error {own.calibration_error:.4f}",
    ]
    if report.against is not None:
        lines.append(f"against: AUC {report.against.auc:.4f}, log loss {report.against.log_loss:.5f}")
        lines += [f"AUC change {_interval(report.auc_change, 5, sign=True)}"] if report.auc_change else []
        lines += [f"log loss change {_interval(report.log_loss_change, 5, sign=True)}"] if report.log_loss_change else []
    if report.segments:
        headers = ["column", "value", "rows", "clicks", "AUC", "log loss", "predicted / observed", "AUC change (95 %)"]
        lines.append(table_text(headers, [
            [one.column, one.value, one.metrics.num_rows, one.metrics.num_clicks, f"{one.metrics.auc:.4f}",
             f"{one.metrics.log_loss:.4f}", f"{one.metrics.calibration_ratio:.3f}",
             _interval(one.change, 4, sign=True) if one.change else ""]
            for one in report.segments
        ]))  # fmt: skip
    return "\n".join(lines)


def _interval(found: Interval, digits: int, *, sign: bool = False) -> str:
    form = f"{'+' if sign else ''}.{digits}f"
    return f"{found.estimate:{form}} (95 % {found.low:{form}} to {found.high:{form}})"

"""Helpers of all verbs: the parser of a verb, the lab that it uses, and the output of an artifact."""

import argparse
from collections.abc import Callable
from typing import Any

from ctrlab.cli.output import ProgressLine, print_json
from ctrlab.services.lab import Lab
from ctrlab.storage import Artifact

Subparsers = Any  # argparse's own class is private


def declare_verb(
    subparsers: Subparsers, common: argparse.ArgumentParser, name: str, run: Callable[..., int | None], help: str
) -> argparse.ArgumentParser:
    """Add the verb `name` with the common flags; `run` is called with the parsed arguments and may return an exit code."""
    parser: argparse.ArgumentParser = subparsers.add_parser(name, help=help, description=help, parents=[common])
    parser.set_defaults(run=run)
    return parser


def open_lab(args: argparse.Namespace) -> Lab:
    """The lab of `--home` and `--store-url`, which prints the progress of jobs on stderr."""
    return Lab(args.home, args.store_url, on_progress=ProgressLine())


def print_artifact(args: argparse.Namespace, artifact: Artifact, text: str, **facts: Any) -> None:
    """Print `text`, or the artifact and `facts` as one JSON object with `--json`."""
    if args.json:
        print_json({"id": artifact.id, "kind": artifact.kind, "name": artifact.name, "parents": artifact.parents,
                    "config": artifact.config, "summary": artifact.summary, "path": artifact.path, **facts})  # fmt: skip
    else:
        print(text)

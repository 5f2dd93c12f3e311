"""`compress-table`: compresses an embedding table in a file, in blocks, to a smaller file."""

import argparse
import sys
import time
from pathlib import Path

from ctrlab.cli.common import Subparsers, declare_verb
from ctrlab.cli.output import print_json
from ctrlab.registry import load


def declare_tables(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the verb `compress-table`."""
    help = "compress an embedding table in a .npy or .safetensors file, which may be larger than memory"
    parser = declare_verb(subparsers, common, "compress-table", run_compress_table, help)
    parser.add_argument("table", type=Path, help="float32, float16 or bfloat16 of shape (num_ids, width)")
    parser.add_argument("--tensor", help="name of the tensor in a .safetensors file with several matrices")
    parser.add_argument("--counts", type=Path, help="a .npy file: how often each id occurs in training (default: once each)")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--rank", type=int, help="numbers kept per id")
    size.add_argument("--variance", type=float, help="share of the variance to keep, e.g. 0.95")
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors or .npy file to write")


def run_compress_table(args: argparse.Namespace) -> None:
    """`compress-table`; imports torch."""
    result = load("ctrlab.compression.streaming:compress_table")(
        args.table, args.counts, args.rank, args.output, variance=args.variance, tensor=args.tensor, on_progress=_Line()
    )
    facts = result.description()
    if args.json:
        print_json(facts)
        return
    print(
        f"{facts['num_ids']:,} ids: width {facts['embed_dim']} -> {facts['rank']}, "
        f"{1 - facts['variance_lost']:.2%} of the variance kept, {facts['duration_seconds']:.1f} s"
    )
    print("\n".join(facts["files"]))


class _Line:
    """Progress on standard error, at most twice a second."""

    def __init__(self) -> None:
        self._shown_at = 0.0

    def __call__(self, fraction: float, message: str) -> None:
        if not sys.stderr.isatty() or (time.monotonic() - self._shown_at < 0.5 and fraction < 1):
            return
        self._shown_at = time.monotonic()
        sys.stderr.write(f"\r\x1b[K{fraction:4.0%} {message}" + ("\n" if fraction == 1 else ""))
        sys.stderr.flush()

"""Inference of the original DeepFM against FuxiCTR and DeepCTR-Torch, and of its compressed, folded form against itself.

DeepFM, 39 fields x 16, MLP 400x3, 1.06 M ids, Criteo-shaped rows. The peers run in an environment of their own (`make interop`),
their own models by their own forward passes, in batches of 4096, ids as they take them. The compressed form is the paper's
preset for Criteo: tables 16 -> 2, first MLP layer dense, the others to rank 64; folded. Weights are untrained.

    python benchmarks/inference.py [--rows 200000] [--quick]
"""

import argparse
import importlib
import itertools
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import criteo_shaped
import numpy as np
import torch
import zoo
from common import PROJECT, Table, at_least, machine, write_json

from ctrlab.plans.configs import CompressionSpec

PEERS = ("peer_fuxictr", "peer_deepctr")
BATCH = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.5, help="for each latency")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ctrlab-benchmarks")
    parser.add_argument("--peer-python", type=Path, default=PROJECT / ".venv-interop" / "bin" / "python")
    parser.add_argument("--quick", action="store_true", help="few rows, only to see that it runs")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.rows, args.rounds, args.seconds = 20_000, 1, 0.2
    torch.set_flush_denormal(True)
    rows = criteo_shaped.load(criteo_shaped.stored(args.folder, args.rows, criteo_shaped.criteo_dims()))
    if args.peer:
        print(json.dumps(peer_rate(args.peer, rows, args.rounds)))
        return
    peers = {peer: run_peer(peer, args) for peer in PEERS} if args.peer_python.exists() else {}
    report(peers, own_figures(rows, args), args)


def rate_of(work: Callable[[], Any], num_rows: int, rounds: int) -> float:
    """Rows a second, the best of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return num_rows / best


def peer_rate(name: str, rows: criteo_shaped.Rows, rounds: int) -> dict[str, Any]:
    contender = importlib.import_module(name).Contender("deepfm", rows, zoo.LEARNING_RATE)

    def predict() -> None:
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            contender.predict(contender.batch(np.asarray(rows.ids[part]), np.asarray(rows.labels[part])))

    return {"framework": contender.framework, "rows_per_second": rate_of(predict, len(rows), rounds)}


def run_peer(peer: str, args: argparse.Namespace) -> dict[str, Any]:
    command = [args.peer_python, __file__, "--peer", peer, "--rows", str(args.rows), "--rounds", str(args.rounds),
               "--folder", str(args.folder)]  # fmt: skip
    output = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])  # type: ignore[no-any-return]


def own_figures(rows: criteo_shaped.Rows, args: argparse.Namespace) -> dict[str, Any]:
    from own import built
    from spectra import Data

    from ctrlab.compression.fold import fold
    from ctrlab.compression.surgery import compress_model
    from ctrlab.decomposition.collect import collect_spectra
    from ctrlab.evaluation.latency import measure_latency, measure_onnx_latency
    from ctrlab.evaluation.prediction import predict_logits
    from ctrlab.models.profiling import profile_model
    from ctrlab.plans.ranks import preset_plan
    from ctrlab.serving.onnx_export import export_onnx

    data = Data(rows)
    torch.manual_seed(0)
    model = built("deepfm", data.schema, embedding_init_std=0.1).eval()
    spectra = collect_spectra(model, data, max_rows=20_000)
    compressed = fold(
        compress_model(model, CompressionSpec(plan=preset_plan("paper-criteo", profile_model(model), spectra)), spectra).model
    ).eval()
    split, figures = data.split("train"), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, form in (("original", model), ("compressed", compressed)):
            path = Path(folder) / f"{name}.onnx"
            export_onnx(form, path)
            figures[name] = {
                "rows_per_second": rate_of(lambda form=form: predict_logits(form, split), len(split), args.rounds),
                "bfloat16_rows_per_second": rate_of(
                    lambda form=form: predict_logits(form, split, compute_dtype="bfloat16"), len(split), args.rounds
                ),
                "torch": {size: found.to_dict() for size, found in measure_latency(form, split, seconds=args.seconds).items()},
                "onnx": {
                    size: found.to_dict() for size, found in measure_onnx_latency(path, split, seconds=args.seconds).items()
                },
                "lookup_share": lookup_share(form, split),
            }
    return figures | {"gemm_rows_per_second": gemm_limit(args.rounds)}


def gemm_limit(rounds: int) -> float:
    """Rows a second if nothing but the three large products were done, by torch, on all threads."""
    from torch.nn import functional

    widths = (39 * zoo.EMBED_DIM, *zoo.MLP)
    inputs, weights = (
        [torch.randn(BATCH, width) for width in widths[:-1]],
        [torch.randn(after, before) for before, after in itertools.pairwise(widths)],
    )

    def products() -> None:
        for _ in range(10):
            for rows, weight in zip(inputs, weights, strict=True):
                functional.linear(rows, weight)

    return rate_of(products, 10 * BATCH, 2 * rounds)


def lookup_share(model: Any, split: Any) -> float:
    """The share of a forward pass of 4096 rows that goes into fetching vectors and first-order weights."""
    from ctrlab.evaluation.prediction import to_tensors

    batches = [
        to_tensors(split.fields(slice(s, s + BATCH)), torch.device("cpu")) for s in range(0, min(len(split), 16 * BATCH), BATCH)
    ]

    def lookups(fields: Any) -> None:
        model.embedding(fields)
        model.linear.categorical(fields.ids)

    with torch.inference_mode():
        rates = [rate_of(lambda w=work: [w(b) for b in batches], 1, 5) for work in (lookups, model)]
    return rates[1] / rates[0]


def report(peers: dict[str, Any], own: dict[str, Any], args: argparse.Namespace) -> None:
    own, gemm = {name: own[name] for name in ("original", "compressed")}, own["gemm_rows_per_second"]
    original, compressed = own["original"], own["compressed"]
    rates = [[found["framework"], f"{found['rows_per_second'] / 1e3:.0f}"] for found in peers.values()]
    for name in own:
        rates.append([f"ctrlab, {name}", f"{own[name]['rows_per_second'] / 1e3:.0f}"])
        rates.append([f"ctrlab, {name}, bfloat16", f"{own[name]['bfloat16_rows_per_second'] / 1e3:.0f}"])
    rates.append(["float32 products of the original alone", f"{gemm / 1e3:.0f}"])
    tables = [
        Table(
            f"Predicting {args.rows:,} rows, batch {BATCH}, DeepFM", ["", "thousand rows/s"], rates,
            f"{machine()['threads']} threads",
        ),
        Table(
            "Latency, original and compressed with the paper's Criteo preset, folded",
            ["runtime", "batch", "original, ms", "compressed, ms", "faster"],
            [
                [runtime, size, f"{original[runtime][size]['p50_ms']:.2f}", f"{compressed[runtime][size]['p50_ms']:.2f}",
                 f"{original[runtime][size]['p50_ms'] / compressed[runtime][size]['p50_ms']:.2f}x"]
                for runtime in ("torch", "onnx") for size in original[runtime]
            ],
            "Median. " + "; ".join(
                f"{name}: {own[name]['lookup_share']:.0%} of torch's time at {BATCH} is look-up, the rest dense" for name in own
            ),
        ),
    ]  # fmt: skip
    targets = [
        at_least(f"compressed and folded against the original, batch {BATCH}, {runtime}",
                 original[runtime][BATCH]["p50_ms"] / compressed[runtime][BATCH]["p50_ms"], 1.7)
        for runtime in ("torch", "onnx")
    ]  # fmt: skip
    if peers:
        fastest = max(found["rows_per_second"] for found in peers.values())
        targets.insert(
            0, at_least("inference of the original against the faster peer", original["rows_per_second"] / fastest, 2.0)
        )
        targets.insert(1, at_least("the same in bfloat16", original["bfloat16_rows_per_second"] / fastest, 2.0))
    print(*tables, *targets, sep="\n")
    write_json(
        "inference", {"peers": peers, "own": own, "gemm_rows_per_second": gemm}, tables=tables, targets=targets, quick=args.quick
    )


if __name__ == "__main__":
    main()

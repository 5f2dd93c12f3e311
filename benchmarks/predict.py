"""Scoring raw rows: `predict` of Criteo's text by a bundle, and its ONNX file that reads raw values, in rows a second.

    python benchmarks/predict.py [--rows 1000000] [--folder DIR] [--quick]

A DeepFM of the paper's size is built for the first 400,000 generated rows in Criteo's format (its weights do not matter for the
time), compressed to the paper's ranks, and both are bundled; then the rows after these, without labels, are scored by
`score_table`, as `ctrlab predict` does. Then `model.onnx` is fed with texts, in one thread, by batch size.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from common import Table, at_least, write_json
from criteo_rows import write_rows

RATE = 100.0
_BATCHES = (1, 100, 256, 700)


#: Ranks of the paper's Criteo preset.
RANKS = {"mlp.2": 64, "mlp.4": 64, "embedding.*": 4}


def bundles_of(folder: Path, rows: int) -> dict[str, Path]:
    """{model: its bundle}, for the first rows."""
    import torch

    from ctrlab.compression.fold import serving_form
    from ctrlab.compression.surgery import compress_model
    from ctrlab.data.catalog import DATASETS
    from ctrlab.data.configs import SplitConfig
    from ctrlab.data.encoding.encode import encode_dataset
    from ctrlab.decomposition.collect import collect_spectra
    from ctrlab.evaluation.prediction import predict_logits
    from ctrlab.models.base import build_model
    from ctrlab.models.configs import MODELS
    from ctrlab.models.profiling import profile_model
    from ctrlab.plans.configs import CompressionSpec
    from ctrlab.plans.ranks import plan_ranks
    from ctrlab.serving.bundle.write import BundleSource, write_bundle
    from ctrlab.serving.onnx_export import export_onnx

    table = folder / "train.txt"
    write_rows(table, rows)
    config = DATASETS["criteo"].config_for(str(table), SplitConfig(train=0.8, valid=0.1, test=0.1))
    dataset = encode_dataset(config, folder / "dataset")
    torch.manual_seed(0)
    original = build_model(MODELS["deepfm"].config_class(embed_dim=16, mlp_dims=(400, 400, 400)), dataset.schema).eval()
    spectra = collect_spectra(original, dataset, max_rows=8192)
    spec = CompressionSpec(plan=plan_ranks(profile_model(original), spectra, ranks=RANKS))
    compressed = serving_form(compress_model(original, spec, spectra).model)
    source = {"header": False, "column_names": list(config.source.column_names), "label": config.label}
    unseen = {field.name: field.oov_share for field in dataset.summary.fields}
    found = {}
    for name, model in {"original": original, "ranks 64/64, tables 4": compressed}.items():
        ids_file, check = folder / f"{len(found)}.onnx", dataset.split("valid")
        export_onnx(model, ids_file)
        write_bundle(
            BundleSource(
                dataset=dataset, ids_file=ids_file, check=check, logits=predict_logits(model, check),
                facts={"name": name, "source": source, "unseen_shares": unseen},
            ),
            folder / f"bundle-{len(found)}",
        )  # fmt: skip
        found[name] = folder / f"bundle-{len(found)}"
    return found


def write_unlabelled(folder: Path, first: int, rows: int) -> None:
    """Rows after the first ones, without their label."""
    write_rows(folder / "labelled.txt", first + rows)
    with (folder / "labelled.txt").open("rb") as whole, (folder / "rows.txt").open("wb") as out:
        for number, line in enumerate(whole):
            if number >= first:
                out.write(line[2:])


def scored(bundle: Path, folder: Path) -> dict[str, Any]:
    """`score_table` of a table without labels."""
    from ctrlab.data.configs import SourceConfig
    from ctrlab.serving.bundle.read import load_bundle
    from ctrlab.serving.bundle.score import ScoreTable, score_table

    table = folder / "rows.txt"
    opened = load_bundle(bundle, threads=1)  # as `predict` does: blocks run side by side
    first = ScoreTable(source=SourceConfig(paths=(str(table),)), out=folder / "first.csv")
    rates = []
    for _ in range(2):  # the first run compiles or loads loops
        found = score_table(opened, first)
        rates.append(found.rows / found.seconds / 1e3)
    return {
        "rows": found.rows,
        "rate": rates[-1],
        "first_rate": rates[0],
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def raw_latencies(bundle: Path, folder: Path, seconds: float) -> list[dict[str, float]]:
    """Median and 99th percentile of one call of `model.onnx` in one thread, ms."""
    import onnxruntime

    from ctrlab.data.configs import SourceConfig
    from ctrlab.serving.bundle.columns import columns_of, inputs_of_texts
    from ctrlab.serving.bundle.read import load_bundle
    from ctrlab.serving.bundle.score import open_for

    opened = load_bundle(bundle)
    table = open_for(opened, SourceConfig(paths=(str(folder / "rows.txt"),)))
    frame = next(iter(table.blocks(list(opened.columns)))).head(max(_BATCHES))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    started = time.perf_counter()
    session = onnxruntime.InferenceSession(str(bundle / "model.onnx"), options, providers=["CPUExecutionProvider"])
    load_seconds = time.perf_counter() - started
    feeds = inputs_of_texts(columns_of(opened.encoder, lists=False), pl.DataFrame(frame))
    furthest = float(np.abs(session.run(None, feeds)[0] - opened.predict_texts(frame)).max())
    found = []
    for size in _BATCHES:
        some = {name: own[:size] for name, own in feeds.items()}
        times = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            began = time.perf_counter()
            session.run(None, some)
            times.append(1e3 * (time.perf_counter() - began))
        p50, p99 = np.percentile(times, [50, 99])
        found.append({"batch": size, "p50": float(p50), "p99": float(p99), "load": load_seconds, "furthest": furthest})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="for the files; a temporary one by default")
    parser.add_argument("--quick", action="store_true", help="few rows, only to see that it runs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as own:
        folder = args.folder or Path(own)
        first = 20_000 if args.quick else 400_000
        bundles = bundles_of(folder, first)
        write_unlabelled(folder, first, 20_000 if args.quick else args.rows)
        found = {name: scored(bundle, folder) for name, bundle in bundles.items()}
        calls = {name: raw_latencies(bundle, folder, 0.1 if args.quick else 3.0) for name, bundle in bundles.items()}
    tables = [
        Table(
            "A table without labels, by `predict`", ["model", "rows", "k rows/s", "first run, k rows/s", "peak memory, GB"],
            [
                [name, f"{own['rows']:,}", f"{own['rate']:.0f}", f"{own['first_rate']:.0f}", f"{own['peak_gb']:.2f}"]
                for name, own in found.items()
            ],
            "Reading text, encoding, ONNX Runtime and writing CSV, on both cores.",
        ),
        Table(
            "`model.onnx` fed with texts, one thread", ["model", "rows a call", "p50, ms", "p99, ms", "loads in, s"],
            [
                [name, str(call["batch"]), f"{call['p50']:.3f}", f"{call['p99']:.3f}", f"{call['load']:.1f}"]
                for name, own in calls.items()
                for call in own
            ],
            f"Its probabilities are those of `predict` to {max(own[0]['furthest'] for own in calls.values()):.1g}.",
        ),
    ]  # fmt: skip
    targets = [
        at_least(f"raw Criteo text to probabilities on two cores, {name}, k rows/s", own["rate"], RATE, "{:.0f}")
        for name, own in found.items()
    ]
    print(*tables, sep="\n")
    write_json("predict", {"tables": found, "calls": calls}, tables=tables, targets=targets, quick=args.quick)


if __name__ == "__main__":
    main()

"""Spectra of every layer and table against a plain forward pass over the same rows, and against scikit-learn's IncrementalPCA.

DeepFM, 39 fields x 16, MLP 400x3, 1.06 M ids, Criteo-shaped rows. IncrementalPCA reads features dumped by a
forward pass that is not counted, of fewer rows: its time is proportional to their number.

    python benchmarks/spectra.py [--rows 500000] [--pca-rows 40000] [--quick]
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import criteo_shaped
import numpy as np
import torch
from common import Table, at_least, at_most, machine, write_json
from own import RowsDataset, built
from sklearn.decomposition import IncrementalPCA

from ctrlab.data.dataset import Split
from ctrlab.decomposition.collect import collect_spectra
from ctrlab.decomposition.trace import trace_outputs
from ctrlab.evaluation.prediction import to_tensors
from ctrlab.models.base import CTRModel

LAYERS = ("mlp.0", "mlp.2", "mlp.4")
BATCH = 4096
CPU = torch.device("cpu")


class Data(RowsDataset):
    """Rows with the counts of their ids."""

    def counts(self, field: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
        return np.bincount(self.parts["train"].ids[:, field], minlength=self.schema.field_dims[field])

    def list_counts(self, number: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
        raise NotImplementedError("these rows have no lists")


def plain_forward(model: CTRModel, split: Split) -> None:
    with torch.inference_mode():
        for start in range(0, len(split), BATCH):
            model(to_tensors(split.fields(slice(start, start + BATCH)), CPU))


def dump(model: CTRModel, split: Split, folder: Path) -> dict[str, Path]:
    """Outputs of the layers and vectors of the fields, one float32 file each."""
    names = (*LAYERS, "embedding")
    parts: dict[str, list[Any]] = {name: [] for name in names}
    with trace_outputs(model, names, lambda name, output: parts[name].append(output.numpy())):
        plain_forward(model, split)
    features = {name: np.concatenate(parts[name]) for name in LAYERS}
    vectors = np.concatenate(parts["embedding"])
    features |= {f"embedding.{name}": vectors[:, number] for number, name in enumerate(model.schema.field_names)}
    paths = {}
    for number, (name, values) in enumerate(features.items()):
        paths[name] = folder / f"{number}.npy"
        np.save(paths[name], values)
    return paths


def incremental_pca(paths: dict[str, Path], batch_size: int | None) -> dict[str, "np.ndarray[Any, Any]"]:
    """Eigenvalues (divisor n) of each dumped feature matrix. batch_size: None for scikit-learn's own, 5 times the features."""
    found = {}
    for name, path in paths.items():
        features = np.load(path, mmap_mode="r")
        pca = IncrementalPCA(batch_size=batch_size).fit(features)
        found[name] = pca.explained_variance_ * (len(features) - 1) / len(features)
    return found


def seconds(work: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """Shortest time of some runs, and the last result."""
    best, result = float("inf"), None
    for _ in range(rounds):
        started = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - started)
    return best, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--pca-rows", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ctrlab-benchmarks")
    parser.add_argument("--quick", action="store_true", help="few rows, only to see that it runs")
    args = parser.parse_args()
    num_rows, pca_rows = (20_000, 8_000) if args.quick else (args.rows, args.pca_rows)
    torch.set_flush_denormal(True)
    rows = criteo_shaped.load(criteo_shaped.stored(args.folder, num_rows, criteo_shaped.criteo_dims()))
    data = Data(rows)
    torch.manual_seed(0)
    model = built("deepfm", data.schema, embedding_init_std=0.1).eval()
    plain_forward(model, Data(criteo_shaped.Rows(rows.ids[:20_000], rows.labels[:20_000], rows.field_dims)).split("train"))
    forward, _ = seconds(lambda: plain_forward(model, data.split("train")), args.rounds)
    used = time.process_time()
    ours, spectra = seconds(lambda: collect_spectra(model, data), args.rounds)
    cpu = (time.process_time() - used) / args.rounds
    sampled, few = seconds(lambda: collect_spectra(model, data, tolerance=0.01), 1)
    few_rows = few["mlp.0"].num_samples

    part = Data(criteo_shaped.Rows(rows.ids[:pca_rows], rows.labels[:pca_rows], rows.field_dims))
    part_seconds, part_spectra = seconds(lambda: collect_spectra(model, part), 1)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        paths = dump(model, part.split("train"), Path(name))
        pca_seconds, pca = seconds(lambda: incremental_pca(paths, None), 1)
        large_seconds, _ = seconds(lambda: incremental_pca(paths, BATCH), 1)
    worst = max(float(np.abs(part_spectra[n].eigenvalues - pca[n]).max() / pca[n][0]) for n in paths)
    speedup, over_large = ((pca_time / pca_rows) / (ours / num_rows) for pca_time in (pca_seconds, large_seconds))
    result = {
        "rows": num_rows, "forward_seconds": forward, "spectra_seconds": ours, "spectra_cpu_seconds": cpu,
        "sampled_seconds": sampled, "sampled_rows": few_rows, "pca_rows": pca_rows, "pca_seconds": pca_seconds,
        "spectra_seconds_on_pca_rows": part_seconds, "speedup_over_pca": speedup, "pca_large_batch_seconds": large_seconds,
        "speedup_over_pca_in_large_batches": over_large, "largest_eigenvalue_difference": worst,
        "first_direction": {n: float(spectra[n].explained_variance_ratio[0]) for n in LAYERS},
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip
    table = Table(
        f"Spectra of 3 layers and 39 tables, {num_rows:,} rows",
        ["", "rows", "s", "thousand rows/s"],
        [
            ["plain forward pass", f"{num_rows:,}", f"{forward:.2f}", f"{num_rows / forward / 1e3:.0f}"],
            ["all spectra", f"{num_rows:,}", f"{ours:.2f}", f"{num_rows / ours / 1e3:.0f}"],
            ["all spectra, sampling error 1 %", f"{few_rows:,}", f"{sampled:.2f}", ""],
            [
                "IncrementalPCA on dumped features, its own batches",
                f"{pca_rows:,}",
                f"{pca_seconds:.2f}",
                f"{pca_rows / pca_seconds / 1e3:.1f}",
            ],
            [f"the same in batches of {BATCH}", f"{pca_rows:,}", f"{large_seconds:.2f}", f"{pca_rows / large_seconds / 1e3:.1f}"],
        ],
        f"{machine()['threads']} threads. Largest difference from IncrementalPCA's eigenvalues: {worst:.1e} of the first one.",
    )
    targets = [
        at_most("spectra of every layer and table against a plain forward pass", ours / forward, 1.6),
        at_least("the same against scikit-learn's IncrementalPCA as it is, per row", speedup, 20, "{:.0f}x"),
        at_least(f"the same in batches of {BATCH}", over_large, 20, "{:.0f}x"),
        at_most("difference of its eigenvalues", worst, 1e-4, "{:.0e}"),
    ]
    print(table, *targets, sep="\n")
    write_json("spectra", result, tables=[table], targets=targets, quick=args.quick)


if __name__ == "__main__":
    main()

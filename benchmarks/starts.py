"""The default training of own data: DeepFM with no setting given, against logistic regression and boosted trees.

    OMP_NUM_THREADS=1 python benchmarks/starts.py --out /tmp/starts

Real data as people upload it, with no known format named and without an edit (roles by `draft_config`), and generated logs of
8,000 to 200,000 rows with 0.1 % to 94 % clicks. All three models read the same encoded rows: logistic regression on hashed
features (field and id, numbers in steps of a quarter standard deviation; the strength of its L2 chosen on the validation rows),
gradient boosting (scikit-learn's HistGradientBoosting, stopped early), and DeepFM as `ctrlab train` trains it.
"""

import argparse
import gzip
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sparse
import torch
from common import Table, Target, at_least, real_data, write_json
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from ctrlab.data.configs import DatasetConfig, SourceConfig
from ctrlab.data.dataset import EncodedDataset, Split
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.data.synthetic import SyntheticConfig, write_sample
from ctrlab.data.tables.draft import draft_config
from ctrlab.data.tables.inspect import inspect_table
from ctrlab.evaluation.delong import auc_difference
from ctrlab.evaluation.metrics import metrics_of
from ctrlab.evaluation.prediction import predict_logits
from ctrlab.models.base import build_model
from ctrlab.models.configs import MODELS
from ctrlab.models.start import start_at_base_rate
from ctrlab.training.configs import FitConfig
from ctrlab.training.loop import fit

REAL = ("criteo", "avazu", "frappe")
#: Name: rows, click-through rate.
GENERATED = {
    "8k, 9 %": (8_000, 0.09), "8k, 94 %": (8_000, 0.94), "33k, 1 %": (33_000, 0.01), "60k, 20 %": (60_000, 0.2),
    "200k, 0.1 %": (200_000, 0.001), "200k, 3 %": (200_000, 0.03),
}  # fmt: skip
_HASHES = 2**20
_STRENGTHS = (0.03, 0.1, 0.3, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of data and results; finished results are kept")
    parser.add_argument("--datasets", type=lambda text: text.split(";"), default=[*REAL, *GENERATED], metavar="A;B;...")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of DeepFM: starts and orders of rows")
    parser.add_argument("--quick", action="store_true", help="the first generated log only")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    names = [next(iter(GENERATED))] if args.quick else args.datasets
    results = {name: _result(args.out, name, args.seeds) for name in names}
    table = Table(
        "Default training of DeepFM against logistic regression (LR) and gradient boosting (GBDT) on the same test rows",
        ["data", "training rows", "clicks", "schedule", "LR", "GBDT", "DeepFM", "DeepFM - best (95 %)", "log loss, best of both",
         "log loss, DeepFM", "predicted / observed"],
        [_row(name, found) for name, found in results.items()],
        "AUC unless said otherwise. Schedule: batch size, epochs run of those allowed. DeepFM: the mean over seeds, in "
        "brackets the lowest and highest AUC; the interval is that of the seed in the middle.",
    )  # fmt: skip
    targets: list[Target] = [
        at_least(f"{name}: AUC over the better of LR and GBDT", _mean_change(found), -0.003, "{:+.4f}")
        for name, found in results.items()
        if name in REAL
    ]
    print(table, *targets, sep="\n")
    print("written to", write_json("starts", results, tables=[table], targets=targets, quick=args.quick))


def dataset_of(out: Path, name: str) -> EncodedDataset:
    """The encoded rows, made by the first call; settings are those that an upload gets."""
    stem = "".join(letter if letter.isalnum() else "-" for letter in name)
    folder = out / f"{stem}-encoded"
    if (folder / "dataset.json").exists():
        return EncodedDataset.open(folder)
    paths = tuple(str(path) for path in _tables(out, name, stem))
    inspection = inspect_table(SourceConfig(paths=paths))
    config: DatasetConfig = draft_config(inspection, name, several="splits" if len(paths) > 1 else None)
    return encode_dataset(config, folder)


def _tables(out: Path, name: str, stem: str) -> list[Path]:
    if name in GENERATED:
        rows, ctr = GENERATED[name]
        path = out / f"{stem}.csv"
        write_sample(path, SyntheticConfig(num_rows=rows, ctr=ctr, seed=rows % 97))
        return [path]
    if name == "criteo":
        path = out / "criteo.csv"
        pl.read_parquet(real_data("criteo_137k.parquet")).write_csv(path)
        return [path]
    if name == "avazu":
        path = out / "avazu.csv"
        path.write_bytes(gzip.decompress(real_data("avazu_33k.csv.gz").read_bytes()))
        return [path]
    paths = []
    for part in ("train", "valid", "test"):
        paths.append(out / f"frappe-{part}.csv")
        paths[-1].write_bytes(gzip.decompress((real_data("frappe_x1") / f"{part}.csv.gz").read_bytes()))
    return paths


def _result(out: Path, name: str, seeds: int) -> dict[str, Any]:
    file = out / f"{name}.json"
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text())
        return found
    dataset = dataset_of(out, name)
    labels = np.asarray(dataset.split("test").labels)
    baselines = _baselines(out / f"{name}.npz", dataset)
    measured = {model: metrics_of(labels, own).to_dict() for model, own in baselines.items()}
    best = max(baselines, key=lambda model: measured[model]["auc"])
    result = {
        "rows": len(dataset.split("train")), "clicks": int(dataset.split("train").labels.sum()),
        "measured": measured, "best": best,
        "trained": [_trained(dataset, seed, baselines[best]) for seed in range(seeds)],
    }  # fmt: skip
    file.write_text(json.dumps(result))
    print(name, "done", flush=True)
    return result


def _baselines(file: Path, dataset: EncodedDataset) -> dict[str, np.ndarray]:
    """Test logits of the other models, kept in a file: they do not change with ctrlab's training."""
    if not file.exists():
        np.savez(file, LR=_logistic(dataset), GBDT=_boosted(dataset))
    with np.load(file) as kept:
        return {name: kept[name] for name in ("LR", "GBDT")}


def _trained(dataset: EncodedDataset, seed: int, baseline: np.ndarray) -> dict[str, Any]:
    """The default DeepFM of one seed: its training, test metrics, and its AUC less that of the baseline's logits."""
    started = time.perf_counter()
    torch.manual_seed(seed)
    model = build_model(MODELS["deepfm"].config_class(), dataset.schema)
    train, test = dataset.split("train").labels, dataset.split("test")
    start_at_base_rate(model, float(train.sum()), len(train))
    found = fit(model, dataset, FitConfig(device="cpu", seed=seed))
    logits = predict_logits(found.model, test)
    return {
        "config": found.config.to_dict(), "history": found.summary()["history"], "seconds": time.perf_counter() - started,
        "measured": metrics_of(test.labels, logits).to_dict(), "change": asdict(auc_difference(test.labels, logits, baseline)),
    }  # fmt: skip


def _logistic(dataset: EncodedDataset) -> np.ndarray:
    rows, valid = dataset.split("train"), dataset.split("valid")
    fitted = [LogisticRegression(C=strength, max_iter=100).fit(_hashed(rows), rows.labels) for strength in _STRENGTHS]
    losses = [metrics_of(valid.labels, model.decision_function(_hashed(valid)).astype(np.float32)).log_loss for model in fitted]
    return fitted[int(np.argmin(losses))].decision_function(_hashed(dataset.split("test"))).astype(np.float32)


def _boosted(dataset: EncodedDataset) -> np.ndarray:
    rows = dataset.split("train")
    model = HistGradientBoostingClassifier(max_iter=300, early_stopping=True, random_state=0).fit(_columns(rows), rows.labels)
    return model.decision_function(_columns(dataset.split("test"))).astype(np.float32)


def _hashed(rows: Split) -> sparse.csr_matrix:
    """(n, hashes) of ones: each field's id, and each number in steps of a quarter standard deviation."""
    cells = np.concatenate([rows.ids.astype(np.int64), np.round(4 * rows.values).astype(np.int64)], axis=1)
    fields = np.arange(cells.shape[1], dtype=np.int64)
    hashed = (cells * 2_654_435_761 + fields * 97_000_003) % _HASHES
    places = np.arange(len(cells) + 1) * cells.shape[1]
    return sparse.csr_matrix((np.ones(hashed.size, np.float32), hashed.ravel(), places), shape=(len(cells), _HASHES))


def _columns(rows: Split) -> np.ndarray:
    """(n, fields) float32: ids, which training numbers by falling frequency, then numbers."""
    return np.concatenate([rows.ids.astype(np.float32), rows.values], axis=1)


def _mean_change(found: dict[str, Any]) -> float:
    return float(np.mean([one["change"]["estimate"] for one in found["trained"]]))


def _row(name: str, found: dict[str, Any]) -> list[str]:
    measured, trained = found["measured"], sorted(found["trained"], key=lambda one: one["change"]["estimate"])
    middle = trained[len(trained) // 2]
    aucs = [one["measured"]["auc"] for one in trained]
    mean = {what: float(np.mean([one["measured"][what] for one in trained])) for what in ("auc", "log_loss", "calibration_ratio")}
    schedule = f"{middle['config']['batch_size']}, {middle['history'][-1]['epoch'] + 1} of {middle['config']['epochs']}"
    return [
        name, f"{found['rows']:,}", f"{found['clicks']:,}", schedule,
        *(f"{measured[model]['auc']:.4f}" for model in ("LR", "GBDT")), f"{mean['auc']:.4f} ({min(aucs):.4f} to {max(aucs):.4f})",
        f"{_mean_change(found):+.4f} ({middle['change']['low']:+.4f} to {middle['change']['high']:+.4f})",
        f"{min(measured[model]['log_loss'] for model in ('LR', 'GBDT')):.4f}", f"{mean['log_loss']:.4f}",
        f"{mean['calibration_ratio']:.3f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()

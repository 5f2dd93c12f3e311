"""The original models that rank choice, methods and fine-tuning are compared on: DeepFM and DCN on three real datasets.

    python benchmarks/bases.py --out runs/bases --seeds 3

Each is trained without a tenth of its training rows, which are held out for fine-tuning.
- criteo: 137,139 rows, random 70/10/10/10 (train, validation, test, fine-tuning); d 16, MLP 400x3, one epoch, batch 256,
  row-wise lazy Adam 1e-3.
- avazu: 33,261 rows, the same split and settings.
- frappe: Frappe_x1 with its own validation and test rows, train negatives re-drawn; settings of the published results
  (benchmarks/frappe_zoo.py), d 10.
Models stay in --out and are not trained again.
"""

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from common import real_data, write_json
from frappe_zoo import FIELDS, PUBLISHED, TRAINING, in_parallel, keep
from frappe_zoo import start as start_frappe

from ctrlab.data.catalog import DATASETS
from ctrlab.data.configs import ColumnConfig, DatasetConfig, SourceConfig, SplitConfig
from ctrlab.data.dataset import EncodedDataset
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.evaluation.prediction import evaluate_model
from ctrlab.models.base import CTRModel, build_model
from ctrlab.models.checkpoint import load_model, save_model
from ctrlab.models.configs import MODELS
from ctrlab.training.configs import FitConfig
from ctrlab.training.loop import fit

NAMES = ("criteo", "frappe", "avazu")
ARCHITECTURES = ("deepfm", "dcn")
ONE_EPOCH = FitConfig(epochs=1, batch_size=256, learning_rate=1e-3, optimizer="lazy_adam", monitor="auc", device="cpu")
_SPLIT = SplitConfig(train=0.7, valid=0.1, test=0.1, finetune=0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of data and models; made where absent")
    parser.add_argument("--datasets", type=lambda text: text.split(","), default=list(NAMES), metavar="A,B,...")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of each job")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    args = parser.parse_args()
    seeds = range(args.seeds)  # outermost, so that an unfinished run has all originals of its first seeds
    wanted = [(args.out, name, model, seed) for seed in seeds for name in args.datasets for model in ARCHITECTURES]
    for name in args.datasets:
        for seed in seeds:
            dataset_of(args.out, name, seed)
    in_parallel(train, [each for each in wanted if not result_file(*each).exists()], args)
    results = [json.loads(result_file(*each).read_text()) for each in wanted]
    print("written to", write_json("bases", results))


def dataset_of(out: Path, name: str, seed: int) -> EncodedDataset:
    """The encoded data of one seed, encoded by the first call. Frappe's rows are the same in every seed."""
    out.mkdir(parents=True, exist_ok=True)
    if name == "frappe":
        return _frappe(out)
    folder, table = out / f"{name}-data-{seed}", out / f"{name}.csv"
    if (folder / "dataset.json").exists():
        return EncodedDataset.open(folder)
    if name == "criteo":
        frame = pl.read_parquet(real_data("criteo_137k.parquet")).fill_null("")
        frame.write_csv(table, separator="\t", include_header=False, quote_style="never")
    else:
        table.write_bytes(gzip.decompress(real_data("avazu_33k.csv.gz").read_bytes()))
    return encode_dataset(DATASETS[name].config_for(str(table), _SPLIT.replace(seed=seed)), folder)


def _frappe(out: Path) -> EncodedDataset:
    folder = out / "frappe-data"
    if (folder / "dataset.json").exists():
        return EncodedDataset.open(folder)
    source = real_data("frappe_x1")
    rows = pl.read_csv(source / "train.csv.gz")
    aside = np.random.default_rng(0).random(len(rows)) < 0.1
    parts = {"train": rows.filter(~aside), "valid": pl.read_csv(source / "valid.csv.gz"),
             "test": pl.read_csv(source / "test.csv.gz"), "finetune": rows.filter(aside)}  # fmt: skip
    for part, frame in parts.items():
        frame.write_csv(out / f"frappe-{part}.csv")
    columns = (ColumnConfig(name="label", role="label"), *(ColumnConfig(name=name, role="categorical") for name in FIELDS))
    paths = tuple(str(out / f"frappe-{part}.csv") for part in parts)
    config = DatasetConfig(name="Frappe", source=SourceConfig(paths=paths), columns=columns, split=SplitConfig(method="files"))
    return encode_dataset(config, folder)


def base_of(out: Path, name: str, architecture: str, seed: int) -> tuple[CTRModel, EncodedDataset]:
    """A trained original with its data; exits with a message where it was not trained."""
    dataset, path = dataset_of(out, name, seed), model_file(out, name, architecture, seed)
    if not path.exists():
        raise SystemExit(f"{path.name} is not there; run benchmarks/bases.py with the same --out first")
    return load_model(path, dataset.schema), dataset


def untrained(name: str, architecture: str, dataset: EncodedDataset, seed: int, **settings: Any) -> CTRModel:
    """The model of a seed before training; `settings` replace those of the original, to build a smaller one."""
    if name == "frappe":
        return start_frappe(architecture, dataset, seed, **settings)
    torch.manual_seed(seed)
    return build_model(MODELS[architecture].config_class(**({"embed_dim": 16} | settings)), dataset.schema)


def training_of(name: str, architecture: str, seed: int) -> FitConfig:
    """Training settings of an original."""
    if name == "frappe":
        return TRAINING.replace(l2_embedding=PUBLISHED[architecture].l2, seed=seed)
    return ONE_EPOCH.replace(seed=seed)


def train(out: Path, name: str, architecture: str, seed: int) -> dict[str, Any]:
    """Train one original; the model and its metrics are written to `out`."""
    dataset, path = dataset_of(out, name, seed), model_file(out, name, architecture, seed)
    fitted = fit(untrained(name, architecture, dataset, seed), dataset, training_of(name, architecture, seed))
    save_model(fitted.model, path)
    test, valid = (evaluate_model(fitted.model, dataset.split(split)) for split in ("test", "valid"))
    result = {
        "dataset": name, "model": architecture, "seed": seed, "auc": test.auc, "log_loss": test.log_loss, "valid_auc": valid.auc,
        "valid_log_loss": valid.log_loss, "seconds": fitted.seconds,
        "parameters": sum(parameter.numel() for parameter in fitted.model.parameters()),
    }  # fmt: skip
    keep(result_file(out, name, architecture, seed), result)
    return result


def model_file(out: Path, name: str, architecture: str, seed: int) -> Path:
    """Path of a trained original."""
    return out / f"{name}-{architecture}-{seed}.safetensors"


def result_file(out: Path, name: str, architecture: str, seed: int) -> Path:
    """Path of its metrics."""
    return model_file(out, name, architecture, seed).with_suffix(".json")


if __name__ == "__main__":
    main()

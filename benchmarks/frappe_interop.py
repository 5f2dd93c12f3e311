"""Frappe with other frameworks' code: a FuxiCTR DeepFM and a DeepCTR-Torch DCN, trained, compressed and measured.

    make interop                                                    # once: the environment
    .venv-interop/bin/python benchmarks/frappe_interop.py [--variance 0.95] [--seeds 1 2 3] [--epochs 40]

Training, fine-tuning and AUC are each framework's own; ctrlab only compresses. "fine-tuned" starts from the truncated model,
"control" gives the original the same fine-tuning. Validation chooses the epoch. Frappe_x1, train negatives re-drawn.
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import markdown_table, real_data, write_json
from torch import nn

from ctrlab.interop import deepctr_torch, fuxictr

SPLITS = ("train", "valid", "test")
BATCH, DIM, MLP, DROPOUT = 4096, 10, (400, 400, 400), 0.2
#: FuxiCTR adds l2/2 times the squared norm to a mean loss, DeepCTR-Torch l2 times the squared norm to a sum over the batch.
L2 = 0.05
L2_OF_SUM = L2 / 2 * BATCH
FINETUNE_RATE = 1e-4

Ids = dict[str, "np.ndarray[Any, np.dtype[np.int64]]"]


@dataclass(frozen=True)
class Frappe:
    """Ids and labels by split; id 0 is never used, the last id of a field stands for values that train has not."""

    ids: dict[str, Ids]
    labels: dict[str, "np.ndarray[Any, np.dtype[np.float32]]"]
    sizes: dict[str, int]


def read_frappe() -> Frappe:
    folder = real_data("frappe_x1")
    frames = {split: pd.read_csv(folder / f"{split}.csv.gz") for split in SPLITS}
    fields = [column for column in frames["train"] if column != "label"]
    number = {field: {v: i for i, v in enumerate(sorted(frames["train"][field].unique()), start=1)} for field in fields}
    ids = {
        split: {f: frame[f].map(number[f]).fillna(len(number[f]) + 1).to_numpy(np.int64) for f in fields}
        for split, frame in frames.items()
    }
    labels = {split: frame["label"].to_numpy(np.float32) for split, frame in frames.items()}
    return Frappe(ids, labels, {field: len(number[field]) + 2 for field in fields})


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def run_fuxictr(data: Frappe, variance: float, seed: int, epochs: int) -> dict[str, Any]:
    """AUC by FuxiCTR's `evaluate` of its DeepFM before and after."""
    from fuxictr.pytorch.dataloaders import RankDataLoader
    from fuxictr.pytorch.torch_utils import seed_everything
    from fuxictr_deepfm import DeepFM, feature_map_of, write_npz

    seed_everything(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "frappe"
        (folder / "frappe").mkdir(parents=True)  # where it saves the best epoch
        feature_map = feature_map_of(folder, data.sizes, DIM)
        paths = [write_npz(folder / f"{split}.npz", data.ids[split], data.labels[split]) for split in SPLITS]
        train, valid, test = RankDataLoader(feature_map, "both", *paths, batch_size=BATCH, num_workers=0)
        model = DeepFM(
            feature_map, embed_dim=DIM, mlp_dims=MLP, dropout=DROPOUT, batch_norm=True, embedding_regularizer=L2,
            model_root=str(folder), model_id="base",
        )  # fmt: skip
        model.fit(train, epochs=epochs, validation_data=valid)
        compressed = fuxictr.compress(model, train, variance=variance).model

        def finetune(arm: Any) -> None:
            arm.compile("adam", "binary_crossentropy", FINETUNE_RATE)
            arm.fit(train, epochs=epochs, validation_data=valid)

        return four_arms(model, compressed, finetune, lambda arm: arm.evaluate(test)["AUC"])


def run_deepctr_torch(data: Frappe, variance: float, seed: int, epochs: int) -> dict[str, Any]:
    """AUC by DeepCTR-Torch's `evaluate` of its DCN before and after."""
    from deepctr_torch.inputs import SparseFeat
    from deepctr_torch.models import DCN

    columns = [SparseFeat(field, size, embedding_dim=DIM) for field, size in data.sizes.items()]
    model = DCN(
        [],
        columns,
        cross_num=3,
        dnn_hidden_units=MLP,
        dnn_use_bn=True,
        dnn_dropout=DROPOUT,
        l2_reg_embedding=L2_OF_SUM,
        seed=seed,
    )
    for layer in model.dnn.linears:  # its own start, normal with deviation 1e-4, learns next to nothing for many epochs
        nn.init.xavier_normal_(layer.weight)
    for learning_rate in (1e-3, 1e-4):  # down by ten on a plateau, as FuxiCTR does by itself
        fit_deepctr(model, data, learning_rate, epochs)
    compressed = deepctr_torch.compress(model, data.ids["train"], variance=variance).model
    return four_arms(
        model, compressed, lambda arm: fit_deepctr(arm, data, FINETUNE_RATE, epochs),
        lambda arm: arm.evaluate(data.ids["test"], data.labels["test"], BATCH)["auc"],
    )  # fmt: skip


def fit_deepctr(model: Any, data: Frappe, learning_rate: float, epochs: int) -> None:
    """Its own `fit` until validation AUC has not risen for two epochs, then back to the best one."""
    from deepctr_torch.callbacks import EarlyStopping

    model.compile(torch.optim.Adam(model.parameters(), lr=learning_rate), "binary_crossentropy", metrics=["auc"])
    best = EarlyStopping("val_auc", patience=2, mode="max", restore_best_weights=True)
    model.fit(
        data.ids["train"], data.labels["train"], batch_size=BATCH, epochs=epochs, verbose=2, callbacks=[best],
        validation_data=(data.ids["valid"], data.labels["valid"]),
    )  # fmt: skip


def four_arms(
    model: nn.Module, compressed: nn.Module, finetune: Callable[[Any], None], auc: Callable[[Any], float]
) -> dict[str, Any]:
    """{arm: (AUC, parameters)} of the base, the truncated, the fine-tuned model and the control arm."""
    arms = {"base": auc(model), "truncated": auc(compressed)}
    size = {"base": parameters(model), "compressed": parameters(compressed)}
    finetune(compressed)
    arms["fine-tuned"] = auc(compressed)
    finetune(model)  # its figures as trained are taken
    arms["control"] = auc(model)
    return {"auc": arms, "parameters": size}


RUNS: Mapping[str, Callable[..., dict[str, Any]]] = {"FuxiCTR DeepFM": run_fuxictr, "DeepCTR-Torch DCN": run_deepctr_torch}


def table(results: Mapping[str, list[dict[str, Any]]]) -> str:
    """One row a model: mean (and deviation) of the AUC of every arm, and the parameters left."""
    rows = []
    for name, runs in results.items():
        left = statistics.mean(run["parameters"]["compressed"] / run["parameters"]["base"] for run in runs)
        aucs = [[run["auc"][arm] for run in runs] for arm in runs[0]["auc"]]
        rows.append([name, f"{runs[0]['parameters']['base']:,}", f"{left:.1%}", *map(_mean, aucs)])
    return markdown_table(["model", "parameters", "left", *next(iter(results.values()))[0]["auc"]], rows)


def _mean(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variance", type=float, default=0.95)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--epochs", type=int, default=40, help="at most; both stop by validation AUC")
    parser.add_argument("--models", nargs="+", choices=list(RUNS), default=list(RUNS))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    data, start = read_frappe(), time.perf_counter()
    results = {name: [RUNS[name](data, args.variance, seed, args.epochs) for seed in args.seeds] for name in args.models}
    print(table(results))
    content = {"variance": args.variance, "seeds": args.seeds, "seconds": time.perf_counter() - start, "models": results}
    print(write_json("frappe_interop", content))


if __name__ == "__main__":
    main()

"""Published results on Frappe_x1 (train negatives re-drawn) by ctrlab's own training: test AUC over seeds.

    python benchmarks/frappe_zoo.py --out runs/frappe --models deepfm,dcn --seeds 3 --threads 1 --jobs 1

Settings and figures are those of the BARS leaderboard (FuxiCTR): dense Adam at 1e-3, times 0.1 after every epoch that is not
better, stop after two such epochs in a row, batch 4096, d 10, gradients clipped at norm 10, L2 on all tables, Xavier-normal
weights, tables with deviation 1e-4. GDCN is not in that benchmark: it takes DCNv2's settings. The published figure is the mean
of runs where there is one, else the best run. Every trained model and its result are kept in --out and not trained
again, so a run can be interrupted.
"""

import argparse
import json
import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine, markdown_table, real_data, write_json
from torch import nn

from ctrlab.data.configs import ColumnConfig, DatasetConfig, SourceConfig, SplitConfig
from ctrlab.data.dataset import EncodedDataset
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.evaluation.prediction import evaluate_model
from ctrlab.models.base import CTRModel, build_model
from ctrlab.models.checkpoint import save_model
from ctrlab.models.configs import MODELS
from ctrlab.models.finalmlp import FinalMLP
from ctrlab.training.configs import FitConfig
from ctrlab.training.loop import fit

TITLE = "Frappe_x1, train negatives re-drawn"
FIELDS = ("user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city")
#: How far below the published AUC a mean may lie and still count as reproduced.
TOLERANCE = 0.001
TRAINING = FitConfig(
    epochs=100, batch_size=4096, learning_rate=1e-3, optimizer="adam", clip_norm=10.0, evaluations_per_epoch=1, monitor="auc",
    patience=2, plateau_factor=0.1, device="cpu",
)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """Settings of one architecture and what was published for them.

    settings: of its config, beyond width and start of the tables. l2: on the tables.
    best, log_loss: of the best run. mean: AUC over runs, where one is given.
    """

    l2: float
    best: float | None = None
    log_loss: float | None = None
    mean: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def auc(self) -> float | None:
        """The figure that means are compared with."""
        return self.mean or self.best


def _deep(dropout: float, *, batch_norm: bool = True, **settings: Any) -> dict[str, Any]:
    return {"mlp_dims": (400, 400, 400), "dropout": dropout, "batch_norm": batch_norm, **settings}


#: By registry name, cheapest first.
PUBLISHED: Mapping[str, Published] = {
    "deepfm": Published(0.05, 0.9842, 0.1482, 0.98395, _deep(0.2)),
    "dcn": Published(0.05, 0.9839, 0.1527, 0.9834, _deep(0.2, cross_layers=3)),
    "dcnv2": Published(0.05, 0.9845, 0.1491, 0.9838, _deep(0.4, cross_layers=4)),
    "gdcn": Published(0.05, settings=_deep(0.4, cross_layers=4)),
    "nfm": Published(1e-4, 0.9804, 0.2058, None, _deep(0.4, batch_norm=False)),
    "fibinet": Published(
        0.05, 0.9832, 0.1941, None, _deep(0.3, bilinear_type="all", reduction_ratio=2.0)
    ),
    "finalmlp": Published(
        0.05, 0.9861, 0.1484, None,
        {"mlp1_dims": (400,), "mlp2_dims": (100,), "mlp1_dropout": 0.4, "mlp2_dropout": 0.4, "batch_norm": True,
         "gate_dims": (400,), "context1": ("user",), "context2": ("item",), "fusion_heads": 5},
    ),
    "xdeepfm": Published(0.1, 0.9845, 0.1466, 0.9841, _deep(0.2, cin_dims=(64,))),
    "afn_plus": Published(
        1e-3, 0.9826, 0.2139, 0.9802,
        {"logarithmic_neurons": 1000, "mlp_dims": (400,), "dropout": 0.4, "deep_dims": (400, 400, 400), "deep_dropout": 0.2},
    ),
    "autoint_plus": Published(
        0.1, 0.9848, 0.1490, None,
        _deep(0.1, attention_layers=5, attention_dim=128, attention_heads=4, attention_residual=True, attention_scale=True,
              attention_layer_norm=True),
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of models and results; made where absent")
    parser.add_argument(
        "--models", type=lambda text: text.split(","), default=[name for name in PUBLISHED if name in MODELS], metavar="A,B,..."
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of each job")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    args = parser.parse_args()
    ready = [name for name in PUBLISHED if name in MODELS]
    if unknown := [name for name in args.models if name not in ready]:
        raise SystemExit(f"no settings or no model for {', '.join(unknown)}; choose from {', '.join(ready)}")
    frappe(args.out)
    wanted = [(name, seed) for name in args.models for seed in range(args.seeds)]
    in_parallel(train, [(args.out, name, seed) for name, seed in wanted if result_of(args.out, name, seed) is None], args)
    results = {name: [result_of(args.out, name, seed) for seed in range(args.seeds)] for name in args.models}
    print(f"{TITLE}\n\n{table(results)}")
    print("written to", write_json("frappe_zoo", {"title": TITLE, "training": TRAINING.to_dict(), "models": results}))


def in_parallel(work: Any, arguments: list[tuple[Any, ...]], args: argparse.Namespace) -> None:
    """Call `work` with each tuple in a process of its own, and print results as they arrive."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, context, initializer=torch.set_num_threads, initargs=(args.threads,)) as pool:
        for done in as_completed([pool.submit(work, *each) for each in arguments]):
            print(
                json.dumps({key: value for key, value in done.result().items() if not isinstance(value, list | dict)}), flush=True
            )


def frappe(folder: Path) -> EncodedDataset:
    """The encoded data, encoded by the first call."""
    paths = tuple(str(real_data("frappe_x1") / f"{split}.csv.gz") for split in ("train", "valid", "test"))
    columns = (ColumnConfig(name="label", role="label"), *(ColumnConfig(name=name, role="categorical") for name in FIELDS))
    config = DatasetConfig(name=TITLE, source=SourceConfig(paths=paths), columns=columns, split=SplitConfig(method="files"))
    return encode_dataset(config, folder / "data")


def start(name: str, dataset: EncodedDataset, seed: int, **settings: Any) -> CTRModel:
    """The untrained model with FuxiCTR's initial weights: Xavier-normal and no biases, tables near zero.

    `settings` replace the published ones.
    """
    published = {"embed_dim": 10, "embedding_init_std": 1e-4, **PUBLISHED[name].settings}
    config = MODELS[name].config_class(**(published | settings))
    torch.manual_seed(seed)
    model = build_model(config, dataset.schema)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if isinstance(model, FinalMLP):
        model.fusion.reset_products()
    return model


def train(folder: Path, name: str, seed: int) -> dict[str, Any]:
    """Train one model, keep it and its result in `folder`."""
    dataset, path = frappe(folder), model_file(folder, name, seed)
    state = path.with_suffix(".fit")
    model = start(name, dataset, seed)
    fitted = fit(model, dataset, TRAINING.replace(l2_embedding=PUBLISHED[name].l2, seed=seed), checkpoint_path=state)
    save_model(fitted.model, path)
    test = evaluate_model(fitted.model, dataset.split("test"))
    result = {
        "model": name, "seed": seed, "auc": test.auc, "log_loss": test.log_loss, "valid_auc": fitted.best_auc,
        "epochs": len(fitted.history), "seconds": fitted.seconds, "rows_per_second": fitted.rows_per_second,
        "parameters": sum(parameter.numel() for parameter in model.parameters()), "settings": model.config.to_dict(),
        "l2": PUBLISHED[name].l2, "history": fitted.history, "machine": machine(),
    }  # fmt: skip
    keep(path.with_suffix(".json"), result)
    for leftover in [state, *folder.glob(f"{state.stem}.best-*.safetensors")]:
        leftover.unlink(missing_ok=True)
    return result


def keep(path: Path, result: dict[str, Any]) -> None:
    """Write a result atomically."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(result, indent=1, default=float))
    unfinished.replace(path)


def model_file(folder: Path, name: str, seed: int) -> Path:
    """Path of a trained model."""
    return folder / f"{name}-{seed}.safetensors"


def result_of(folder: Path, name: str, seed: int) -> dict[str, Any] | None:
    """The result of a training that is finished, else None."""
    path = model_file(folder, name, seed).with_suffix(".json")
    return json.loads(path.read_text()) if path.exists() else None


def table(results: Mapping[str, list[Any]]) -> str:
    """One row a model."""
    rows = []
    for name, runs in results.items():
        aucs = np.array([run["auc"] for run in runs])
        loss, seconds, published = mean(runs, "log_loss"), mean(runs, "seconds"), PUBLISHED[name]
        figures = ["", "", "not published", ""]
        if published.auc is not None:
            verdict = "reproduced" if aucs.mean() >= published.auc - TOLERANCE else "below"
            kind = "mean" if published.mean else "best"
            figures = [
                f"{published.auc:.4f} ({kind})",
                f"{aucs.mean() - published.auc:+.4f}",
                verdict,
                f"{published.log_loss:.4f}",
            ]
        deviation = f"{aucs.std(ddof=1):.4f}" if len(aucs) > 1 else ""
        title = MODELS[name].title
        rows.append([title, f"{aucs.mean():.4f}", deviation, *figures[:3], f"{loss:.4f}", figures[3], f"{seconds:.0f}"])
    headers = ["model", "AUC", "sd", "published", "difference", "verdict", "log loss", "published (best)", "seconds a run"]
    return markdown_table(headers, rows)


def mean(runs: list[dict[str, Any]], key: str) -> float:
    """Mean of one figure over runs."""
    return float(np.mean([run[key] for run in runs]))


if __name__ == "__main__":
    main()

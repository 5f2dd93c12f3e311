"""ctrlab as a contender: its own `fit` over the same rows."""

import time
from typing import Any

import numpy as np
import torch
import zoo
from criteo_shaped import Rows

from ctrlab.data.batches import iterate_batches
from ctrlab.data.dataset import Split
from ctrlab.data.schema import FeatureSchema
from ctrlab.evaluation.prediction import predict_logits
from ctrlab.models.base import CTRModel, build_model
from ctrlab.models.configs import MODELS
from ctrlab.models.cost import measure_cost
from ctrlab.training.automatic import schedule_for
from ctrlab.training.configs import FitConfig
from ctrlab.training.loop import FitResult, epoch_seed, fit
from ctrlab.training.progress import FitProgress

SETTINGS: dict[str, dict[str, Any]] = {
    "deepfm": {},
    "dcn": {"cross_layers": zoo.CROSS_LAYERS},
    "dcnv2": {"cross_layers": zoo.CROSS_LAYERS},
    "gdcn": {"cross_layers": zoo.CROSS_LAYERS},
    "autoint_plus": {
        "attention_layers": zoo.ATTENTION["layers"],
        "attention_dim": zoo.ATTENTION["dim"],
        "attention_heads": zoo.ATTENTION["heads"],
    },
    "fibinet": {"bilinear_type": "interaction", "reduction_ratio": float(zoo.REDUCTION)},
    "nfm": {},
    "afn_plus": {"logarithmic_neurons": zoo.LOGARITHMIC_NEURONS, "deep_dims": zoo.MLP, "batch_norm": True},
}

#: Rows of a step.
BATCH_SIZE = 4096


class RowsDataset:
    """Rows as a dataset with the attributes that `fit` reads. No validation rows unless given."""

    def __init__(self, train: Rows, valid: Rows | None = None) -> None:
        names = tuple(f"f{field}" for field in range(len(train.field_dims)))
        self.schema = FeatureSchema(field_names=names, field_dims=train.field_dims, value_names=(), fingerprint="rows")
        parts = {"train": train, "valid": valid}
        self.parts = {name: split_of(name, rows) for name, rows in parts.items() if rows is not None}

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def split(self, name: str) -> Split:
        return self.parts[name]


def split_of(name: str, rows: Rows) -> Split:
    return Split(name, rows.ids, np.empty((len(rows), 0), np.float32), rows.labels)


def built(model: str, schema: FeatureSchema, **changes: Any) -> CTRModel:
    settings: dict[str, Any] = {"embed_dim": zoo.EMBED_DIM, "mlp_dims": zoo.MLP, "embedding_init_std": zoo.INIT_STD}
    settings |= SETTINGS[model] | changes
    settings["mlp_dims"] = tuple(settings["mlp_dims"])
    return build_model(MODELS[model].config_class(**settings), schema)


class Contender:
    """A ctrlab model over rows."""

    framework = "ctrlab"

    def __init__(
        self, model: str, rows: Rows, learning_rate: float, dtype: str = "float32", optimizer: str = "adam", l2: float = 0.0,
        **changes: Any,
    ) -> None:  # fmt: skip
        self.rows = rows
        training = {
            "epochs": 1, "monitor": "auc", "batch_size": BATCH_SIZE, "learning_rate": learning_rate, "optimizer": optimizer,
            "l2_embedding": l2,
        }  # fmt: skip
        self.config = fit_config(dtype, **training)
        self.model = built(model, RowsDataset(rows).schema, **changes)

    def timed(self, steps: int) -> float:
        """Rows a second over `steps` steps of `fit`, the first one, which allocates and chooses, not counted."""
        size = BATCH_SIZE
        rows = min(len(self.rows), (steps + 1) * size) // size * size
        some = Rows(self.rows.ids[:rows], self.rows.labels[:rows], self.rows.field_dims)
        seen: list[tuple[float, int]] = []

        def note(progress: FitProgress) -> None:
            seen.append((time.perf_counter(), progress.step))

        fit(self.model, RowsDataset(some), self.config, on_step=note)
        (first, first_step), (last, last_step) = seen[0], seen[-1]
        return (last_step - first_step) * size / (last - first)

    def epoch(self, rows: Rows, valid: Rows | None = None) -> FitResult:
        """As its users train: `fit`, over all rows."""
        return fit(self.model, RowsDataset(rows, valid), self.config)

    def dense_parameters(self) -> int:
        """Outside the tables."""
        return measure_cost(self.model).parameters_dense

    def macs(self) -> int:
        """Of a row, elementwise products included."""
        return measure_cost(self.model).macs


def order_of_rows(rows: Rows, config: FitConfig) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """(n,): the order in which `fit` goes through the rows in its first epoch."""
    numbers = Rows(np.arange(len(rows), dtype=np.int32)[:, None], rows.labels, (len(rows),))
    size = schedule_for(config, len(rows)).batch_size
    shuffled = iterate_batches(split_of("train", numbers), size, shuffle=True, seed=epoch_seed(config.seed, 0))
    return np.concatenate([fields.ids[:, 0] for fields, _ in shuffled]).astype(np.int64)


def fit_config(dtype: str, **settings: Any) -> FitConfig:
    """Training settings; bfloat16 where the engine has it."""
    if dtype == "float32":
        return FitConfig(evaluations_per_epoch=1, **settings)
    if "compute_dtype" not in FitConfig.__dataclass_fields__:
        raise SystemExit("this ctrlab trains in float32 only")
    return FitConfig(evaluations_per_epoch=1, **{"compute_dtype": dtype}, **settings)


def probabilities(model: CTRModel, rows: Rows) -> "np.ndarray[Any, Any]":
    """(n,)."""
    return torch.sigmoid(torch.from_numpy(predict_logits(model, split_of("test", rows)))).numpy()

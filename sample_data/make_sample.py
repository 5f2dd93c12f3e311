"""Regenerates the files of this folder: the table, the config that encodes it, and a DeepFM trained on it.

python sample_data/make_sample.py
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ctrlab.data.batches import iterate_batches
from ctrlab.data.configs import ColumnConfig, DatasetConfig, SourceConfig, SplitConfig
from ctrlab.data.dataset import EncodedDataset
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.data.synthetic import SyntheticConfig, write_sample
from ctrlab.evaluation.prediction import evaluate_model, predict_logits, to_tensors
from ctrlab.models.base import CTRModel, build_model
from ctrlab.models.checkpoint import save_model
from ctrlab.models.configs import DeepFMConfig
from ctrlab.services.models import MODEL_FILE
from ctrlab.services.sample import SAMPLE_CONFIG_FILE, SAMPLE_NAME, SAMPLE_TABLE
from ctrlab.training.configs import FitConfig
from ctrlab.training.loop import fit

FOLDER = Path(__file__).parent
#: Every setting is written out: another default must not give another sample.
SPLIT = SplitConfig(method="time", time_column="time", train=0.65, valid=0.1, test=0.15, finetune=0.1)
MODEL = DeepFMConfig(embed_dim=32, embedding_init_std=0.1, numeric_fields="embedding", mlp_dims=(96, 48))
FIT = FitConfig(
    epochs=10, batch_size=256, learning_rate=2e-3, optimizer="adam", l2_embedding=4e-3, l2_dense=0.0, clip_norm=10.0,
    monitor="log_loss", evaluations_per_epoch=1, patience=0, plateau_factor=0.5, warmup_steps=0, keep_initial=False, rows="train",
    seed=0, compute_dtype="float32", matrix_products="fixed", device="cpu",
)  # fmt: skip
#: The last hidden layer, how many of its units are raised, and how much more variance they then hold than all others together.
HIDDEN, HEAD, RAISED_UNITS, RAISED_VARIANCE = 2, 4, 12, 20.0


def main() -> None:
    """Write the three files and print what the model is worth."""
    torch.set_num_threads(1)  # the same order of summation on any machine
    synthetic = SyntheticConfig()
    table = write_sample(FOLDER / SAMPLE_TABLE, synthetic)
    config = dataset_config(synthetic)
    with tempfile.TemporaryDirectory() as folder:
        absolute = config.replace(source=config.source.replace(paths=(str(FOLDER / SAMPLE_TABLE),)))
        dataset = encode_dataset(absolute, Path(folder) / "encoded")
        torch.manual_seed(0)
        fitted = fit(build_model(MODEL, dataset.schema), dataset, FIT)
        print(*fitted.history, sep="\n")
        calibrate(fitted.model, dataset)
        before = predict_logits(fitted.model, dataset.split("test"))
        raise_idle_units(fitted.model, dataset)
        assert np.array_equal(before, predict_logits(fitted.model, dataset.split("test")))
        metrics = evaluate_model(fitted.model, dataset.split("test"))
    save_model(fitted.model, FOLDER / MODEL_FILE)
    (FOLDER / SAMPLE_CONFIG_FILE).write_text(config.to_json() + "\n")
    print(f"best step {fitted.best_step}, test part: {metrics}; AUC of the true probabilities on all rows {table.best_auc:.4f}")


def dataset_config(synthetic: SyntheticConfig) -> DatasetConfig:
    """How the table is encoded; its path is relative, because the folder differs between machines."""
    columns = [
        ColumnConfig(name="click", role="label"),
        ColumnConfig(name="time", role="timestamp", timestamp_format="iso"),
        *(ColumnConfig(name=name, role="numeric", transform="log") for name in synthetic.numeric_names),
        *(ColumnConfig(name=name, role="categorical", min_count=2) for name in synthetic.field_names),
        ColumnConfig(
            name=f"{synthetic.history_name}", role="list", separator="^", max_length=synthetic.history_length,
            shares=synthetic.history_of,
        ),
        ColumnConfig(name=f"{synthetic.leak_name}", role="ignore"),
    ]  # fmt: skip
    source = SourceConfig(paths=(SAMPLE_TABLE,), format="csv", header=True, delimiter=",")
    return DatasetConfig(name=SAMPLE_NAME, source=source, columns=tuple(columns), split=SPLIT)


def calibrate(model: CTRModel, dataset: EncodedDataset) -> None:
    """Set the bias so that the mean prediction on the training rows is their click rate, where log loss is least.

    Steps of 256 rows leave it some per cent beside that.
    """
    train = dataset.split("train")
    logits, clicks = predict_logits(model, train).astype(np.float64), float(np.mean(train.labels))
    shift = 0.0
    for _ in range(20):  # Newton's method
        predicted = 1 / (1 + np.exp(-logits - shift))
        shift += (clicks - float(predicted.mean())) / float((predicted * (1 - predicted)).mean())
    with torch.no_grad():
        model.get_parameter("linear.bias").add_(shift)


def raise_idle_units(model: CTRModel, dataset: EncodedDataset) -> None:
    """Raise the variance of the hidden units that fire least, and lower the weights that read them as much.

    A ReLU network computes the same with a unit c times as large and its outgoing weight c times as small: no prediction changes,
    not even in the last bit, for c is a power of two. The layer's leading directions are then those that do not matter.
    """
    hidden, head = model.get_submodule(f"mlp.{HIDDEN}"), model.get_submodule(f"mlp.{HEAD}")
    assert isinstance(hidden, nn.Linear) and isinstance(head, nn.Linear)
    outputs = outputs_of(model, hidden, dataset)
    idle = torch.relu(outputs).std(dim=0).mul(head.weight[0].abs()).argsort()[:RAISED_UNITS]
    variance = outputs.var(dim=0)
    others = variance.sum() - variance[idle].sum()
    scale = torch.ones_like(variance)
    scale[idle] = 2.0 ** torch.log2((RAISED_VARIANCE * others / RAISED_UNITS / variance[idle]).sqrt()).round()
    with torch.no_grad():
        hidden.weight.mul_(scale.unsqueeze(1))
        hidden.bias.mul_(scale)
        head.weight.div_(scale)


@torch.no_grad()
def outputs_of(model: CTRModel, layer: nn.Module, dataset: EncodedDataset) -> Tensor:
    """The layer's outputs (n, width) on the first training rows."""
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(output))
    for fields, _labels in iterate_batches(dataset.split("train"), 4096, shuffle=False, max_rows=20_480):
        model(to_tensors(fields, torch.device("cpu")))
    hook.remove()
    return torch.cat(seen)


if __name__ == "__main__":
    main()

"""Regenerates the files of this folder: the table, the config that encodes it, and a DeepFM trained on it.

python sample_data/make_sample.py
"""

import argparse
import tempfile
from pathlib import Path

import torch

from ctrlab.data.configs import SourceConfig, SplitConfig
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.data.synthetic import SyntheticConfig, write_sample
from ctrlab.data.tables.draft import draft_config
from ctrlab.data.tables.inspect import inspect_table
from ctrlab.evaluation.metrics import evaluate_model
from ctrlab.models.base import build_model
from ctrlab.models.checkpoint import save_model
from ctrlab.models.configs import DeepFMConfig
from ctrlab.services.models import MODEL_FILE
from ctrlab.services.sample import SAMPLE_CONFIG_FILE, SAMPLE_NAME
from ctrlab.training.configs import FitConfig
from ctrlab.training.loop import fit

FOLDER = Path(__file__).parent
TABLE = "ads.csv.gz"
SPLIT = SplitConfig(train=0.7, valid=0.1, test=0.1, finetune=0.1)


def main() -> None:
    """Write the three files and print their contents."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)  # the same order of summation on any machine

    table = write_sample(FOLDER / TABLE, SyntheticConfig())
    source = SourceConfig(paths=(str(FOLDER / TABLE),))
    draft = draft_config(inspect_table(source), SAMPLE_NAME).replace(split=SPLIT)
    with tempfile.TemporaryDirectory() as folder:
        dataset = encode_dataset(draft, Path(folder) / "encoded")
        torch.manual_seed(0)
        model = build_model(DeepFMConfig(embed_dim=16, mlp_dims=(256, 256, 256)), dataset.schema)
        fitted = fit(
            model,
            dataset,
            FitConfig(epochs=args.epochs, batch_size=args.batch_size, learning_rate=args.learning_rate, patience=8),
        )
        print(*fitted.history, sep="\n")
        metrics = evaluate_model(fitted.model, dataset.split("test"))
    save_model(fitted.model, FOLDER / MODEL_FILE)
    # The path is relative, because the folder differs between machines.
    portable = draft.replace(source=draft.source.replace(paths=(TABLE,)))
    (FOLDER / SAMPLE_CONFIG_FILE).write_text(portable.to_json() + "\n")
    print(f"test AUC {metrics.auc:.4f} after step {fitted.best_step}; true probabilities {table.best_auc:.4f} on all rows")


if __name__ == "__main__":
    main()

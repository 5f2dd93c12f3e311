"""A home with an encoded table and a trained model, made once a test run and copied for each test module that needs one."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import ctrlab
from ctrlab.services import datasets
from ctrlab.services.models import TrainConfig
from ctrlab.storage import Artifact
from ctrlab.training.configs import FitConfig

#: Of the small model: fields `site` and `ad`, one numeric value, layers mlp.0 and mlp.2.
SETTINGS = {"embed_dim": 6, "mlp_dims": [16, 12]}


@dataclass(frozen=True)
class SmallLab:
    """A lab whose dataset and DeepFM are ready."""

    lab: ctrlab.Lab
    dataset: Artifact
    model: Artifact


def write_table(path: Path, rows: int = 3000, seed: int = 0) -> Path:
    """A click log as CSV with columns click, site, ad and price, of which all three tell something about the click."""
    random = np.random.default_rng(seed)
    site, ad, price = random.integers(0, 30, rows), random.zipf(1.5, rows) % 200, random.exponential(2.0, rows)
    logit = np.where(site % 3 == 0, 1.0, -1.0) + np.where(ad % 2 == 0, 0.8, -0.8) + 0.3 * (price - 2)
    clicked = random.random(rows) < 1 / (1 + np.exp(-logit))
    pd.DataFrame(
        {"click": clicked.astype(int), "site": [f"s{i}" for i in site], "ad": [f"a{i}" for i in ad], "price": price}
    ).to_csv(path, index=False)
    return path


def encoded(lab: ctrlab.Lab, path: Path, name: str = "clicks") -> Artifact:
    """The dataset of a raw file with the settings that its inspection suggests."""
    return lab.encode(datasets.draft_config(datasets.inspect_source(ctrlab.SourceConfig(paths=(str(path),))), name))


def make_small_home(folder: Path) -> dict[str, str]:
    """Fill `folder` with a raw table and a home; returns the ids of its dataset and its model."""
    folder.mkdir(exist_ok=True)
    with ctrlab.Lab(folder / "home") as lab:
        dataset = encoded(lab, write_table(folder / "clicks.csv"))
        fit = FitConfig(batch_size=256, learning_rate=3e-3)
        model = lab.train(TrainConfig(dataset_id=dataset.id, architecture="deepfm", model=SETTINGS, fit=fit))
        return {"dataset": dataset.id, "model": model.id}


def copied(folder: Path, ids: dict[str, str], home: Path) -> SmallLab:
    """A lab on a copy of the home that `make_small_home` made."""
    shutil.copytree(folder / "home", home)
    lab = ctrlab.Lab(home)
    artifacts = lab.workspace.store.artifacts
    return SmallLab(lab, artifacts.get(ids["dataset"]), artifacts.get(ids["model"]))

"""Workspaces made in milliseconds for the tests of pages and for the slider benchmark: a real store, spectra drawn by formula."""

from pathlib import Path
from typing import Any

import numpy as np

from ctrlab.data.schema import FeatureSchema
from ctrlab.decomposition.spectrum import LayerSpectrum, save_spectra
from ctrlab.models.base import build_model
from ctrlab.models.configs import DeepFMConfig
from ctrlab.models.cost import measure_cost
from ctrlab.models.profiling import profile_model
from ctrlab.services.workspace import Workspace, open_workspace
from ctrlab.storage import Artifact, NewArtifact


def deepfm_workspace(
    home: Path, *, num_tables: int = 26, mlp_dims: tuple[int, ...] = (400, 400, 400, 400), gradients: bool = False
) -> dict[str, str]:
    """A dataset, an original DeepFM and its spectra; returns their ids by kind.

    Half of the tables have effective rank 2, and so have all linear layers but the first, as on real click logs.

    Args:
        gradients: the spectra also hold gradients of the loss, equal in all directions.
    """
    workspace = open_workspace(home)
    schema = FeatureSchema(
        field_names=tuple(f"C{number + 1}" for number in range(num_tables)),
        field_dims=tuple(int(dim) for dim in np.geomspace(40, 40_000, num_tables)),
        value_names=("I1", "I2"),
        fingerprint="synthetic",
    )
    dataset = workspace.store.artifacts.add(NewArtifact(
        "dataset", "Synthetic clicks", summary={
            "rows": {"train": 80_000, "valid": 10_000, "test": 10_000}, "ctr": {"train": 0.2, "valid": 0.2, "test": 0.2},
            "fields": [], "size_bytes": 1, "fingerprint": schema.fingerprint, "schema": schema.to_dict(),
        },
    ))  # fmt: skip
    model = build_model(DeepFMConfig(mlp_dims=mlp_dims), schema)
    profile = profile_model(model)
    cost = measure_cost(model).to_dict()
    original = workspace.store.artifacts.add(NewArtifact(
        "model", "DeepFM", parents=[dataset.id],
        config={"dataset_id": dataset.id, "architecture": "deepfm", "model": model.config.to_dict()},
        summary={"role": "original", "architecture": "DeepFM", "fingerprint": schema.fingerprint, "profile": profile.to_dict(), "cost": cost,
                 "cost_serving": cost},
    ))  # fmt: skip
    folder = home / "spectra-to-file"
    drawn = {layer.layer_name: _spectrum(number, layer) for number, layer in enumerate(profile.compressible)}
    if gradients:
        drawn = {name: spectrum.weighted_by(1e-3 * np.eye(len(spectrum.mean))) for name, spectrum in drawn.items()}
    save_spectra(folder, drawn)
    spectra = workspace.store.artifacts.add(NewArtifact(
        "spectra", "Spectra of DeepFM", parents=[original.id], config={"model_id": original.id},
        summary={"num_layers": len(profile.compressible), "calibration_rows": 80_000, "split": "train"}, files_from=folder,
    ))  # fmt: skip
    return {"dataset": dataset.id, "model": original.id, "spectra": spectra.id}


def _spectrum(number: int, layer: Any) -> LayerSpectrum:
    width = layer.out_features
    decay = 0.3 if layer.kind == "linear" or number % 2 else 0.8
    eigenvalues = np.maximum(decay ** np.arange(width, dtype=np.float64), 1e-9)
    return LayerSpectrum(
        layer_name=layer.layer_name, kind=layer.kind, eigenvalues=eigenvalues, eigenvectors=np.eye(width), mean=np.zeros(width),
        num_samples=80_000, weight_singular_values=np.linspace(3.0, 1.0, min(layer.in_features, width)),
    )  # fmt: skip


def add_compressed(
    workspace: Workspace, ids: dict[str, str], name: str = "DeepFM, AFM", ranks: int = 64, compressed_profile: bool = False
) -> Artifact:
    """A compressed model of `ids`, four times smaller by its records."""
    original = workspace.store.artifacts.get(ids["model"])
    smaller = {key: value // 4 for key, value in original.summary["cost"].items()}
    return workspace.store.artifacts.add(NewArtifact(
        "model", name, parents=[ids["model"], ids["spectra"]],
        config={**original.config, "original_id": ids["model"], "spectra_id": ids["spectra"],
                "compression": {"method": "afm", "bottleneck": "none", "finetune": {"epochs": 1},
                                "plan": {"ranks": [{"layer_name": "mlp.2", "rank": ranks}]}}},
        summary={
            **original.summary, "role": "compressed", "cost": smaller, "cost_serving": smaller,
            "profile": {**original.summary["profile"], "compressed": compressed_profile},
        },
    ))  # fmt: skip


def add_evaluation(workspace: Workspace, model_id: str, *, auc: float, speed: float = 1.0) -> Artifact:
    """A measurement of a model and a timing of it with its original; `speed` scales its throughput."""
    add_timing(workspace, {workspace.store.artifacts.get(model_id).config.get("original_id", model_id): 1.0, model_id: speed})
    metrics = {
        "auc": auc,
        "log_loss": 1.2 - auc,
        "calibration_ratio": 1.01,
        "calibration_error": 0.004,
        "num_rows": 10_000,
        "num_clicks": 2500,
    }
    return workspace.store.artifacts.add(NewArtifact(
        "evaluation", "Measurement", parents=[model_id], config={"model_ids": [model_id]},
        summary={"split": "test", "metrics": metrics},
    ))  # fmt: skip


def add_timing(workspace: Workspace, speeds: dict[str, float]) -> Artifact:
    """A timing of models together; `speeds` scale their throughput."""
    timings = {
        model_id: {
            str(batch): {
                "p50_ms": batch / 100 / speed, "p99_ms": batch / 80 / speed, "rows_per_second": 1e5 * speed,
                "rounds_ms": [batch / 100 / speed * noise for noise in (1.0, 1.01, 0.99, 1.0, 1.02, 1.0, 0.98, 1.0, 1.0)],
            }
            for batch in (1, 256, 4096)
        }
        for model_id, speed in speeds.items()
    }  # fmt: skip
    return workspace.store.artifacts.add(
        NewArtifact("timing", "Timing", parents=list(speeds), summary={"latency": {"torch": timings, "onnx": timings}})
    )

"""Spectra: compute the covariance spectrum of every layer's outputs and every table, and read it back."""

from dataclasses import dataclass

import pandas as pd

from ctrlab.config import Config, option
from ctrlab.decomposition.spectrum import LayerSpectrum, load_spectra
from ctrlab.plans.estimates import has_gradients
from ctrlab.plans.headroom import Headroom, headroom
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.models import model_profile, require_artifact
from ctrlab.services.of_model import newest_of_model, submit_for_model
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact


@JOB_HANDLERS.register(
    "spectra", builder="ctrlab.services.work.spectra:run", title="Spectra", description="PCA of every layer's outputs."
)
@dataclass(frozen=True, kw_only=True)
class SpectraConfig(Config):
    """Which model's outputs, over which rows."""

    model_id: str
    split: str = option("train", choices=("train", "valid", "finetune"), help="Rows whose layer outputs are decomposed.")
    max_rows: int | None = option(None, minimum=1, label="Calibration rows", help="Empty for every row of the split.")
    tolerance: float | None = option(
        None, minimum=1e-4, maximum=1.0, label="Sampling error",
        help="Stop once more rows would lower a truncation's error by less than this share, e.g. 0.01; empty for no early end.",
    )  # fmt: skip
    loss_gradients: bool = option(
        True, advanced=True,
        help="Also collect how much the log loss depends on each output, by a backward pass over at most 65,536 rows: "
        "loss-weighted AFM needs it, and it estimates the loss of every rank.",
    )  # fmt: skip


def submit_spectra(workspace: Workspace, config: SpectraConfig) -> str:
    """Queue the decomposition; the job's result holds the new `spectra` id."""
    return submit_for_model(workspace, "spectra", "Spectra of {model}", config)


def latest_spectra(workspace: Workspace, model_id: str) -> Artifact | None:
    """The newest spectra of a model, if any were computed."""
    return newest_of_model(workspace, "spectra", model_id)


def load_layer_spectra(workspace: Workspace, spectra_id: str) -> dict[str, LayerSpectrum]:
    """Every layer's spectrum by layer name, in the model's order, without eigenvectors."""
    return load_spectra(require_artifact(workspace, spectra_id, "spectra").path)


def has_loss_estimates(workspace: Workspace, spectra_id: str) -> bool:
    """Whether the spectra hold what the loss's gradients say of every layer's ranks."""
    artifact = require_artifact(workspace, spectra_id, "spectra")
    return has_gradients(model_profile(workspace, artifact.config["model_id"]), load_spectra(artifact.path))


def spectra_headroom(workspace: Workspace, spectra_id: str, variance: float = 0.95) -> Headroom | None:
    """How much smaller the model of these spectra can plausibly be; None where no layer has a spectrum."""
    artifact = require_artifact(workspace, spectra_id, "spectra")
    profile = model_profile(workspace, artifact.config["model_id"])
    return headroom(profile, load_layer_spectra(workspace, spectra_id), variance)


def spectra_table(workspace: Workspace, spectra_id: str) -> pd.DataFrame:
    """One row a layer: layer, kind, in_features, out_features, k90, k95, k99, effective_rank, break_even, loss_k95.

    loss_k95: nats of log loss that rank k95 of this layer alone is expected to cost; None where no gradients were collected.
    """
    artifact = require_artifact(workspace, spectra_id, "spectra")
    profile = model_profile(workspace, artifact.config["model_id"])
    rows = []
    for name, spectrum in load_layer_spectra(workspace, spectra_id).items():
        layer = profile.by_name[name]
        ranks = {f"k{percent}": spectrum.rank_for(percent / 100) for percent in (90, 95, 99)}
        rows.append(
            {"layer": name, "kind": layer.kind, "in_features": layer.in_features, "out_features": layer.out_features, **ranks,
             "effective_rank": round(spectrum.effective_rank, 2), "break_even": round(layer.break_even, 1),
             "loss_k95": spectrum.loss_increase(ranks["k95"])}
        )  # fmt: skip
    return pd.DataFrame(rows)

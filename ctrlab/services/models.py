"""Models: queue a training, import a ctrlab checkpoint, list and export stored models."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ctrlab.config import Config, option
from ctrlab.data.schema import FeatureSchema
from ctrlab.errors import ConfigError, CtrlabError, DataError
from ctrlab.models.configs import MODELS, ModelConfig
from ctrlab.models.header import read_model_header
from ctrlab.models.profile import ModelProfile
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.inspector import inspector
from ctrlab.services.paths import input_path
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact
from ctrlab.training.batch_norm import one_row_fault
from ctrlab.training.configs import FitConfig

#: What a stored model is among the arms of a comparison: trained alone, compressed, fine-tuned without compression, or a smaller
#: model of the same architecture trained from scratch.
ModelRole = Literal["original", "compressed", "control", "from_scratch"]

#: Inside a model artifact's folder: the trainable form, and the folded form for serving.
MODEL_FILE = "model.safetensors"
SERVING_FILE = "serving.safetensors"
#: With the weights of a compressed outside model: ranks, sizes and what was skipped, for `ctrlab.restore`.
DESCRIPTION_FILE = "model.json"
#: Inside an evaluation artifact's folder: what ONNX Runtime was measured with.
ONNX_FILE = "model.ids.onnx"
#: Inside a serving artifact's folder: the form that multiplies integers.
INTEGERS_FILE = "model-integers.onnx"


@JOB_HANDLERS.register(
    "train", builder="ctrlab.services.work.train:run", title="Train", description="Train an architecture on a dataset."
)
@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """Settings of a training job. `model` holds the settings of `architecture`'s own config class.

    >>> config = TrainConfig(dataset_id="ds-1", architecture="deepfm", model={"embed_dim": 8, "mlp_dims": [64, 32]})
    >>> config.model_config().mlp_dims, config.fit.learning_rate
    ((64, 32), 0.002)
    """

    dataset_id: str
    architecture: str
    model: dict[str, Any] = option(default_factory=dict)
    fit: FitConfig = option(default_factory=FitConfig)
    max_parameters: int | None = option(
        None, minimum=1, help="Scale all widths down by one factor until the model has at most this many; empty for no limit."
    )
    teacher_id: str = option("", help="Model whose probabilities `fit.distillation` uses; of the same dataset.")
    name: str = option("", help="Shown in lists; empty for a name made from architecture and dataset.")

    def faults(self) -> list[str]:
        """An unknown architecture, settings that its config class refuses, or distillation without a teacher."""
        faults = []
        if bool(self.teacher_id) != bool(self.fit.distillation):
            faults.append("a teacher and a distillation above 0 go together; give both, or neither")
        try:
            self.model_config()
        except CtrlabError as error:
            faults.append(str(error))
        return faults

    def model_config(self) -> ModelConfig:
        """`model` as the architecture's own config."""
        config: ModelConfig = MODELS[self.architecture].config_class.from_dict(self.model)  # type: ignore[assignment]
        return config


@JOB_HANDLERS.register(
    "import", builder="ctrlab.services.work.import_model:run", title="Import", description="Take in a ctrlab checkpoint."
)
@dataclass(frozen=True, kw_only=True)
class ImportConfig(Config):
    """A checkpoint file that ctrlab wrote, for a dataset of the same fingerprint."""

    dataset_id: str
    path: str
    name: str = ""


def submit_train(workspace: Workspace, config: TrainConfig) -> str:
    """Queue a training; the job's result holds the new `model` id.

    Raises:
        ConfigError: the architecture needs fields that the dataset has not, or batch normalisation meets batches of one row.
    """
    dataset = require_artifact(workspace, config.dataset_id, "dataset")
    if config.teacher_id:
        require_artifact(workspace, config.teacher_id, "model")
    model = config.model_config()
    faults = model.schema_faults(schema_of(dataset))
    if getattr(model, "batch_norm", False) and (fault := one_row_fault(dataset.summary["rows"].get(config.fit.rows), config.fit)):
        faults = [*faults, fault]
    if faults:
        raise ConfigError("; ".join(faults))
    title = config.name or default_name(workspace, config)
    return workspace.store.jobs.submit("train", f"Train {title}", config.to_dict()).id


def default_name(workspace: Workspace, config: TrainConfig) -> str:
    """The name of a model that gets none: "DeepFM on Avazu"."""
    return f"{MODELS[config.architecture].title} on {workspace.store.artifacts.get(config.dataset_id).name}"


def import_checkpoint(
    workspace: Workspace, dataset_id: str, path: Path, name: str = "", *, in_child: bool = False, uploaded: bool = False
) -> str:
    """Check a checkpoint's header now (no pickle, this schema), then queue its import; returns the job id.

    Args:
        in_child: read the header in a child process: for the dashboard.
        uploaded: the file is in the workspace's upload folder.
    """
    dataset = require_artifact(workspace, dataset_id, "dataset")
    path = input_path(workspace, path, uploaded=uploaded)
    fingerprint = inspector(workspace).fingerprint(path) if in_child else read_model_header(path).schema.fingerprint
    wanted = dataset.summary.get("fingerprint")
    if fingerprint != wanted:
        raise DataError(
            f"{path.name} was trained on data of another encoding (fingerprint {fingerprint}, "
            f"this dataset has {wanted}); choose the dataset it was trained on"
        )
    config = ImportConfig(dataset_id=dataset_id, path=str(path), name=name)
    return workspace.store.jobs.submit("import", f"Import {path.name}", config.to_dict()).id


def schema_of(dataset: Artifact) -> FeatureSchema:
    """The fields of a dataset artifact."""
    return FeatureSchema.from_dict(dataset.summary["schema"])


def list_models(workspace: Workspace, dataset_id: str | None = None) -> list[Artifact]:
    """Original and compressed models, newest first; of one dataset when given."""
    models = workspace.store.artifacts.list(kind="model")
    return [model for model in models if dataset_id is None or model.config.get("dataset_id") == dataset_id]


def models_of_rows(workspace: Workspace, dataset_id: str | None, model_id: str | None = None) -> list[Artifact]:
    """The models that can be measured on the same rows, newest first.

    Those of the dataset; without one, the original of the given model and all that were compressed from it; else all models.
    """
    if dataset_id is not None or model_id is None:
        return list_models(workspace, dataset_id)
    original = original_of(workspace, require_artifact(workspace, model_id, "model"))
    return [model for model in list_models(workspace) if original.id in (model.id, model.config.get("original_id"))]


def model_profile(workspace: Workspace, model_id: str) -> ModelProfile:
    """The layers and costs of a stored model, without loading it."""
    return ModelProfile.from_dict(require_artifact(workspace, model_id, "model").summary["profile"])


def model_file(model: Artifact) -> Path:
    """The checkpoint inside a model artifact."""
    return model.path / MODEL_FILE


def role_of(model: Artifact) -> ModelRole:
    """What a stored model is among the arms of a comparison, as it was filed."""
    role: ModelRole = model.summary["role"]
    return role


def original_of(workspace: Workspace, model: Artifact) -> Artifact:
    """The uncompressed model that a compressed one came from; an original is its own."""
    original_id = model.config.get("original_id")
    return workspace.store.artifacts.get(original_id) if original_id else model


def require_artifact(workspace: Workspace, artifact_id: str, kind: str) -> Artifact:
    """The artifact, which must be of `kind`; UnknownNameError or ConfigError otherwise."""
    artifact = workspace.store.artifacts.get(artifact_id)
    if artifact.kind != kind:
        raise ConfigError(f"{artifact_id} is a {artifact.kind}, not a {kind}; give the id of a {kind}")
    return artifact


def require_models(workspace: Workspace, model_ids: Sequence[str]) -> list[Artifact]:
    """The models with these ids, in their order, by one query; UnknownNameError or ConfigError as `require_artifact`."""
    known = {model.id: model for model in workspace.store.artifacts.find(model_ids)}
    missing = next((model_id for model_id in model_ids if model_id not in known or known[model_id].kind != "model"), None)
    if missing is not None:
        require_artifact(workspace, missing, "model")
    return [known[model_id] for model_id in model_ids]

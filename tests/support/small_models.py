"""Small models and in-memory data for the tests of decomposition, evaluation and compression."""

import hashlib
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from ctrlab.data.dataset import Split
from ctrlab.data.schema import PADDING_ID, FeatureSchema, Fields, ListFeature
from ctrlab.decomposition.collect import collect_spectra
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.models.base import CTRModel, build_model
from ctrlab.models.configs import MODELS, ModelConfig

torch.set_num_threads(1)

SCHEMA = FeatureSchema(
    field_names=("site", "device", "ad"), field_dims=(50, 40, 300), value_names=("age", "price"), fingerprint="small",
    lists=(ListFeature(name="seen", length=4, shares="ad"), ListFeature(name="tags", length=3, dim=60)),
)  # fmt: skip
#: What detailed tests run over; contract suites run over every registered model.
ARCHITECTURES = ("deepfm", "dcn")
#: Settings of single architectures that make them small.
SMALL_SETTINGS: dict[str, dict] = {
    "finalmlp": {"mlp1_dims": (12, 8), "mlp2_dims": (6,), "gate_dims": (5,), "fusion_heads": 2},
    "din": {"attention_dims": (10, 6)},
    "gru4rec": {"hidden_dim": 7},
    "bst": {"num_heads": 2, "num_blocks": 2, "hidden_dim": 14},
    "afn": {"logarithmic_neurons": 8},
    "afn_plus": {"logarithmic_neurons": 8, "deep_dims": (9, 7)},
    "dlrm": {"bottom_dims": (5,)},
    "xdeepfm": {"cin_dims": (5, 4)},
    "masknet": {"num_blocks": 2, "block_dim": 5},
    "autoint": {"attention_dim": 8},
    "autoint_plus": {"attention_dim": 8, "attention_layer_norm": True, "linear_term": True},
}


def small_config(architecture: str, **settings) -> ModelConfig:
    """The architecture's config from those of `settings` that it has; not every architecture has an MLP."""
    config_class = MODELS[architecture].config_class
    known = {option.name for option in fields(config_class)}
    settings = SMALL_SETTINGS.get(architecture, {}) | settings
    return config_class(**{name: value for name, value in settings.items() if name in known})


def make_model(architecture: str, seed: int = 0, schema: FeatureSchema = SCHEMA, *, noise: float = 0.05, **settings) -> CTRModel:
    """A model with all parameters away from their special initial values."""
    settings = {"embed_dim": 8, "mlp_dims": (32, 24), "embedding_init_std": 0.3} | settings
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(small_config(architecture, **settings), schema)
        perturb_(model, noise)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_(std=0.5)
                module.running_var.uniform_(0.5, 2.0)
    return model.eval()


def perturb_(model: torch.nn.Module, std: float, seed: int = 1) -> None:
    """Add noise to every parameter, as fine-tuning would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype), alpha=std)


def random_fields(num_rows: int, seed: int = 0, schema: FeatureSchema = SCHEMA) -> Fields:
    """Rows with Zipf-like ids and lists of all lengths."""
    random = np.random.default_rng(seed)
    ids = [np.minimum(random.zipf(1.3, num_rows), dim) - 1 for dim in schema.field_dims]
    values = random.normal(size=(num_rows, len(schema.value_names)))
    ids = np.stack(ids, 1) if ids else np.empty((num_rows, 0))
    # Lists are drawn last, and by themselves: the other fields are the same with and without them.
    lists = np.concatenate(
        [_random_list(seed, schema, feature, num_rows) for feature in schema.lists] or [np.empty((num_rows, 0))], 1
    )
    return Fields(
        torch.tensor(ids, dtype=torch.int32), torch.tensor(values, dtype=torch.float32), torch.tensor(lists, dtype=torch.int32)
    )


def _random_list(seed: int, schema: FeatureSchema, feature: ListFeature, num_rows: int) -> np.ndarray:
    random = np.random.default_rng((seed, 1))
    dim = schema.table_dims[schema.table_of(feature)]
    ids = np.minimum(random.zipf(1.3, (num_rows, feature.length)), dim) - 1
    ids[ids == PADDING_ID] = 0
    lengths = random.integers(0, feature.length, num_rows, endpoint=True)
    return np.where(np.arange(feature.length) < lengths[:, None], ids, PADDING_ID)


@dataclass
class MemoryDataset:
    """An EncodedDataset in memory whose labels depend on the fields."""

    schema: FeatureSchema = SCHEMA
    num_train: int = 1200
    seed: int = 0
    num_valid: int = 400
    parts: dict[str, Split] = field(init=False)

    def __post_init__(self) -> None:
        sizes = {"train": self.num_train, "valid": self.num_valid}
        self.parts = {name: self._part(name, size, self.seed + number) for number, (name, size) in enumerate(sizes.items())}

    def _part(self, name: str, size: int, seed: int) -> Split:
        fields = random_fields(size, seed, self.schema)
        score = (fields.ids[:, 0] % 3 - 1).numpy() + (fields.values[:, 0].numpy() if fields.values.shape[1] else 0)
        clicks = np.random.default_rng(seed).random(size) < 1 / (1 + np.exp(1 - score))
        return Split(name, fields.ids.numpy(), fields.values.numpy(), clicks.astype(np.uint8), fields.lists.numpy())

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def split(self, name: str) -> Split:
        return self.parts[name]

    def num_rows(self, name: str) -> int:
        return len(self.parts[name])

    def counts(self, number: int) -> np.ndarray:
        return np.bincount(self.parts["train"].ids[:, number], minlength=self.schema.field_dims[number])

    def list_counts(self, number: int) -> np.ndarray:
        feature = self.schema.lists[number]
        elements = self.parts["train"].lists[:, self.schema.places_of(feature)]
        dim = self.schema.table_dims[self.schema.table_of(feature)]
        return np.bincount(elements[elements != PADDING_ID], minlength=dim)

    def fields(self, name: str = "train") -> Fields:
        part = self.parts[name]
        return Fields(torch.from_numpy(part.ids), torch.from_numpy(part.values), torch.from_numpy(part.lists))


_spectra: dict[str, dict[str, LayerSpectrum]] = {}


def spectra_of(
    model: CTRModel, dataset: MemoryDataset | None = None, *, loss_gradients: bool = False
) -> dict[str, LayerSpectrum]:
    """{layer: spectrum} on `dataset`; on the usual one they are computed once in a test process for equal models."""
    if dataset is not None:
        return collect_spectra(model, dataset, loss_gradients=loss_gradients)
    key = f"{digest_of(model)} {loss_gradients}"
    if key not in _spectra:
        _spectra[key] = collect_spectra(model, MemoryDataset(model.schema), loss_gradients=loss_gradients)
    return dict(_spectra[key])


def digest_of(model: CTRModel) -> str:
    """Digest of all that the numbers of a model depend on: classes, settings, parameters and buffers."""
    made_of = hashlib.sha256(f"{model!r}{model.config!r}{model.schema!r}{model.structure!r}{model.training}".encode())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        made_of.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        made_of.update(tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
    return made_of.hexdigest()


def varied(name: str, number: int, *settings: tuple) -> tuple:
    """Combination `number`, 0 or 1, of settings with two values each for one architecture, instead of their whole product.

    The two combinations differ in every setting, so every architecture meets every value. Which values go together changes from one
    architecture to the next, so every pair of values meets in some.
    """
    architecture = list(MODELS.names()).index(name)
    chosen = [number ^ (architecture >> place & 1 if place else 0) for place in range(len(settings))]
    return tuple(values[choice] for values, choice in zip(settings, chosen, strict=True))


def logits(model: CTRModel, fields: Fields) -> Tensor:
    with torch.no_grad():
        return model(fields)

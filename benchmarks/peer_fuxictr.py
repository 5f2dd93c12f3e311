"""The zoo of FuxiCTR, composed from the layers of its package, which ships no models, as its repository composes them.

`make_step` trains as its `BaseModel.train_step` does: gradients clipped at norm 10, dense Adam.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zoo
from criteo_shaped import Rows
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import (
    BilinearInteraction,
    CrossNet,
    CrossNetV2,
    FactorizationMachine,
    FeatureEmbedding,
    InnerProductInteraction,
    LogisticRegression,
    MLP_Block,
    ScaledDotProductAttention,
    SqueezeExcitation,
)
from fuxictr.pytorch.models import BaseModel
from fuxictr_deepfm import feature_map_of, write_npz
from torch import Tensor, nn

MLP = list(zoo.MLP)
INIT = f"partial(nn.init.normal_, std={zoo.INIT_STD})"


class Model(BaseModel):  # type: ignore[misc]
    """A FuxiCTR model whose `logits` are of the vectors (B, M, d) and the columns."""

    def __init__(self, feature_map: Any, learning_rate: float, folder: str) -> None:
        super().__init__(feature_map, verbose=0, metrics=["AUC", "logloss"], model_root=folder, model_id="model")
        self.embedding_layer = FeatureEmbedding(feature_map, zoo.EMBED_DIM, embedding_initializer=INIT)
        self.width = feature_map.sum_emb_out_dim()
        self.num_fields = feature_map.num_fields
        self.build()
        self.compile("adam", "binary_crossentropy", learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def build(self) -> None:
        """Make the layers."""
        raise NotImplementedError

    def logits(self, columns: Mapping[str, Tensor], e: Tensor) -> Tensor:
        """-> (B, 1)."""
        raise NotImplementedError

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        columns = self.get_inputs(inputs)
        return {"y_pred": self.output_activation(self.logits(columns, self.embedding_layer(columns)))}


class DeepFM(Model):
    def build(self) -> None:
        self.fm = FactorizationMachine(self.feature_map)
        self.mlp = MLP_Block(self.width, MLP, output_dim=1)

    def logits(self, columns: Mapping[str, Tensor], e: Tensor) -> Tensor:
        return self.fm(columns, e) + self.mlp(e.flatten(1))


class Crossed(Model):
    """Crosses beside an MLP, joined by one linear layer."""

    def make_cross(self) -> nn.Module:
        raise NotImplementedError

    def build(self) -> None:
        self.cross = self.make_cross()
        self.mlp = MLP_Block(self.width, MLP)
        self.fc = nn.Linear(self.width + MLP[-1], 1)

    def logits(self, columns: Mapping[str, Tensor], e: Tensor) -> Tensor:
        flat = e.flatten(1)
        return self.fc(torch.cat([self.cross(flat), self.mlp(flat)], dim=-1))


class DCN(Crossed):
    def make_cross(self) -> nn.Module:
        return CrossNet(self.width, zoo.CROSS_LAYERS)


class DCNv2(Crossed):
    def make_cross(self) -> nn.Module:
        return CrossNetV2(self.width, zoo.CROSS_LAYERS)


class GatedCross(nn.Module):
    """The cross layers of its GDCN: x_0 * (W x + b) * sigmoid(G x) + x."""

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        self.w = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(num_layers))
        self.wg = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(num_layers))
        self.b = nn.ParameterList(torch.zeros(width) for _ in range(num_layers))

    def forward(self, x0: Tensor) -> Tensor:
        x = x0
        for w, wg, b in zip(self.w, self.wg, self.b, strict=True):
            x = x0 * (w(x) + b) * torch.sigmoid(wg(x)) + x
        return x


class GDCN(Crossed):
    def make_cross(self) -> nn.Module:
        return GatedCross(self.width, zoo.CROSS_LAYERS)


class SelfAttention(nn.Module):
    """The layer of its AutoInt around its `ScaledDotProductAttention`; equal widths need no projection of the residual."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.attention = ScaledDotProductAttention()

    def forward(self, e: Tensor) -> Tensor:
        split = [part(e).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)]
        renewed, _ = self.attention(*split)
        return (renewed.transpose(1, 2).flatten(2) + e).relu()


class AutoIntPlus(Model):
    def build(self) -> None:
        self.attention = nn.Sequential(
            *(SelfAttention(zoo.ATTENTION["dim"], zoo.ATTENTION["heads"]) for _ in range(zoo.ATTENTION["layers"]))
        )
        self.fc = nn.Linear(self.num_fields * zoo.ATTENTION["dim"], 1)
        self.mlp = MLP_Block(self.width, MLP, output_dim=1)

    def logits(self, columns: Mapping[str, Tensor], e: Tensor) -> Tensor:
        return self.fc(self.attention(e).flatten(1)) + self.mlp(e.flatten(1))


class FiBiNET(Model):
    """With the package's bilinear layer that loops over the pairs.

    Its repository has the other one, `BilinearInteractionV2`, which copies every matrix for every row: far slower, and some ten
    gigabytes at this size.
    """

    def build(self) -> None:
        self.lr = LogisticRegression(self.feature_map)
        self.senet = SqueezeExcitation(self.num_fields, zoo.REDUCTION)
        self.interaction = BilinearInteraction(self.num_fields, zoo.EMBED_DIM, "field_interaction")
        self.mlp = MLP_Block(self.num_fields * (self.num_fields - 1) * zoo.EMBED_DIM, MLP, output_dim=1)

    def logits(self, columns: Mapping[str, Tensor], e: Tensor) -> Tensor:
        pairs = torch.cat([self.interaction(e), self.interaction(self.senet(e))], dim=1)
        return self.lr(columns) + self.mlp(pairs.flatten(1))


class NFM(Model):
    def build(self) -> None:
        self.lr = LogisticRegression(self.feature_map)
        self.pooling = InnerProductInteraction(self.num_fields, output="bi_interaction")
        self.mlp = MLP_Block(zoo.EMBED_DIM, MLP, output_dim=1)

    def logits(self, columns: Mapping[str, Tensor], e: Tensor) -> Tensor:
        return self.lr(columns) + self.mlp(self.pooling(e))


class AFNPlus(Model):
    def build(self) -> None:
        neurons = zoo.LOGARITHMIC_NEURONS
        self.log_norm, self.exp_norm = nn.BatchNorm1d(self.num_fields), nn.BatchNorm1d(neurons)
        self.powers = nn.Linear(self.num_fields, neurons, bias=False)
        self.dense = MLP_Block(zoo.EMBED_DIM * neurons, MLP, output_dim=1, batch_norm=True)
        self.embedding_layer2 = FeatureEmbedding(self.feature_map, zoo.EMBED_DIM, embedding_initializer=INIT)
        self.dnn = MLP_Block(self.width, MLP, output_dim=1, batch_norm=True)
        self.fc = nn.Linear(2, 1)

    def logits(self, columns: Mapping[str, Tensor], e: Tensor) -> Tensor:
        logarithms = self.log_norm(torch.log(torch.clamp(torch.abs(e), min=1e-5)))
        products = self.exp_norm(torch.exp(self.powers(logarithms.transpose(2, 1))).transpose(1, 2))
        deep = self.dnn(self.embedding_layer2(columns).flatten(1))
        return self.fc(torch.cat([self.dense(products.flatten(1)), deep], dim=-1))


MODELS: Mapping[str, type[Model]] = {
    "deepfm": DeepFM, "dcn": DCN, "autoint_plus": AutoIntPlus, "fibinet": FiBiNET, "nfm": NFM, "afn_plus": AFNPlus, "gdcn": GDCN,
    "dcnv2": DCNv2,
}  # fmt: skip


class Contender:
    """A FuxiCTR model over rows. Its ids start at 1, because 0 is the padding."""

    framework = "FuxiCTR"

    def __init__(self, model: str, rows: Rows, learning_rate: float) -> None:
        self.folder = tempfile.TemporaryDirectory()
        root = Path(self.folder.name) / "rows"
        (root / "rows").mkdir(parents=True)
        self.names = [f"f{field}" for field in range(len(rows.field_dims))]
        self.feature_map = feature_map_of(
            root, {n: dim + 2 for n, dim in zip(self.names, rows.field_dims, strict=True)}, zoo.EMBED_DIM
        )
        self.model = MODELS[model](self.feature_map, learning_rate, str(root))
        self.model._max_gradient_norm = 10.0  # what its `fit` sets
        self.model.train()
        self.root = root

    def batch(self, ids: "np.ndarray[Any, Any]", labels: "np.ndarray[Any, Any]") -> dict[str, Tensor]:
        """In the form of its data loader."""
        columns = torch.from_numpy(ids.astype(np.int64) + 1)
        return {name: columns[:, n] for n, name in enumerate(self.names)} | {"label": torch.from_numpy(labels.astype(np.float32))}

    def step(self, batch: dict[str, Tensor]) -> None:
        """One step of its `train_epoch`."""
        self.model.train_step(batch).item()

    def predict(self, batch: dict[str, Tensor]) -> "np.ndarray[Any, Any]":
        """Probabilities (B,)."""
        self.model.eval()
        with torch.no_grad():
            probabilities: np.ndarray[Any, Any] = self.model.forward(batch)["y_pred"].numpy().reshape(-1)
        return probabilities

    def epoch(self, rows: Rows) -> None:
        """As its users train: its own loader and `fit`, with a few validation rows, which it requires."""
        for name, part in (("train", slice(None)), ("valid", slice(0, 4096))):
            ids = rows.ids[part].astype(np.int64) + 1
            write_npz(
                self.root / f"{name}.npz", {n: ids[:, i] for i, n in enumerate(self.names)}, rows.labels[part].astype(np.int64)
            )
        paths = [str(self.root / f"{name}.npz") for name in ("train", "valid")]
        train, valid = RankDataLoader(self.feature_map, "train", *paths, batch_size=4096, num_workers=0)
        self.model.fit(train, epochs=1, validation_data=valid)

    def dense_parameters(self) -> int:
        """Outside the tables."""
        tables = {id(m.weight) for m in self.model.modules() if isinstance(m, nn.Embedding)}
        return sum(p.numel() for p in self.model.parameters() if id(p) not in tables and p.is_floating_point())


make: Callable[..., Contender] = Contender

"""A DeepFM composed from FuxiCTR's layers, since the package on PyPI ships no DeepFM, and data as FuxiCTR reads it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor


class DeepFM(BaseModel):  # type: ignore[misc]
    """y = sigmoid(FM(e) + MLP(e)), trained by FuxiCTR's own `fit` and measured by its own `evaluate`."""

    def __init__(
        self, feature_map: FeatureMap, *, embed_dim: int, mlp_dims: Sequence[int], dropout: float = 0.0,
        batch_norm: bool = False, learning_rate: float = 1e-3, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(feature_map, verbose=0, metrics=["AUC", "logloss"], **settings)
        self.embedding_layer = FeatureEmbedding(feature_map, embed_dim)
        self.fm = FactorizationMachine(feature_map)
        self.mlp = MLP_Block(
            feature_map.sum_emb_out_dim(), list(mlp_dims), output_dim=1, dropout_rates=dropout, batch_norm=batch_norm
        )
        self.compile("adam", "binary_crossentropy", learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{feature: (B,)} -> {"y_pred": (B, 1)}."""
        columns = self.get_inputs(inputs)
        vectors = self.embedding_layer(columns)
        logits = self.fm(columns, vectors) + self.mlp(vectors.flatten(start_dim=1))
        return {"y_pred": self.output_activation(logits)}


def feature_map_of(folder: Path, vocabularies: Mapping[str, int], embed_dim: int) -> FeatureMap:
    """Categorical features with so many ids each; id 0 is the padding, as FuxiCTR's preprocessing numbers them."""
    spec = {"type": "categorical", "source": "", "padding_idx": 0}
    features = [{name: spec | {"vocab_size": size, "oov_idx": size - 1}} for name, size in vocabularies.items()]
    path = folder / "feature_map.json"
    path.write_text(json.dumps({"dataset_id": folder.name, "labels": ["label"], "features": features}))
    feature_map = FeatureMap(folder.name, str(folder))
    feature_map.load(str(path), {"embedding_dim": embed_dim})
    return feature_map


def write_npz(path: Path, ids: Mapping[str, np.ndarray[Any, Any]], labels: np.ndarray[Any, Any]) -> str:
    """One split in the form FuxiCTR's `RankDataLoader(data_format="npz")` reads; its address."""
    np.savez(path, **ids, label=labels)  # type: ignore[arg-type]
    return str(path)

"""The zoo of DeepCTR-Torch: its own models with every setting as in `zoo`, its L2 terms switched off.

`Contender.step` is the body of the loop in its `fit`. It has no GDCN; AFN+ is its AFN with a second embedding and its own DNN.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import zoo
from criteo_shaped import Rows
from deepctr_torch.inputs import SparseFeat, combined_dnn_input, create_embedding_matrix
from deepctr_torch.layers import DNN
from deepctr_torch.models import AFN, DCN, NFM, AutoInt, DeepFM, FiBiNET
from torch import Tensor, nn

Columns = list[SparseFeat]
NO_L2: dict[str, Any] = {"l2_reg_linear": 0, "l2_reg_embedding": 0, "l2_reg_dnn": 0, "init_std": zoo.INIT_STD}
WITHOUT_LINEAR: dict[str, Any] = {key: value for key, value in NO_L2.items() if key != "l2_reg_linear"}


class AFNPlus(AFN):  # type: ignore[misc]
    """logit = w_1 AFN + w_2 DNN + b, the DNN on embeddings of its own."""

    def __init__(self, columns: Columns) -> None:
        super().__init__([], columns, ltl_hidden_size=zoo.LOGARITHMIC_NEURONS, afn_dnn_hidden_units=zoo.MLP, **NO_L2)
        self.deep_embedding = create_embedding_matrix(columns, zoo.INIT_STD, sparse=False)
        self.deep = DNN(self.compute_input_dim(columns), zoo.MLP, use_bn=True, init_std=zoo.INIT_STD)
        self.deep_linear, self.fc = nn.Linear(zoo.MLP[-1], 1), nn.Linear(2, 1)

    def forward(self, X: Tensor) -> Tensor:
        own, _ = self.input_from_feature_columns(X, self.dnn_feature_columns, self.embedding_dict)
        other, _ = self.input_from_feature_columns(X, self.dnn_feature_columns, self.deep_embedding)
        afn = self.afn_dnn_linear(self.afn_dnn(self.ltl(torch.cat(own, dim=1))))
        deep = self.deep_linear(self.deep(combined_dnn_input(other, [])))
        return self.out(self.fc(torch.cat([afn, deep], dim=-1)))


def _dcn(columns: Columns, kind: str) -> nn.Module:
    settings = {**NO_L2, "l2_reg_cross": 0, "cross_num": zoo.CROSS_LAYERS, "cross_parameterization": kind}
    return DCN([], columns, dnn_hidden_units=zoo.MLP, **settings)


MODELS: Mapping[str, Callable[[Columns], nn.Module]] = {
    "deepfm": lambda columns: DeepFM(columns, columns, dnn_hidden_units=zoo.MLP, **NO_L2),
    "dcn": lambda columns: _dcn(columns, "vector"),
    "dcnv2": lambda columns: _dcn(columns, "matrix"),
    "autoint_plus": lambda columns: AutoInt(
        [], columns, att_layer_num=zoo.ATTENTION["layers"], att_head_num=zoo.ATTENTION["heads"], dnn_hidden_units=zoo.MLP,
        **WITHOUT_LINEAR,
    ),
    "fibinet": lambda columns: FiBiNET(columns, columns, reduction_ratio=zoo.REDUCTION, dnn_hidden_units=zoo.MLP, **NO_L2),
    "nfm": lambda columns: NFM(columns, columns, dnn_hidden_units=zoo.MLP, **NO_L2),
    "afn_plus": AFNPlus,
}  # fmt: skip


class Contender:
    """A DeepCTR-Torch model over rows."""

    framework = "DeepCTR-Torch"

    def __init__(self, model: str, rows: Rows, learning_rate: float) -> None:
        self.names = [f"f{field}" for field in range(len(rows.field_dims))]
        columns = [SparseFeat(n, dim, embedding_dim=zoo.EMBED_DIM) for n, dim in zip(self.names, rows.field_dims, strict=True)]
        self.model: Any = MODELS[model](columns)
        for module in self.model.modules():  # its own initialisation, deviation 1e-4, learns almost nothing for many epochs
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
        self.model.compile(torch.optim.Adam(self.model.parameters(), lr=learning_rate), "binary_crossentropy", metrics=[])
        self.model.train()

    def batch(self, ids: "np.ndarray[Any, Any]", labels: "np.ndarray[Any, Any]") -> tuple[Tensor, Tensor]:
        """One float matrix and the labels, in the form of its loader."""
        return torch.from_numpy(ids.astype(np.float32)), torch.from_numpy(labels.astype(np.float32))

    def step(self, batch: tuple[Tensor, Tensor]) -> None:
        """The body of the loop in its `fit`."""
        model, (x, y) = self.model, batch
        predicted = model(x).squeeze(-1)
        model.optim.zero_grad()
        loss = model.loss_func(predicted, y, reduction="sum")
        total = loss + model.get_regularization_loss() + model.aux_loss
        loss.item(), total.item()
        total.backward()
        model.optim.step()

    def predict(self, batch: tuple[Tensor, Tensor]) -> "np.ndarray[Any, Any]":
        """Probabilities (B,)."""
        self.model.eval()
        with torch.no_grad():
            probabilities: np.ndarray[Any, Any] = self.model(batch[0]).numpy().reshape(-1)
        return probabilities

    def epoch(self, rows: Rows) -> None:
        """As its users train: its own loader and `fit`."""
        inputs = {name: np.array(rows.ids[:, n]) for n, name in enumerate(self.names)}
        self.model.fit(inputs, rows.labels.astype(np.float32), batch_size=4096, epochs=1, verbose=0)

    def dense_parameters(self) -> int:
        """Outside the tables."""
        tables = {id(m.weight) for m in self.model.modules() if isinstance(m, nn.Embedding)}
        return sum(p.numel() for p in self.model.parameters() if id(p) not in tables)


make: Callable[..., Contender] = Contender

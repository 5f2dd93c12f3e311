"""DIN (Zhou, Song, Zhu, Fan, Zhu, Ma, Yan, Jin, Li, Gai: "Deep Interest Network for Click-Through Rate Prediction", KDD 2018)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import DINConfig
from ctrlab.models.layers import MLP, FieldEmbedding
from ctrlab.models.lists import elements_of, mean_of, target_of, unpacked


class Dice(nn.Module):
    """f(s) = p s + (1 - p) alpha s with p = sigmoid((s - mean) / std), statistics of the batch (DIN, eq. 4).

    Parameters: width.
    """

    per_position = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-8, affine=False)
        self.alpha = nn.Parameter(torch.zeros(width))

    def row_macs(self) -> int:
        """p s and (1 - p) alpha s."""
        return 2 * self.alpha.numel()

    def forward(self, s: Tensor) -> Tensor:
        """(n, width) -> (n, width)."""
        # A batch with a single element has no spread of its own.
        alone = self.training and len(s) < 2
        normal = functional.batch_norm(s, self.norm.running_mean, self.norm.running_var, eps=1e-8) if alone else self.norm(s)
        p = normal.sigmoid()
        return p * s + (1 - p) * self.alpha * s


class ActivationUnit(nn.Sequential):
    """a(e_i, v): the weight of an element e_i in the light of the target v, an MLP on [e_i, v, e_i - v, e_i * v]."""

    def __init__(self, embed_dim: int, dims: Sequence[int], activation: str) -> None:
        makers: dict[str, Callable[[int], nn.Module]] = {"dice": Dice, "prelu": nn.PReLU, "relu": lambda width: nn.ReLU()}
        layers: list[nn.Module] = []
        width = 4 * embed_dim
        for next_width in dims:
            layers += [nn.Linear(width, next_width), makers[activation](next_width)]
            width = next_width
        super().__init__(*layers, nn.Linear(width, 1))

    def forward(self, elements: Tensor, targets: Tensor) -> Tensor:  # type: ignore[override]
        """Packed elements (n, d) and the target beside each (n, d) -> (n, 1)."""
        pairs = torch.cat([elements, targets, elements - targets, elements * targets], dim=1)
        return super().forward(pairs)  # type: ignore[no-any-return]


class DIN(CTRModel):
    """logit = MLP([e_1, ..., e_M, u_1, ..., u_K]) with u_k = sum_i a(e_i, v) e_i over the elements of list k (eq. 3).

    The target v is the vector of the field whose ids the list shares. The weights are not normalised, as in the paper: their sum
    tells how strong the interest is. A list with ids of its own has no target, and gives the mean of its elements.
    Mini-batch aware regularisation is not needed: tables are updated lazily, row by row.

    Parameters, for K lists, A of them with a target, and attention widths w_0 = 4 d, w_1, ..., w_h: sum(table_dims) d in
    tables; V d unless numbers are raw; A times sum_j (w_{j-1} + 1) w_j + w_h + 1, and sum_j w_j more for dice and prelu; the
    MLP's on D + K d inputs.
    """

    reads_lists = True

    def __init__(self, config: DINConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.embedding = FieldEmbedding.of(config, schema, lists=True)
        self.attention = nn.ModuleList(
            ActivationUnit(config.embed_dim, config.attention_dims, config.activation)
            for feature in schema.lists
            if feature.shares
        )
        self.mlp = MLP.of(config, self.embedding.dense_width + len(schema.lists) * config.embed_dim)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        e = self.embedding(fields)
        units = iter(self.attention)
        interests = []
        for feature in self.schema.lists:
            vectors, present = elements_of(self.embedding, fields, feature)
            if feature.shares is None:
                interests.append(mean_of(vectors, present))
                continue
            v = target_of(e, self.schema, feature).unsqueeze(1).expand_as(vectors)
            a = unpacked(next(units)(vectors[present], v[present]), present)
            interests.append((a * vectors).sum(dim=1))
        return self.mlp(torch.cat([self.embedding.dense_input(e, fields), *interests], dim=1)).squeeze(1)  # type: ignore[no-any-return]

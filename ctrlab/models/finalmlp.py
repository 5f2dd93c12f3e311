"""FinalMLP (Mao et al.: "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", AAAI 2023)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.errors import ConfigError
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import FinalMLPConfig
from ctrlab.models.layers import MLP, FieldEmbedding


class ContextEmbedding(nn.Module):
    """Vectors of the gate's own for some of a row's fields, side by side."""

    columns: Tensor
    value_columns: Tensor

    def __init__(self, config: FinalMLPConfig, schema: FeatureSchema, names: Sequence[str]) -> None:
        super().__init__()
        _check_context(schema, names)
        columns = [number for number, name in enumerate(schema.field_names) if name in names]
        value_columns = [number for number, name in enumerate(schema.value_names) if name in names]
        part = FeatureSchema(
            field_names=tuple(schema.field_names[number] for number in columns),
            field_dims=tuple(schema.field_dims[number] for number in columns),
            value_names=tuple(schema.value_names[number] for number in value_columns),
            fingerprint=schema.fingerprint,
        )
        self.embedding = FieldEmbedding.of(config, part)
        self.register_buffer("columns", torch.tensor(columns, dtype=torch.int64), persistent=False)
        self.register_buffer("value_columns", torch.tensor(value_columns, dtype=torch.int64), persistent=False)

    def forward(self, fields: Fields) -> Tensor:
        """-> (B, width of the context)."""
        own = Fields(fields.ids.index_select(1, self.columns), fields.values.index_select(1, self.value_columns))
        return self.embedding.dense_input(self.embedding(own), own)


def _check_context(schema: FeatureSchema, names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in schema.names]
    if unknown:
        raise ConfigError(f"FinalMLP: no field is called {', '.join(unknown)}; context fields are of: {', '.join(schema.names)}")


class LearnedContext(nn.Module):
    """One context for all rows, where no fields are named."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def row_macs(self) -> int:
        """It is looked up, not multiplied."""
        return 0

    def forward(self, fields: Fields) -> Tensor:
        """-> (1, width), the same for every row."""
        return self.bias.unsqueeze(0)


class Gate(nn.Module):
    """g = 2 sigmoid(W MLP(context) + b): the weight of every input of a stream (eq. 5), 1 where the context says nothing."""

    def __init__(self, config: FinalMLPConfig, schema: FeatureSchema, names: Sequence[str], out_width: int) -> None:
        super().__init__()
        self.context = ContextEmbedding(config, schema, names) if names else LearnedContext(config.embed_dim)
        width = self.context.embedding.dense_width if isinstance(self.context, ContextEmbedding) else config.embed_dim
        self.hidden = MLP(width, config.gate_dims, head=False)
        self.out = nn.Linear(config.gate_dims[-1], out_width)

    def row_macs(self) -> int:
        """The gate times what it gates."""
        return self.out.out_features

    def forward(self, fields: Fields) -> Tensor:
        """-> (B, D), or (1, D) where all rows have one context; between 0 and 2."""
        weights: Tensor = self.out(self.hidden(self.context(fields)))
        return 2 * weights.sigmoid()


class BilinearFusion(nn.Module):
    """w_1^T o_1 + w_2^T o_2 + sum_k o_1k^T W_k o_2k + b, over both streams cut into k blocks (eq. 8 and 9).

    The matrices start as one column of all their weights, deviation sqrt(2 / (n_1 n_2 / k + 1)): as n_1 n_2 / k terms of one sum,
    each the product of two activations, they start far smaller than layers of their shape would.
    Parameters: n_1 + n_2 + n_1 n_2 / k + 1 for streams of widths n_1 and n_2.
    """

    def __init__(self, width1: int, width2: int, heads: int) -> None:
        super().__init__()
        self.first = nn.Linear(width1, 1)
        self.second = nn.Linear(width2, 1, bias=False)
        self.products = nn.ModuleList(nn.Linear(width1 // heads, width2 // heads, bias=False) for _ in range(heads))
        self.width2 = width2
        self.reset_products()

    def reset_products(self) -> None:
        """Draw the matrices of the products anew."""
        weights = list(self.products.parameters())
        deviation = (2 / (sum(weight.numel() for weight in weights) + 1)) ** 0.5
        for weight in weights:
            nn.init.normal_(weight, std=deviation)

    def row_macs(self) -> int:
        """W_k o_1k times o_2k."""
        return self.width2

    def forward(self, stream1: Tensor, stream2: Tensor) -> Tensor:
        """(B, n_1), (B, n_2) -> logits (B,)."""
        blocks = stream1.chunk(len(self.products), dim=1)
        mapped = torch.cat([linear(block) for linear, block in zip(self.products, blocks, strict=True)], dim=1)
        linear_part: Tensor = self.first(stream1) + self.second(stream2)
        return linear_part.squeeze(1) + (mapped * stream2).sum(dim=1)


class FinalMLP(CTRModel):
    """logit = fusion(MLP_1(g_1 * x), MLP_2(g_2 * x)) with x = [e_1, ..., e_M]; without feature selection, g = 1.

    A gate multiplies x element by element, so both read it by way of `gate_input`, which does nothing by itself.
    Parameters: sum(field_dims) d in tables; V d unless numbers are raw; both MLPs' hidden layers on D inputs; the fusion's. Each
    gate has its MLP's hidden layers, (gate_dims[-1] + 1) D, and tables of its own for its context fields, or d without any.
    """

    def __init__(self, config: FinalMLPConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.embedding = FieldEmbedding.of(config, schema)
        width = self.embedding.dense_width
        self.gated = config.feature_selection
        self.mlp1 = MLP(width, config.mlp1_dims, dropout=config.mlp1_dropout, batch_norm=config.batch_norm, head=False)
        self.mlp2 = MLP(width, config.mlp2_dims, dropout=config.mlp2_dropout, batch_norm=config.batch_norm, head=False)
        if self.gated:
            self.gate_input = nn.Identity()
            self.gate1 = Gate(config, schema, config.context1, width)
            self.gate2 = Gate(config, schema, config.context2, width)
        self.fusion = BilinearFusion(config.mlp1_dims[-1], config.mlp2_dims[-1], config.fusion_heads)
        self.embedding_readers = _readers(config)  # type: ignore[misc]  # the gates' tables exist only with some settings

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        x = self.embedding.dense_input(self.embedding(fields), fields)
        if not self.gated:
            return self.fusion(self.mlp1(x), self.mlp2(x))  # type: ignore[no-any-return]
        x = self.gate_input(x)
        return self.fusion(self.mlp1(self.gate1(fields) * x), self.mlp2(self.gate2(fields) * x))  # type: ignore[no-any-return]


def _readers(config: FinalMLPConfig) -> dict[str, tuple[str, ...]]:
    if not config.feature_selection:
        return {"embedding": ("mlp1", "mlp2")}
    contexts = {"gate1": config.context1, "gate2": config.context2}
    own = {f"{gate}.context.embedding": (f"{gate}.hidden",) for gate, names in contexts.items() if names}
    return {"embedding": ("gate_input",), **own}

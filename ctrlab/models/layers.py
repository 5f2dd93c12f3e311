"""Embedding and interaction layers shared by the architectures.

Shapes: B rows, F categorical fields, V numeric fields, M embedding vectors a row (F + V, or F where numbers stay raw), d their
width, D the width of what the dense layers read (M d, and V more where numbers stay raw).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.errors import ConfigError
from ctrlab.models.configs import DeepModelConfig, EmbeddingModelConfig


class LookupTable(nn.Module):
    """One (num_ids, width) table of rows looked up by id.

    >>> LookupTable(num_ids=5, width=3)(torch.tensor([[0, 4]])).shape
    torch.Size([1, 2, 3])
    """

    def __init__(self, num_ids: int, width: int, init_std: float = 0.01) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_ids, width))
        nn.init.normal_(self.weight, std=init_std)

    @property
    def num_ids(self) -> int:
        """Rows of the table."""
        return self.weight.shape[0]

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return self.weight.shape[1]

    def forward(self, ids: Tensor) -> Tensor:
        """ids (...,) integer -> rows (..., width)."""
        return functional.embedding(ids, self.weight)


class FusedTable(nn.Module):
    """All F categorical fields in one table: field f owns rows offsets[f] : offsets[f] + field_dims[f]."""

    offsets: Tensor

    def __init__(self, field_dims: Sequence[int], width: int, init_std: float = 0.01) -> None:
        super().__init__()
        self.field_dims = tuple(field_dims)
        self.table = LookupTable(sum(field_dims), width, init_std)
        ends = torch.tensor(self.field_dims, dtype=torch.int64).cumsum(0)
        self.register_buffer("offsets", (ends - torch.tensor(self.field_dims, dtype=torch.int64)), persistent=False)

    def rows_of(self, field: int) -> slice:
        """The table rows that field number `field` owns."""
        start = sum(self.field_dims[:field])
        return slice(start, start + self.field_dims[field])

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) integer, F at most the number of fields -> rows (B, F, width)."""
        rows: Tensor = self.table(ids + self.offsets[: ids.shape[1]])
        return rows

    def sum(self, ids: Tensor) -> Tensor:
        """ids (B, F), of a table of width 1 -> (B,): the sum of each row's numbers."""
        return self(ids).sum(dim=(1, 2))  # type: ignore[no-any-return]

    def look_up(self, ids: Tensor, field: int) -> Tensor:
        """ids (...) of one field -> rows (..., width)."""
        rows: Tensor = self.table(ids + self.rows_of(field).start)
        return rows


class FieldEmbedding(nn.Module):
    """e: a vector for every field of a row. Categorical fields look theirs up, numeric fields scale theirs by the value.

    schema: with lists where the architecture reads them; lists of their own vocabulary then have a table as well.
    raw_values: numeric fields have no vector; they join the others only in `dense_input`.
    """

    def __init__(self, schema: FeatureSchema, embed_dim: int, init_std: float = 0.01, *, raw_values: bool = False) -> None:
        super().__init__()
        self.schema = schema
        self.embed_dim = embed_dim
        self.raw_values = raw_values
        self.categorical = FusedTable(schema.table_dims, embed_dim, init_std)
        self.numeric = nn.Parameter(torch.randn(0 if raw_values else len(schema.value_names), embed_dim) * init_std)

    @classmethod
    def of(cls, config: EmbeddingModelConfig, schema: FeatureSchema, *, lists: bool = False) -> "FieldEmbedding":
        """The embedding that a model's settings ask for; `lists`: whether the architecture reads them."""
        read = schema if lists else schema.without_lists()
        return cls(read, config.embed_dim, config.embedding_init_std, raw_values=config.numeric_fields == "raw")

    @property
    def num_vectors(self) -> int:
        """M: vectors a row."""
        return len(self.schema.field_names) + len(self.numeric)

    @property
    def dense_width(self) -> int:
        """Width of `dense_input`."""
        return self.num_vectors * self.embed_dim + (len(self.schema.value_names) if self.raw_values else 0)

    def require_vectors(self, minimum: int, architecture: str) -> None:
        """For architectures that have nothing to work on with fewer than `minimum` vectors a row.

        Raises:
            ConfigError: there are fewer.
        """
        if self.num_vectors < minimum:
            raise ConfigError(
                f"{architecture} needs at least {minimum} embedding vectors a row, and this data gives {self.num_vectors}: "
                'use more fields, or numeric_fields="embedding".'
            )

    def forward(self, fields: Fields) -> Tensor:
        """-> (B, M, d): the F categorical fields, then the V numeric ones unless they stay raw."""
        vectors: Tensor = self.categorical(fields.ids)
        if not len(self.numeric):
            return vectors
        return torch.cat([vectors, fields.values.unsqueeze(-1) * self.numeric], dim=1)

    def look_up(self, ids: Tensor, table: int) -> Tensor:
        """ids (...) of one of `schema.table_names` -> vectors (..., d)."""
        return self.categorical.look_up(ids, table)

    def dense_input(self, embeddings: Tensor, fields: Fields) -> Tensor:
        """The input of a dense layer: the vectors side by side and, where numbers are raw, the numeric values after them.

        (B, M, d) -> (B, M d), or (B, M d + V).
        """
        return with_raw_values(embeddings.flatten(1), fields, self.raw_values)


def with_raw_values(flat: Tensor, fields: Fields, raw_values: bool) -> Tensor:
    """(B, M d) -> (B, M d + V): with the numeric values appended where they stay raw."""
    return torch.cat([flat, fields.values], dim=1) if raw_values and fields.values.shape[1] else flat


class LinearTerm(nn.Module):
    """The first-order term: w_0 + sum_i w_i x_i, one weight per id and per numeric field."""

    def __init__(self, schema: FeatureSchema) -> None:
        super().__init__()
        self.categorical = FusedTable(schema.field_dims, 1, init_std=0.0)
        self.numeric = nn.Parameter(torch.zeros(len(schema.value_names)))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, fields: Fields) -> Tensor:
        """-> (B,)."""
        logits: Tensor = self.categorical.sum(fields.ids) + fields.values @ self.numeric + self.bias
        return logits


class InnerProductFM(nn.Module):
    """Sum of the inner products of all pairs of embedding vectors (FM, second order), in O(M d)."""

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, M, d) -> (B,): sum_{i<j} <e_i, e_j> = 1/2 (|sum e_i|^2 - sum |e_i|^2)."""
        square_of_sum, sum_of_squares = embeddings.sum(dim=1).square(), embeddings.square().sum(dim=1)
        return 0.5 * (square_of_sum - sum_of_squares).sum(dim=1)


class MLP(nn.Sequential):
    """Linear (-> batch norm) -> ReLU (-> dropout) for each hidden width, then one linear unit when `head` is asked for."""

    def __init__(self, in_features: int, mlp_dims: Sequence[int], *, dropout: float = 0.0, batch_norm: bool = False,
                 head: bool = True) -> None:  # fmt: skip
        layers: list[nn.Module] = []
        width = in_features
        for next_width in mlp_dims:
            layers.append(nn.Linear(width, next_width))
            if batch_norm:
                layers.append(nn.BatchNorm1d(next_width))
            layers.append(nn.ReLU())
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = next_width
        if head:
            layers.append(nn.Linear(width, 1))
        super().__init__(*layers)

    @classmethod
    def of(cls, config: DeepModelConfig, in_features: int, *, head: bool = True) -> "MLP":
        """The MLP that a model's settings ask for."""
        return cls(in_features, config.mlp_dims, dropout=config.dropout, batch_norm=config.batch_norm, head=head)


class CrossNetwork(nn.Module):
    """x_{l+1} = x_0 (x_l^T w_l) + b_l + x_l for each layer l (DCN, eq. 3). Parameters: 2 L width."""

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(num_layers, width) / width**0.5)
        self.biases = nn.Parameter(torch.zeros(num_layers, width))

    def forward(self, x0: Tensor) -> Tensor:
        """(B, width) -> (B, width)."""
        x = x0
        for w, b in zip(self.weights, self.biases, strict=True):
            x = x0 * (x @ w).unsqueeze(1) + b + x
        return x

"""Field embeddings with reduced tables: the trainable form with explicit projections, and the serving form that returns latents.

Fields of one rank share one fused table, so a forward pass costs one look-up and one batched product per *rank*, not per field.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.layers import FusedTable, with_raw_values

R = TypeVar("R", int, int | None)


@dataclass(frozen=True, eq=False, kw_only=True)
class TableSource:
    """A table to reduce.

    weight: (num_ids, d).
    counts: look-ups of each id in training, (num_ids,); None if unknown.
    init_std: standard deviation of the original tables' initial values.
    """

    name: str
    weight: Tensor
    counts: np.ndarray[Any, Any] | None
    init_std: float


class FieldGroup(nn.Module):
    """Fields whose vectors are computed together.

    fields: indices into the schema's tables: the categorical fields, then lists with a vocabulary of their own.
    look_ups: look-ups per row in each table, lists taken as full.
    """

    columns: Tensor

    def __init__(self, schema: FeatureSchema, fields: Sequence[int]) -> None:
        super().__init__()
        self.fields = tuple(fields)
        self.dims = tuple(schema.table_dims[field] for field in fields)
        self.look_ups = [schema.uses_of(field) for field in fields]
        categorical = [field for field in fields if field < len(schema.field_names)]
        self.takes_all = categorical == list(range(len(schema.field_names)))
        self.register_buffer("columns", torch.tensor(categorical, dtype=torch.int64), persistent=False)

    def own_ids(self, ids: Tensor) -> Tensor:
        """ids (B, F) of all fields -> ids (B, categorical fields of this group)."""
        return ids if self.takes_all else ids.index_select(1, self.columns)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> e (B, categorical fields of this group, d)."""
        raise NotImplementedError

    def look_up(self, ids: Tensor, position: int) -> Tensor:
        """ids (...) of the table at `position` of this group -> e (..., d)."""
        raise NotImplementedError


class ReducedGroup(FieldGroup):
    """Fields of one rank, stored as one method stores reduced tables."""

    def __init__(self, schema: FeatureSchema, fields: Sequence[int], rank: int, embed_dim: int) -> None:
        super().__init__(schema, fields)
        self.rank = rank
        self.embed_dim = embed_dim

    def fill_(self, position: int, source: TableSource) -> None:
        """In place: fill the table at `position` with the reduced form of `source`."""
        raise NotImplementedError


class PartTable(FusedTable):
    """A table whose rows belong to parts of ids or to positions, not to single ids."""


class TableGroup(FieldGroup):
    """The latents z of the fields that share one width.

    Parameters: (sum of their ids) width.
    """

    def __init__(self, schema: FeatureSchema, fields: Sequence[int], width: int) -> None:
        super().__init__(schema, fields)
        self.width = width
        self.tables = FusedTable(self.dims, width)

    @property
    def weight(self) -> Tensor:
        """The fused table (sum of ids, width)."""
        return self.tables.table.weight

    def latents(self, ids: Tensor) -> Tensor:
        """ids (B, F) of all fields -> z (B, fields of this group, width)."""
        return self.tables(self.own_ids(ids))  # type: ignore[no-any-return]

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> latents (B, fields of this group, width), which are the vectors of fields that stay dense."""
        return self.latents(ids)

    def look_up(self, ids: Tensor, position: int) -> Tensor:
        """ids (...) of the table at `position` of this group -> e (..., d)."""
        return self.tables.look_up(ids, position)


class ProjectedGroup(TableGroup):
    """Fields reduced to one rank: e_f = U_f z_f + mu_f.

    Parameters: (sum of their ids) rank in the table; per field d rank in `projection` and d in `mean`.
    """

    def __init__(self, schema: FeatureSchema, fields: Sequence[int], rank: int, embed_dim: int) -> None:
        super().__init__(schema, fields, rank)
        self.projection = nn.Parameter(torch.zeros(len(fields), embed_dim, rank))
        self.mean = nn.Parameter(torch.zeros(len(fields), embed_dim))

    def row_macs(self) -> int:
        """One per element of U_f and look-up."""
        return sum(self.look_ups) * self.projection[0].numel()

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> e (B, fields of this group, d)."""
        z = self.latents(ids).transpose(0, 1)
        projection, mean = self.projection[: len(z)], self.mean[: len(z)]
        return torch.bmm(z, projection.transpose(1, 2)).transpose(0, 1) + mean

    def look_up(self, ids: Tensor, position: int) -> Tensor:
        """ids (...) of the table at `position` of this group -> e (..., d)."""
        return functional.linear(self.tables.look_up(ids, position), self.projection[position], self.mean[position])


class FactoredEmbedding(nn.Module):
    """A FieldEmbedding with reduced tables: `ranks[f]` is the rank of the schema's table f, None where it stays dense.

    reduced: class of the groups that store the reduced tables.
    """

    order: Tensor

    def __init__(
        self, schema: FeatureSchema, embed_dim: int, ranks: Sequence[int | None], *, raw_values: bool = False,
        reduced: "type[ProjectedGroup | ReducedGroup]" = ProjectedGroup,
    ) -> None:  # fmt: skip
        super().__init__()
        self.schema = schema
        self.embed_dim = embed_dim
        self.raw_values = raw_values
        self.ranks = tuple(ranks)
        self.groups = nn.ModuleList(
            TableGroup(schema, fields, embed_dim) if rank is None else reduced(schema, fields, rank, embed_dim)
            for rank, fields in _fields_by_rank(ranks).items()
        )
        self.numeric = nn.Parameter(torch.zeros(0 if raw_values else len(schema.value_names), embed_dim))
        placed = [field for group in self._groups for field in group.fields if field < len(schema.field_names)]
        self.in_order = placed == sorted(placed)
        self.register_buffer("order", torch.tensor(placed, dtype=torch.int64).argsort(), persistent=False)

    @property
    def compression_note(self) -> str:
        return "tables reduced already"

    @property
    def affine(self) -> bool:
        """Whether every vector is affine in looked-up latents, so that its projection can be folded."""
        return all(isinstance(group, TableGroup) for group in self.groups)

    @property
    def _groups(self) -> list[FieldGroup]:
        return cast("list[FieldGroup]", list(self.groups))

    def look_up(self, ids: Tensor, table: int) -> Tensor:
        """ids (...) of one of `schema.table_names` -> vectors (..., d), like `FieldEmbedding.look_up`."""
        group, place = next((group, group.fields.index(table)) for group in self._groups if table in group.fields)
        return group.look_up(ids, place)

    def row_macs(self) -> int:
        """One per element of the numeric vectors; the groups count their projections."""
        return self.numeric.numel()

    def forward(self, fields: Fields) -> Tensor:
        """-> (B, M, d): the F categorical fields, then the V numeric ones unless raw, like FieldEmbedding."""
        vectors = torch.cat([group(fields.ids) for group in self.groups], dim=1)
        if not self.in_order:
            vectors = vectors.index_select(1, self.order)
        if not len(self.numeric):
            return vectors
        return torch.cat([vectors, fields.values.unsqueeze(-1) * self.numeric], dim=1)

    def dense_input(self, embeddings: Tensor, fields: Fields) -> Tensor:
        """(B, M, d) -> (B, D), like `FieldEmbedding.dense_input`."""
        return with_raw_values(embeddings.flatten(1), fields, self.raw_values)


class FoldedEmbedding(nn.Module):
    """The serving form: latents side by side, group by group, then the raw numeric values, without projections.

    The projections are folded into its readers (`compression.fold`).
    """

    def __init__(self, schema: FeatureSchema, widths: Sequence[int]) -> None:
        super().__init__()
        self.schema = schema
        self.groups = nn.ModuleList(TableGroup(schema, fields, width) for width, fields in _fields_by_rank(widths).items())

    @property
    def compression_note(self) -> str:
        return "folded for serving"

    @property
    def latent_width(self) -> int:
        """S: the width of the output."""
        groups = cast("list[TableGroup]", list(self.groups))
        return sum(group.width * len(group.fields) for group in groups) + len(self.schema.value_names)

    def row_macs(self) -> int:
        return 0

    def forward(self, fields: Fields) -> Tensor:
        """-> (B, S)."""
        parts = [cast(TableGroup, group).latents(fields.ids).flatten(1) for group in self.groups]
        if self.schema.value_names:
            parts.append(fields.values)
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def dense_input(self, latents: Tensor, fields: Fields) -> Tensor:
        """(B, S) unchanged: the readers are folded, and the numeric values are among the latents already."""
        return latents


def _fields_by_rank(ranks: Sequence[R]) -> dict[R, list[int]]:
    """{rank: its fields} in ascending order of rank, dense (None) last, so that equal ranks give equal groups."""
    distinct = sorted(set(ranks), key=lambda rank: (rank is None, rank or 0))
    return {rank: [field for field, own in enumerate(ranks) if own == rank] for rank in distinct}

"""Quotient-remainder hashing: an id's vector is made of two rows of small tables (Shi et al., 2019, arXiv 1909.02107)."""

import copy
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from ctrlab.compression.embedding import PartTable, ReducedGroup, TableSource
from ctrlab.data.schema import FeatureSchema
from ctrlab.models.base import CTRModel
from ctrlab.models.layers import FieldEmbedding
from ctrlab.plans.table_forms import quotient_remainder_rows


def with_reinitialised_tables(model: CTRModel, seed: int) -> CTRModel:
    """A copy with re-initialised embedding tables: the control arm for QR hashing."""
    copied, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for module in copied.modules():
        if isinstance(module, FieldEmbedding):
            table = module.categorical.table.weight.data
            table.copy_(getattr(model.config, "embedding_init_std", 0.01) * torch.randn(table.shape, generator=generator))
    return copied


class QuotientRemainderGroup(ReducedGroup):
    """e = r * (1 + q), elementwise, with row id % m of the remainders and row id // m of the quotients.

    The published product with the quotients counted from 1: so they start near it, and weight decay pulls ids that share a
    remainder together instead of to zero.

    Parameters: per field (quotients + remainders) d, see `quotient_remainder_rows`.
    """

    divisors: Tensor
    wraps: Tensor

    def __init__(self, schema: FeatureSchema, fields: Sequence[int], rank: int, embed_dim: int) -> None:
        super().__init__(schema, fields, rank, embed_dim)
        rows = [quotient_remainder_rows(num_ids, embed_dim, rank) for num_ids in self.dims]
        self.quotients = PartTable([quotients for quotients, _ in rows], embed_dim)
        self.remainders = PartTable([remainders for _, remainders in rows], embed_dim)
        self.register_buffer("wraps", torch.tensor(self.quotients.field_dims), persistent=False)
        self.register_buffer("divisors", torch.tensor(self.remainders.field_dims), persistent=False)

    def row_macs(self) -> int:
        """A product a number."""
        return sum(self.look_ups) * self.embed_dim

    def fill_(self, position: int, source: TableSource) -> None:
        """Random values, seeded by a checksum of the old table, so that originals of other seeds get other values."""
        bits = source.weight.detach().cpu().float().contiguous().numpy().tobytes()
        generator = torch.Generator().manual_seed(zlib.crc32(bits))
        for table in (self.quotients, self.remainders):
            target = table.table.weight[table.rows_of(position)]
            target.copy_(source.init_std * torch.randn(target.shape, generator=generator))

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> e (B, fields of this group, d)."""
        own = self.own_ids(ids)
        fields = own.shape[1]
        divisors, wraps = self.divisors[:fields], self.wraps[:fields]
        quotients = self.quotients(torch.div(own, divisors, rounding_mode="floor") % wraps)
        return self.remainders(own % divisors) * (1 + quotients)  # type: ignore[no-any-return]

    def look_up(self, ids: Tensor, position: int) -> Tensor:
        """ids (...) of the table at `position` of this group -> e (..., d)."""
        divisor, wrap = self.remainders.field_dims[position], self.quotients.field_dims[position]
        quotients = self.quotients.look_up(torch.div(ids, divisor, rounding_mode="floor") % wrap, position)
        return self.remainders.look_up(ids % divisor, position) * (1 + quotients)

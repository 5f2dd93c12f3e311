"""Tables reduced in one basis for all fields: e_f = U z_f with the same U (d, k) for every field, no means.

Rotations leave inner products as they are, so a reader that only takes inner products of the vectors reads the latents z in their
place (FM, inner-product PNN, DLRM), and a map that treats every field alike (the Q, K and V of self-attention) folds into one
narrower map. The per-field bases of `compression.embedding` lose less variance at the same rank; this one costs less to serve.
"""

import torch
from torch import Tensor, nn

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.layers import FieldEmbedding, with_raw_values


class SharedBasisEmbedding(nn.Module):
    """The trainable form of a FieldEmbedding of width d, reduced to rank k: latents for every field, numeric ones included.

    Parameters: (sum of ids) k in the tables, V k for numeric fields unless they are raw, d k in `restore`.
    """

    def __init__(self, schema: FeatureSchema, embed_dim: int, rank: int, *, raw_values: bool = False) -> None:
        super().__init__()
        self.schema = schema
        self.embed_dim = embed_dim
        self.raw_values = raw_values
        self.latents = FieldEmbedding(schema, rank, raw_values=raw_values)
        self.restore = nn.Parameter(torch.zeros(embed_dim, rank))

    @property
    def compression_note(self) -> str:
        return "tables reduced already"

    @property
    def rank(self) -> int:
        """k."""
        return self.latents.embed_dim

    def row_macs(self) -> int:
        """Restoring every vector, those of lists included; the latents count their own."""
        return (self.latents.num_vectors + self.schema.list_width) * self.restore.numel()

    def forward(self, fields: Fields) -> Tensor:
        """-> (B, M, d), as FieldEmbedding gives it."""
        vectors: Tensor = self.latents(fields) @ self.restore.T
        return vectors

    def look_up(self, ids: Tensor, table: int) -> Tensor:
        """ids (...) of one of `schema.table_names` -> vectors (..., d), as FieldEmbedding gives them."""
        vectors: Tensor = self.latents.look_up(ids, table) @ self.restore.T
        return vectors

    def dense_input(self, embeddings: Tensor, fields: Fields) -> Tensor:
        """(B, M, d) -> (B, D), as FieldEmbedding gives it."""
        return with_raw_values(embeddings.flatten(1), fields, self.raw_values)


class Restored(nn.Module):
    """A reader that needs the vectors themselves, behind the projection that restores them: reader(U z).

    num_vectors: M. Parameters: d k in addition to the reader's.
    """

    def __init__(self, reader: nn.Module, embed_dim: int, rank: int, num_vectors: int) -> None:
        super().__init__()
        self.reader = reader
        self.num_vectors = num_vectors
        self.restore = nn.Parameter(torch.zeros(embed_dim, rank))

    def row_macs(self) -> int:
        """Restoring every vector; the reader counts its own."""
        return self.num_vectors * self.restore.numel()

    def forward(self, latents: Tensor) -> Tensor:
        """(B, M, k), or (B, M k + raw values) side by side, to what the reader gives for (B, M, d) or (B, M d + raw values)."""
        if latents.ndim == 3:
            return self.reader(latents @ self.restore.T)  # type: ignore[no-any-return]
        rank = self.restore.shape[1]
        vectors, raw = latents.split([self.num_vectors * rank, latents.shape[1] - self.num_vectors * rank], dim=1)
        restored = vectors.unflatten(1, (self.num_vectors, rank)) @ self.restore.T
        return self.reader(torch.cat([restored.flatten(1), raw], dim=1))  # type: ignore[no-any-return]


class SharedLatents(FieldEmbedding):
    """The serving form: latents (B, M, k) in place of vectors; its readers are folded, or restore them."""

    compression_note = "folded for serving"

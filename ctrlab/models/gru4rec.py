"""GRU4Rec (Hidasi, Karatzoglou, Baltrunas, Tikk: "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016).

The paper ranks the next item from the last state of a GRU over the session. Here that state joins the other fields, and the
item shown among them, in an MLP that gives the logit of its click, as in the interest extractor of DIEN (Zhou et al., AAAI 2019,
eq. 2 to 5) without its auxiliary loss.
"""

import torch
from torch import Tensor, nn

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import GRU4RecConfig
from ctrlab.models.layers import MLP, FieldEmbedding
from ctrlab.models.lists import elements_of
from ctrlab.models.recurrent import GRU


class GRU4Rec(CTRModel):
    """logit = MLP([e_1, ..., e_M, h_1, ..., h_K]), h_k the state of a GRU after the last element of list k, 0 for an empty one.

    Parameters, for K lists and H = hidden_dim: sum(table_dims) d in tables; V d unless numbers are raw; K times
    3 H (d + H + 2); the MLP's on D + K H inputs.
    """

    reads_lists = True

    def __init__(self, config: GRU4RecConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.embedding = FieldEmbedding.of(config, schema, lists=True)
        self.gru = nn.ModuleList(GRU(config.embed_dim, config.hidden_dim) for _ in schema.lists)
        self.mlp = MLP.of(config, self.embedding.dense_width + len(schema.lists) * config.hidden_dim)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        e = self.embedding.dense_input(self.embedding(fields), fields)
        states = [self._last_state(gru, fields, place) for place, gru in enumerate(self.gru)]
        return self.mlp(torch.cat([e, *states], dim=1)).squeeze(1)  # type: ignore[no-any-return]

    def _last_state(self, gru: nn.Module, fields: Fields, place: int) -> Tensor:
        """(B, H). Padding comes behind the elements, so that the states before it never saw it."""
        vectors, present = elements_of(self.embedding, fields, self.schema.lists[place])
        states = gru(vectors)
        length = present.sum(dim=1)
        last = (length - 1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, states.shape[2])
        return states.gather(1, last).squeeze(1) * (length > 0).unsqueeze(1)  # type: ignore[no-any-return]

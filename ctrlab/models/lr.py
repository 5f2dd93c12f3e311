"""Logistic regression over ids and numbers (Richardson, Dominowska, Ragno: "Predicting Clicks", WWW 2007)."""

from torch import Tensor

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import LRConfig
from ctrlab.models.layers import LinearTerm


class LR(CTRModel):
    """logit = w_0 + sum_i w_i x_i. Parameters: sum(field_dims) + V + 1."""

    def __init__(self, config: LRConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.linear = LinearTerm(schema)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        return self.linear(fields)  # type: ignore[no-any-return]

"""The start of a training at the base rate, for every architecture."""

from math import log

import torch
from torch import Tensor, nn

from ctrlab.data.schema import Fields
from ctrlab.models.base import CTRModel


def start_at_base_rate(model: CTRModel, num_clicks: float, num_rows: float) -> None:
    """Set the bias of a fresh model's output so that its logits start at the log odds of the click-through rate, in place.

    A model that starts at 0.5 spends its first steps on the base rate, and where clicks are rare it ends far from it. Half a
    click and half a non-click are added, so that the odds are finite. A model whose output has no bias is left as it is.
    """
    biases = output_biases(model)
    if not biases:
        return
    with torch.no_grad():
        for bias in biases:
            bias.zero_()
        biases[0].fill_(log((num_clicks + 0.5) / (num_rows - num_clicks + 0.5)) - float(_logits(model).mean()))


def output_biases(model: CTRModel) -> list[nn.Parameter]:
    """The parameters of one number that are added to every logit: those whose derivative is 1 in every row.

    Found by differentiation, so that architectures from outside need not name theirs.
    """
    single = [parameter for parameter in model.parameters() if parameter.numel() == 1]
    if not single:
        return []
    by_row = [torch.autograd.grad(logit, single, retain_graph=True, allow_unused=True) for logit in _logits(model)]
    return [
        parameter
        for parameter, found in zip(single, zip(*by_row, strict=True), strict=True)
        if all(derivative is not None and abs(float(derivative) - 1) < 1e-5 for derivative in found)
    ]


def _logits(model: CTRModel) -> Tensor:
    """(3,) logits in evaluation mode; the model's own mode is left as it is."""
    training = model.training
    model.eval()
    try:
        logits: Tensor = model(_some_rows(model, next(model.parameters()).device))
        return logits
    finally:
        model.train(training)


def _some_rows(model: CTRModel, device: torch.device) -> Fields:
    """Three rows that differ in every field."""
    schema, rows = model.schema, torch.arange(3, device=device)
    ids = [rows % dim for dim in schema.field_dims]
    lists = [(rows + 1) % schema.table_dims[schema.table_of(feature)] for feature in schema.lists for _ in range(feature.length)]
    values = [rows - 0.5 for _ in schema.value_names]
    return Fields(
        torch.stack(ids, dim=1).to(torch.int32) if ids else torch.empty(3, 0, dtype=torch.int32, device=device),
        torch.stack(values, dim=1).to(torch.float32) if values else torch.empty(3, 0, device=device),
        torch.stack(lists, dim=1).to(torch.int32) if lists else torch.empty(3, 0, dtype=torch.int32, device=device),
    )

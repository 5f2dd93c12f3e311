"""A small model of two tables and an MLP, written and trained as somebody outside ctrlab would, as source of a Python module."""

MAKER = '''
"""A model trained elsewhere."""

import numpy as np
import torch
from torch import nn


class TheirModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.site, self.ad = nn.Embedding(60, 8), nn.Embedding(90, 8)
        self.mlp = nn.Sequential(nn.Linear(17, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 1))
        self.scale = nn.Parameter(torch.ones(2, 2))

    def forward(self, ids, price):
        inputs = torch.cat([self.site(ids[:, 0]), self.ad(ids[:, 1]), price], 1)
        return torch.sigmoid(self.mlp(inputs)).squeeze(1)


def rows():
    draw = np.random.default_rng(0)
    ids = np.stack([draw.integers(0, 60, 4000), draw.integers(0, 90, 4000)], 1)
    price = draw.exponential(1.0, (4000, 1)).astype("float32")
    logits = 2.0 * (ids[:, 0] % 3 == 0) + 1.5 * (ids[:, 1] % 2 == 0) - 2.0
    clicks = (draw.random(4000) < 1 / (1 + np.exp(-logits))).astype("float32")
    batches = [(torch.tensor(ids[i : i + 500]), torch.tensor(price[i : i + 500])) for i in range(0, 4000, 500)]
    return batches, clicks


def trained():
    torch.manual_seed(0)
    model, (batches, clicks) = TheirModel(), rows()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(4):
        for number, batch in enumerate(batches[:6]):
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy(model(*batch), torch.tensor(clicks[500 * number : 500 * number + 500])).backward()
            optimizer.step()
    return model


def make():
    batches, clicks = rows()
    return trained(), batches, clicks


def make_untrained():
    batches, clicks = rows()
    return TheirModel(), batches, clicks


def make_without_labels():
    return trained(), rows()[0]


def make_with_evaluate():
    from ctrlab import OutsideModel

    batches, clicks = rows()

    def evaluate(module):
        with torch.no_grad():
            found = torch.cat([module(*batch) for batch in batches]).numpy()
        return float(np.corrcoef(found, clicks)[0, 1])

    return OutsideModel(module=trained(), batches=batches, evaluate=evaluate)


def make_fault():
    return 1 / 0


def make_nonsense():
    return 3
'''

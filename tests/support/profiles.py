"""Profiles of small models, and measured losses made up for them."""

from itertools import product

import numpy as np

from ctrlab.models.profiling import profile_model
from ctrlab.plans.ranks import pays
from ctrlab.plans.sensitivity import LayerSensitivity, Sensitivity
from tests.support.small_models import make_model


def profile_of(name="deepfm", schema=None, **settings):
    model = make_model(name, **({"schema": schema} if schema else {}), **settings)
    return profile_model(model)


def sensitivity_of(profile, seed=0):
    """Losses that fall with the rank, of very different sizes."""
    random = np.random.default_rng(seed)
    layers = {}
    for layer in profile.compressible:
        ranks = tuple(rank for rank in range(1, layer.out_features) if pays(layer, rank))
        losses = np.sort(random.exponential(size=len(ranks)) * 10 ** random.uniform(-4, -1))[::-1]
        layers[layer.layer_name] = LayerSensitivity(
            layer_name=layer.layer_name, width=layer.out_features, auc_dense=0.8, ranks=ranks,
            log_losses=tuple(0.5 + losses), aucs=tuple(0.8 - losses / 2), log_loss_increases=tuple(losses),
            auc_losses=tuple(losses / 2),
        )  # fmt: skip
    return Sensitivity(log_loss=0.5, auc=0.8, split="valid", num_rows=100, layers=layers)


def every_plan(profile):
    options = {
        layer.layer_name: [None, *(rank for rank in range(1, layer.out_features) if pays(layer, rank))]
        for layer in profile.compressible
    }
    for ranks in product(*options.values()):
        yield {name: rank for name, rank in zip(options, ranks, strict=True) if rank is not None}

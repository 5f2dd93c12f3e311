"""Twins of models for tests, without an engine around them."""

import itertools

from ctrlab.engines.fast.context import FastContext, Limits
from ctrlab.engines.fast.grouping import GroupingOnDemand
from ctrlab.engines.fast.twin import twin_of
from ctrlab.engines.products import Products
from ctrlab.kernels.parts import in_one_part

#: Fused operations whatever the sizes.
ALWAYS = Limits(most_distinct=1.0, least_width=1, least_macs=0)


def in_parts(count):
    """Loops in so many parts, one after the other."""

    def run(loop, total, *, elements=None):
        for first, last in itertools.pairwise([total * part // count for part in range(count + 1)]):
            loop(first, last)

    return run


def context(*, parts=in_one_part, products=None, compute_dtype="float32", sparse=False, limits=ALWAYS):
    return FastContext(parts, products or Products(), GroupingOnDemand(), compute_dtype, sparse, limits)


def twin(model, **settings):
    """The twin of a model, or of any module."""
    return twin_of(model, context(**settings))


def fast_layer(layer, *, relu=False, stays=False, **settings):
    """A FastLinear over the weights of a linear layer."""
    return twin(layer, **settings).fuse(relu=relu, before_linear=stays)


def library(name, choices=()):
    """Products that are all of one library, timed by a clock that favours it."""
    return Products(
        "timed", choices, timer=lambda product, x, weight: float(("onednn" in repr(product)) != (name == "onednn")), least_macs=0
    )

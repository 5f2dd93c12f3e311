"""Crosses of the DCN family and of xDeepFM against loops over the papers' formulas."""

import itertools

import pytest
import torch

from ctrlab.models.dcnv2 import MatrixCrossNetwork
from ctrlab.models.gdcn import GatedCrossNetwork
from ctrlab.models.xdeepfm import CompressedInteraction

ROWS, WIDTH = 3, 5


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_a_matrix_cross_multiplies_the_input_by_an_affine_map_and_adds():
    cross, x0 = MatrixCrossNetwork(WIDTH, 2), torch.randn(ROWS, WIDTH)
    found = cross(x0)
    for row in range(ROWS):
        x = x0[row].tolist()
        for layer in cross.layers:
            mapped = [sum(layer.weight[i, j] * x[j] for j in range(WIDTH)) + layer.bias[i] for i in range(WIDTH)]
            x = [x0[row, i] * mapped[i] + x[i] for i in range(WIDTH)]
        torch.testing.assert_close(found[row], torch.stack(x), atol=1e-5, rtol=1e-5)


def test_a_gated_cross_lets_each_cross_pass_as_its_gate_says():
    cross, c0 = GatedCrossNetwork(WIDTH, 2), torch.randn(ROWS, WIDTH)
    found = cross(c0)
    for row in range(ROWS):
        c = c0[row].tolist()
        for layer, gate in zip(cross.crosses, cross.gates, strict=True):
            mapped = [sum(layer.weight[i, j] * c[j] for j in range(WIDTH)) + layer.bias[i] for i in range(WIDTH)]
            opened = [torch.sigmoid(sum(gate.weight[i, j] * c[j] for j in range(WIDTH))) for i in range(WIDTH)]
            c = [c0[row, i] * mapped[i] * opened[i] + c[i] for i in range(WIDTH)]
        torch.testing.assert_close(found[row], torch.stack(c), atol=1e-5, rtol=1e-5)


def test_a_compressed_interaction_sums_weighted_products_of_whole_vectors():
    fields, d, dims = 4, 3, (5, 2)
    cin, e = CompressedInteraction(fields, d, dims), torch.randn(ROWS, fields, d)
    found = cin(e)
    for row in range(ROWS):
        below, pooled = [e[row, i] for i in range(fields)], []
        for layer in cin.layers:
            vectors = []
            for h in range(layer.out_features):
                vector = layer.bias[h].expand(d).clone()
                for (i, left), (j, right) in itertools.product(enumerate(below), enumerate(e[row])):
                    vector = vector + layer.weight[h, i * fields + j] * left * right
                vectors.append(vector)
            below = vectors
            pooled += [vector.sum() for vector in vectors]
        torch.testing.assert_close(found[row], torch.stack(pooled), atol=1e-5, rtol=1e-5)

"""The profile of a model: one forward pass, and readers that are known whatever was imported."""

import subprocess
import sys

import pytest
from torch import nn

from ctrlab.compression.readers import rule_for
from ctrlab.models.configs import MODELS
from ctrlab.models.cost import measure_cost
from ctrlab.models.folding import readers_of
from ctrlab.models.profiling import profile_model
from tests.support.small_models import make_model


@pytest.mark.parametrize("name", MODELS.names())
def test_a_profile_takes_one_forward_pass_of_one_row(name):
    model, rows = make_model(name).train(), []
    model.register_forward_pre_hook(lambda module, args: rows.append(len(args[0].ids)))
    profile = profile_model(model)
    assert rows == [1] and model.training
    assert profile.cost == measure_cost(model)


@pytest.mark.parametrize("name", MODELS.names())
def test_every_reader_that_is_said_to_fold_has_a_rule(name):
    model = make_model(name)
    for embedding in model.embedding_readers:
        for reader in readers_of(model, embedding):
            module = model.get_submodule(reader.name)
            if reader.foldable:
                assert callable(rule_for(module))
            else:
                assert all(number == 0 for number in (reader.parameters_slope, reader.macs_slope, *reader.own.to_dict().values()))


def test_a_class_without_a_registered_rule_is_named():
    with pytest.raises(LookupError, match="Tanh"):
        rule_for(nn.Tanh())


FRESH = """
import sys
from ctrlab.compression.linear import FactoredLinear
from ctrlab.models.folding import readers_of
from tests.support.small_models import make_model
model = make_model("dcn")
first = model.mlp[0]
model.extra = FactoredLinear(first.in_features, 3, first.out_features)
type(model).embedding_readers = {"embedding": ("extra",)}
assert not any(name.startswith("ctrlab.compression.readers") for name in sys.modules)
(reader,) = readers_of(model, "embedding")
assert reader.foldable and reader.first_layers == ("extra",)
"""


def test_a_factored_reader_is_known_before_any_folding_rule_is_imported():
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

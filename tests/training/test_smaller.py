import pytest
import torch

from ctrlab.errors import ConfigError
from ctrlab.models.base import build_model
from ctrlab.models.configs import MODELS
from ctrlab.training.smaller import num_parameters, smaller_config
from tests.support.small_models import SCHEMA, small_config


@pytest.mark.parametrize("name", MODELS.names())
def test_every_architecture_shrinks_to_what_is_asked_for_and_still_builds(name):
    config = small_config(name, embed_dim=16, mlp_dims=(64, 48))
    whole = num_parameters(config, SCHEMA)
    assert whole == sum(parameter.numel() for parameter in build_model(config, SCHEMA).parameters())
    try:
        smaller = smaller_config(config, SCHEMA, whole // 2)
    except ConfigError as error:  # what is no width takes more than half
        assert "ask for that or more" in str(error)
        return
    model = build_model(smaller, SCHEMA)
    assert whole // 8 < sum(parameter.numel() for parameter in model.parameters()) <= whole // 2
    assert type(smaller) is type(config)


def test_a_model_that_fits_stays_as_it_is():
    config = small_config("deepfm")
    assert smaller_config(config, SCHEMA, num_parameters(config, SCHEMA)) is config


def test_too_few_parameters_are_refused_with_the_least_there_can_be():
    config = small_config("deepfm")
    with pytest.raises(ConfigError, match="no DeepFM has at most 10 parameters") as refusal:
        smaller_config(config, SCHEMA, 10)
    least = int(str(refusal.value).split("it has ")[1].split(":")[0].replace(",", ""))
    assert num_parameters(smaller_config(config, SCHEMA, least), SCHEMA) == least


def test_counting_draws_no_random_numbers():
    state = torch.get_rng_state()
    num_parameters(small_config("dcn"), SCHEMA)
    assert torch.equal(torch.get_rng_state(), state)

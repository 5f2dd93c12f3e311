"""Settings of a training that follow from its rows."""

import math

import numpy as np
import pytest
import torch

from ctrlab.errors import ConfigError
from ctrlab.models.configs import MODELS
from ctrlab.models.start import output_biases, start_at_base_rate
from ctrlab.training.automatic import resolve, schedule_for
from ctrlab.training.configs import FINETUNE, FitConfig
from ctrlab.training.loop import fit
from tests.support.small_models import MemoryDataset, make_model, random_fields


@pytest.mark.parametrize("rows", [1, 2, 63, 800, 8000, 33_000, 137_000, 202_027, 1_000_000, 45_000_000])
def test_an_epoch_has_enough_steps_and_large_data_is_read_once(rows):
    found = schedule_for(FitConfig(), rows)
    steps = math.ceil(rows / found.batch_size)
    assert steps >= min(100, rows // 64)
    assert 64 <= found.batch_size <= 1024 and 1 <= found.epochs <= 20 and 1 <= found.evaluations_per_epoch <= 4
    assert found.epochs * rows <= 3_000_000 or found.epochs == 1
    if rows >= 1_500_000:
        assert found == (1024, 1, 4)


def test_batches_grow_and_epochs_shrink_with_the_rows():
    found = [schedule_for(FitConfig(), int(rows)) for rows in np.geomspace(10, 1e8, 60)]
    assert [own.batch_size for own in found] == sorted(own.batch_size for own in found)
    assert [own.epochs for own in found] == sorted((own.epochs for own in found), reverse=True)


def test_numbers_that_are_given_stay():
    given = FitConfig(epochs=3, batch_size=17, evaluations_per_epoch=9)
    assert schedule_for(given, 5_000_000) == (17, 3, 9) and resolve(given, 5_000_000) == given


def test_the_best_model_is_by_log_loss_unless_the_person_says_otherwise():
    assert FitConfig().monitor == FINETUNE.monitor == "log_loss"


def test_a_fit_records_the_numbers_it_took_and_they_repeat_it():
    data, model = MemoryDataset(num_train=600), make_model("deepfm")
    first = fit(model, data, FitConfig(device="cpu", patience=2))
    assert (first.config.batch_size, first.config.epochs) == (64, 20)
    again = fit(model, data, first.config)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True))


@pytest.mark.parametrize("architecture", MODELS.names())
def test_every_architecture_starts_at_the_base_rate(architecture):
    model = make_model(architecture, noise=0.0)
    before = model.training
    start_at_base_rate(model, num_clicks=20, num_rows=10_000)
    assert model.training == before
    model.eval()
    with torch.no_grad():
        chances = torch.sigmoid(model(random_fields(500)))
    assert float(chances.mean()) == pytest.approx(0.002, rel=0.35)


def test_the_bias_of_a_model_that_starts_with_one_is_that_of_its_output():
    for architecture in MODELS.names():
        found = output_biases(make_model(architecture))
        assert found and all(parameter.numel() == 1 for parameter in found), architecture


@pytest.mark.parametrize(("clicks", "rows"), [(0, 100), (100, 100)])
def test_rows_of_one_class_give_a_finite_start(clicks, rows):
    model = make_model("lr")
    start_at_base_rate(model, clicks, rows)
    assert abs(output_biases(model)[0].item()) == pytest.approx(math.log(201), abs=0.1)


def test_a_setting_of_zero_is_refused():
    with pytest.raises(ConfigError, match="epochs must be between 1"):
        FitConfig(epochs=0)

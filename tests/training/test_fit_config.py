import subprocess
import sys
from dataclasses import fields

import pytest

from ctrlab.errors import ConfigError
from ctrlab.training.configs import FINETUNE, FitConfig
from tests.support.patience import PATIENCE


def test_the_form_can_be_drawn_without_torch():
    code = "import sys, ctrlab.training.configs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert done.stdout.strip() == "False"


def test_every_setting_explains_itself():
    assert all(field.metadata["help"] for field in fields(FitConfig))


def test_settings_survive_json():
    config = FitConfig(epochs=3, optimizer="adam", keep_initial=True)
    assert FitConfig.from_json(config.to_json()) == config


def test_all_faults_are_said_at_once():
    with pytest.raises(ConfigError, match=r"epochs must be between 1 and 1000, got 0.*optimizer must be one of adam, lazy_adam"):
        FitConfig(epochs=0, optimizer="sgd")


def test_fine_tuning_starts_below_the_rate_of_training_and_counts_the_model_as_it_came():
    assert FINETUNE.learning_rate < FitConfig().learning_rate
    assert FINETUNE.keep_initial

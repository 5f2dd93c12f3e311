"""Flags made from config classes."""

import argparse

from ctrlab.cli.flags import add_config_flags, config_from_flags
from ctrlab.training.configs import FINETUNE, FitConfig


def test_flags_that_are_not_given_leave_the_settings_of_the_base():
    parser = argparse.ArgumentParser()
    add_config_flags(parser, FitConfig, base=FINETUNE)
    assert config_from_flags(FitConfig, parser.parse_args([]), base=FINETUNE) == FINETUNE
    given = parser.parse_args(["--epochs", "3"])
    assert config_from_flags(FitConfig, given, base=FINETUNE) == FINETUNE.replace(epochs=3)
    assert f"(default {FINETUNE.learning_rate})" in " ".join(parser.format_help().split())
    assert config_from_flags(FitConfig, given) == FitConfig(epochs=3)

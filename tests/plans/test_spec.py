"""The spec of a compression: one object, one declaration for form, flag and JSON."""

import argparse

import pytest

from ctrlab.cli.flags import add_config_flags, config_from_flags
from ctrlab.config import choices_of
from ctrlab.errors import ConfigError
from ctrlab.plans.configs import CompressConfig, CompressionSpec, RankPlan
from ctrlab.plans.methods import METHODS
from ctrlab.services.previews import PreviewRequest

RANKS = {"mlp.0": 3, "embedding.ad": 2}


def test_a_run_is_a_spec_with_a_training_and_its_json_is_flat():
    config = CompressConfig.of(RANKS, method="svd", basis="shared", precision="int8", order="joint", max_rows=1000)
    values = config.to_dict()
    assert isinstance(config, CompressionSpec) and CompressConfig.from_dict(values) == config
    assert set(values) == {
        "version", "plan", "method", "bottleneck", "basis", "order", "finetune", "recovery", "precision", "max_rows",
        "layer_precisions",
    }  # fmt: skip


def test_configs_that_were_written_before_specs_load():
    stored = {
        "version": 1, "plan": {"version": 1, "ranks": [{"version": 1, "layer_name": "mlp.0", "rank": 3}]}, "method": "afm",
        "bottleneck": "none", "basis": "per_field", "order": "mlp_first", "finetune": None, "precision": "float32",
        "max_rows": None,
    }  # fmt: skip
    assert CompressConfig.from_dict(stored) == CompressConfig.of({"mlp.0": 3})


def test_every_setting_but_plan_and_training_becomes_a_flag():
    parser = argparse.ArgumentParser()
    add_config_flags(parser, CompressConfig)
    args = parser.parse_args(
        [
            "--method",
            "svd",
            "--bottleneck",
            "prelu",
            "--basis",
            "shared",
            "--precision",
            "int4",
            "--order",
            "joint",
            "--max-rows",
            "9",
        ]
    )
    config = config_from_flags(CompressConfig, args, plan=RankPlan.of(RANKS))
    assert config == CompressConfig.of(
        RANKS, method="svd", bottleneck="prelu", basis="shared", precision="int4", order="joint", max_rows=9
    )
    with pytest.raises(SystemExit):
        parser.parse_args(["--method", "nothing"])


def test_the_methods_to_choose_from_are_those_registered_with_their_titles():
    assert choices_of(CompressionSpec, "method") == {entry.name: entry.title for entry in METHODS}
    with pytest.raises(ConfigError, match="method must be one of afm, weighted_afm, svd"):
        CompressionSpec(method="nothing")


def test_a_preview_request_travels_as_json_and_equal_ones_are_one_key():
    request = PreviewRequest(model_id="m", spectra_id="s", spec=CompressionSpec.of(RANKS, bottleneck="relu"))
    assert PreviewRequest.from_dict(request.to_dict()) == request
    assert len({request, PreviewRequest.from_dict(request.to_dict())}) == 1

"""The command line compresses what a function named `module:function` makes; nothing else can name one."""

import json
import sys

import pytest
from safetensors import safe_open

from ctrlab.__main__ import main
from ctrlab.errors import ConfigError
from ctrlab.services.factories import make_module

MAKER = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 1))
    return module, [torch.randn(256, 20)]

def half():
    return make()[0]

number = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "maker_of_modules.py").write_text(MAKER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("maker_of_modules", None)


def test_a_factory_in_the_working_folder_is_compressed_and_written_with_its_plan_beside_it(folder, capsys):
    output = folder / "out" / "small.safetensors"
    words = ["compress-module", "--factory", "maker_of_modules:make", "--ranks", "2=5", "--output", str(output), "--json"]
    assert main(words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ranks"] == {"2": 5} and answer["skipped"].keys() >= {"4"}
    assert json.loads(output.with_suffix(".json").read_text())["ranks"] == {"2": 5}
    with safe_open(output, "pt") as file:
        assert sum(file.get_tensor(name).numel() for name in file.keys()) == (  # noqa: SIM118
            20 * 40 + 40 + 5 * (40 + 30) + 5 + 30 + 31
        )


def test_without_json_the_layers_are_a_table(folder, capsys):
    assert (
        main(["compress-module", "--factory", "maker_of_modules:make", "--variance", "0.5", "--output", "small.safetensors"]) == 0
    )
    out = capsys.readouterr().out
    assert out.startswith("layer") and "skipped 4: " in out and "small.json" in out


def test_a_plan_file_and_a_filter_choose_layers_and_few_rows_are_warned_of(folder, capsys):
    (folder / "plan.json").write_text('{"0": 5, "2": 6}')
    (folder / "maker_of_modules.py").write_text(MAKER.replace("256, 20", "25, 20"))
    start = ["compress-module", "--factory", "maker_of_modules:make", "--output", "small.safetensors", "--json"]
    assert main([*start, "--plan", "plan.json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["ranks"] == {"0": 5, "2": 6} and "warning: layer 0 has 40 outputs and saw 25 rows" in told.err
    assert main([*start, "--variance", "0.3", "--filter", "2"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer["ranks"]) == {"2"} and answer["skipped"]["0"] == "left out by filter_fn"


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("maker_of_modules", "must be written module:function"),
        ("no_such_module:make", "no_such_module cannot be imported"),
        ("maker_of_modules:nothing", "has no function nothing"),
        ("maker_of_modules:number", "has no function number"),
        ("maker_of_modules:half", r"must return a pair \(module, batches\); got Sequential"),
    ],
)
def test_a_factory_that_cannot_be_used_is_one_sentence(factory, message):
    with pytest.raises(ConfigError, match=message):
        make_module(factory)

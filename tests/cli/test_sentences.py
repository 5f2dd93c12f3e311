"""A wrong argument, path or setting is one sentence and exit code 1, never a traceback (cases C1 and C2)."""

import argparse

import pytest

from ctrlab.__main__ import main, run_verb
from ctrlab.cli.flags import parse_assignments, parse_ranks, parse_settings
from ctrlab.errors import ConfigError
from ctrlab.models.configs import MODELS
from ctrlab.services.models import TrainConfig
from ctrlab.training.batch_norm import one_row_fault
from ctrlab.training.configs import FitConfig


@pytest.fixture
def refused(small_lab, capsys):
    """Run words that must be refused; returns the sentence. DATASET and MODEL stand for the ids of the small home."""
    ids = {"DATASET": small_lab.dataset.id, "MODEL": small_lab.model.id}

    def call(*words):
        code = main([*(ids.get(str(word), str(word)) for word in words), "--home", str(small_lab.lab.workspace.home)])
        printed = capsys.readouterr()
        assert code == 1 and printed.out == ""
        *progress, sentence = printed.err.splitlines()
        assert all("%" in line for line in progress), progress
        assert sentence.startswith("ctrlab: ") and "unexpected" not in sentence
        return sentence

    return call


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["compress", "MODEL", "--ranks", "mlp.0"], ["LAYER=RANK", "mlp.0"]),
        (["compress", "MODEL", "--ranks", "mlp.0=x"], ["mlp.0", "'x'"]),
        (["compress", "MODEL", "--ranks", "mlp.0=2", "mlp.0=3"], ["mlp.0 is given twice"]),
        (["compress", "MODEL", "--plan", "no-such-plan.json"], ["no-such-plan.json", "plan --output"]),
        (["train", "DATASET", "--set", "embed_dim"], ["NAME=VALUE", "embed_dim"]),
        (["train", "DATASET", "--set", "no_such=1"], ["no_such"]),
        (["data", "encode", "t.csv", "--config", "no-such-file.json"], ["no-such-file.json", "No such file"]),
        (["data", "encode", "t.csv", "--config", "."], ["Is a directory"]),
        (["compare", "MODEL", "--csv", "/no/such/folder/x.csv"], ["/no/such/folder/x.csv", "No such file"]),
        (["export", "MODEL", "/dev/null/out"], ["/dev/null/out", "Not a directory"]),
        (["plan", "MODEL", "--parameters", "900", "--output", "/no/such/folder/plan.json"], ["/no/such/folder/plan.json"]),
    ],
)
def test_a_wrong_argument_or_path_is_one_sentence_that_names_it(refused, words, names):
    sentence = refused(*words)
    assert all(name in sentence for name in names), sentence


def test_a_file_that_is_not_utf8_is_refused_as_a_config(refused, tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    assert "config.json cannot be read" in refused("data", "encode", "t.csv", "--config", tmp_path / "config.json")


def test_batch_norm_with_one_row_a_batch_is_refused_before_the_job(small_lab, refused):
    sentence = refused("train", "DATASET", "--set", "batch_norm=true", "--batch-size", "1")
    assert "batch_norm" in sentence and "batch_size is 1" in sentence
    assert not [job for job in small_lab.lab.workspace.store.jobs.list() if job.state == "failed"]


def test_fine_tuning_by_single_rows_is_refused_where_the_model_normalises(small_lab, refused, brief_timings):
    settings = {"embed_dim": 2, "mlp_dims": [4], "batch_norm": True}
    fit = FitConfig(batch_size=1024)
    model = small_lab.lab.train(TrainConfig(dataset_id=small_lab.dataset.id, architecture="deepfm", model=settings, fit=fit))
    assert "batch_size is 1" in refused("compress", model.id, "--ranks", "mlp.0=2", "--batch-size", "1")


def test_only_batches_that_are_all_of_one_row_are_a_fault():
    assert one_row_fault(1000, FitConfig(batch_size=1)) and one_row_fault(1, FitConfig(batch_size=64))
    assert one_row_fault(65, FitConfig(batch_size=64)) is None  # the last batch of one row is left out


def test_a_name_may_hold_an_equals_sign():
    assert parse_ranks(["embedding.a=b=4"]) == {"embedding.a=b": 4}
    roles = ("categorical", "numeric")
    found = parse_assignments(["a=b=numeric", "x=categorical=y"], accepts=lambda name, role: role in roles)
    assert found == {"a=b": "numeric", "x=categorical": "y"}
    assert parse_settings(MODELS["deepfm"].config_class, ["embed_dim=4"]) == {"embed_dim": 4}
    with pytest.raises(ConfigError, match="expected NAME=VALUE, got embed_dim"):
        parse_settings(MODELS["deepfm"].config_class, ["embed_dim"])


class Panic(BaseException):
    """As compiled libraries raise, which are no Exceptions."""


@pytest.mark.parametrize(
    "error", [Panic("index\nout of range"), MemoryError(), RecursionError("deep"), argparse.ArgumentTypeError("x")]
)
def test_any_error_of_a_verb_is_one_line_with_the_path_of_the_log(tmp_path, capsys, error):
    def verb(args):
        raise error

    assert run_verb(argparse.Namespace(run=verb, json=False, home=tmp_path)) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and type(error).__name__ in printed and "cli.log" in printed
    assert "Traceback" in (tmp_path / "cli.log").read_text()


def test_an_interrupt_ends_quietly(tmp_path, capsys):
    def verb(args):
        raise KeyboardInterrupt

    assert run_verb(argparse.Namespace(run=verb, json=False, home=tmp_path)) == 130
    assert capsys.readouterr().err == ""

"""`export` and `predict`: a bundle from a model, and the probabilities of rows without a label."""

import io
import json
import sys
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from ctrlab.__main__ import main
from ctrlab.evaluation.metrics import sigmoid
from ctrlab.evaluation.prediction import predict_logits
from ctrlab.services.work.shared import open_serving
from ctrlab.services.workspace import open_workspace

CASES = Path(__file__).parents[1] / "data" / "cases"


@pytest.fixture(scope="module")
def home(tmp_path_factory, brief_timings):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def run(home, capsys):
    def call(*words):
        code = main([*map(str, words), "--home", str(home), "--json"])
        printed = capsys.readouterr()
        return code, json.loads(printed.out)

    return call


def train(run, *files):
    """The id of a model of the table in these files."""
    _, dataset = run("data", "encode", *files, "--name", files[0].stem)
    _, model = run("train", dataset["id"], "--model", "lr", "--epochs", "1")
    return model["id"]


@pytest.fixture(scope="module")
def models():
    return {}


def model_of(run, models, *files):
    if files not in models:
        models[files] = train(run, *files)
    return models[files]


def test_a_test_file_without_labels_gets_the_probabilities_that_its_labelled_rows_have(run, home, models, tmp_path):
    """Splits in files of their own; the third has no label, as a competition's test file."""
    model = model_of(run, models, CASES / "nolabel_train.csv", CASES / "nolabel_valid.csv", "--files", "splits")
    code, scored = run("predict", model, CASES / "test_nolabel.csv", "-o", tmp_path / "scores.csv")
    assert code == 0 and scored["rows"] == 400 and scored["notes"] == []
    workspace = open_workspace(home)
    _, served, dataset = open_serving(workspace, model)
    workspace.store.close()
    expected = sigmoid(predict_logits(served, dataset.split("valid")))
    assert pd.read_csv(tmp_path / "scores.csv")["probability"].to_numpy() == pytest.approx(expected, abs=1e-5)


def test_a_bundle_scores_a_file_and_standard_input_alike_with_and_without_the_label(run, models, tmp_path, monkeypatch):
    model = model_of(run, models, CASES / "plain.csv")
    _, exported = run("export", model, tmp_path / "bundle")
    names = {Path(path).name for path in exported["files"]}
    assert {"model.onnx", "model.ids.onnx", "bundle.json", "examples.json", "README.md", "model.safetensors"} <= names
    for number, table in enumerate((CASES / "plain.csv", CASES / "plain_nolabel.csv")):
        code, scored = run("predict", tmp_path / "bundle", table, "-o", tmp_path / f"{number}.parquet", "--keep", "site")
        assert code == 0 and scored["rows"] == 1200 and scored["bundle"] == exported["bundle"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((CASES / "plain_nolabel.csv").read_bytes())))
    run("predict", tmp_path / "bundle", "-", "-o", tmp_path / "2.parquet", "--keep", "site")
    first, *others = [pl.read_parquet(tmp_path / f"{number}.parquet") for number in range(3)]
    assert all(first.equals(other) for other in others) and first["probability"].is_between(0, 1).all()


def test_what_cannot_be_scored_is_one_sentence(run, models, tmp_path):
    model = model_of(run, models, CASES / "plain.csv")
    run("export", model, tmp_path / "bundle")
    faults = [
        (("predict", tmp_path / "bundle", CASES / "nolabel_train.csv", "-o", tmp_path / "o.csv"), "no column price, hour"),
        (("predict", tmp_path / "bundle", tmp_path / "absent.csv", "-o", tmp_path / "o.csv"), "absent.csv"),
        (("predict", tmp_path, CASES / "plain.csv", "-o", tmp_path / "o.csv"), "holds no bundle"),
        (("predict", "model-none", CASES / "plain.csv", "-o", tmp_path / "o.csv"), "model-none"),
        (("predict", tmp_path / "bundle", CASES / "plain.csv", "-o", tmp_path / "o.xlsx"), ".csv or .parquet"),
    ]
    for words, expected in faults:
        code, found = run(*words)
        assert code == 1 and expected in found["error"]
    assert not (tmp_path / "o.csv").exists()

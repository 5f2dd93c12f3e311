"""The command line: every verb works, `--json` prints one object, and errors are one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ctrlab.__main__ import main


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def run(home, capsys, brief_timings):
    """Run a verb with --json and return (exit code, its object)."""

    def call(*words):
        code = main([*map(str, words), "--json", "--home", str(home)])
        out = capsys.readouterr().out
        return code, json.loads(out)

    return call


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("raw") / "ads.csv"
    rows = [f"{(i * 7919 % 13 < 4) ^ (i % 17 == 0):d},s{i % 13},a{i * i % 31}" for i in range(2000)]
    path.write_text("\n".join(["click,site,ad", *rows]) + "\n")
    return path


def test_the_workflow_by_verbs(run, table, tmp_path):
    code, inspected = run("data", "inspect", table)
    assert code == 0 and {c["name"]: c["role"] for c in inspected["columns"]} == {
        "click": "label", "site": "categorical", "ad": "categorical"
    }  # fmt: skip
    _, dataset = run(
        "data", "encode", table, "--name", "ads", "--train", "0.7", "--valid", "0.15", "--test", "0.15", "--seed", "3"
    )
    assert sum(dataset["summary"]["rows"].values()) == 2000
    _, model = run("train", dataset["id"], "--set", "embed_dim=8", "mlp_dims=128,16", "--batch-size", "128", "--epochs", "2")
    assert model["config"]["model"]["mlp_dims"] == [128, 16]
    _, spectra = run("spectra", model["id"], "--values")
    assert {row["layer"] for row in spectra["layers"]} == set(spectra["singular_values"])
    _, compressed = run("compress", model["id"], "--ranks", "mlp.2=4", "embedding.*=2", "--epochs", "1", "--batch-size", "128")
    assert compressed["summary"]["compression"]["ranks"] == {"mlp.2": 4, "embedding.site": 2, "embedding.ad": 2}
    csv = tmp_path / "comparison.csv"
    _, compared = run("compare", model["id"], compressed["id"], "--csv", csv)
    assert compared["models"][1]["parameters"] < compared["models"][0]["parameters"]
    assert len(csv.read_text().splitlines()) == 3
    _, exported = run("export", compressed["id"], tmp_path / "out")
    assert {"model.onnx", "bundle.json", "serving.safetensors"} <= {Path(path).name for path in exported["files"]}
    _, exported = run("export", model["id"], tmp_path / "out", "--integers", "--max-auc-loss", 0.3, "--user-fields", "site")
    assert exported["integers"]["layers"] >= 1 and "serve" in exported["integers"]["advice"]
    assert "model.ids-user.onnx" in {Path(path).name for path in exported["files"]}
    _, jobs = run("jobs")
    assert [job["state"] for job in jobs["jobs"]] == ["succeeded"] * 7
    _planning(run, model["id"], tmp_path, compared["models"][0]["parameters"])
    _, job = run("jobs", "show", jobs["jobs"][0]["id"])
    assert job["kind"] == "bundle"
    _, datasets = run("data", "list")
    assert [d["id"] for d in datasets["datasets"]] == [dataset["id"]]


def _planning(run, model, folder, original_parameters):
    _, measured = run("sensitivity", model, "--max-rows", "200")
    assert measured["num_rows"] == 200 and {row["layer"] for row in measured["ranks"]} >= {"mlp.2", "embedding.ad"}
    code, refused = run("plan", model, "--parameters", "10")
    assert code == 1 and "ask for that or more" in refused["error"]
    _, planned = run("plan", model, "--parameters", "900", "--output", folder / "plan.json")
    chosen = next(row for row in planned["candidates"] if row["plan"] == planned["chosen"])
    assert chosen["parameters"] <= 900 and chosen["bits"] == planned["precision"] == "float32"
    _, smaller = run("plan", model, "--bytes", "3000", "--bits", "planned", "--method", "weighted_afm", "--aim", "auc")
    assert all(row["bytes"] <= 3000 for row in smaller["candidates"]) and smaller["method"] == "weighted_afm"
    assert {row["plan"] for row in smaller["candidates"]} >= {"planned, int8", "planned, mixed"}
    for words in (["--times", "2", "--of", "parameters"], ["--share", "0.5", "--of", "parameters"]):
        _, halved = run("plan", model, *words)
        (candidate,) = [row for row in halved["candidates"] if row["plan"] == halved["chosen"]]
        assert candidate["parameters"] <= original_parameters / 2 < 2 * candidate["parameters"]
    code, refused = run("plan", model, "--times", "0.5")
    assert code == 1 and refused["error"] == "--times must be 1 or more, got 0.5"
    _, smallest = run("plan", model, "--auc-loss", "0.5")
    assert smallest["candidates"][0]["parameters"] <= chosen["parameters"]
    _, timed = run("speed", model, "--batch-size", "64", "--seconds-per-timing", "0.02")
    _, fast = run("plan", model, "--latency-ms", "1000", "--batch", "64", "--output", folder / "fast.json")
    assert timed["batch_size"] == fast["batch_size"] == 64 and 0 < fast["tried"][-1]["measured_ms"] <= 1000
    assert json.loads((folder / "fast.json").read_text())["ranks"] == [
        {"version": 1, "layer_name": name, "rank": rank} for name, rank in fast["plan"].items()
    ]
    code, refused = run("plan", model, "--latency-ms", "0.00001", "--batch", "64")
    assert code == 1 and "ask for that or more" in refused["error"]
    _, compressed = run("compress", model, "--plan", folder / "plan.json", "--no-finetune", "--no-measure")
    assert compressed["summary"]["compression"]["ranks"] == planned["plan"]
    values = json.loads((folder / "plan.json").read_text()) | {"precision": "int8"}
    values["layer_precisions"] = [{"layer_name": "embedding.ad", "precision": "int4"}]
    (folder / "bits.json").write_text(json.dumps(values))
    _, mixed = run("compress", model, "--plan", folder / "bits.json", "--no-finetune", "--no-measure")
    assert mixed["config"]["compression"]["precision"] == "int8"
    assert mixed["summary"]["cost_serving"]["bytes_tables"] < compressed["summary"]["cost_serving"]["bytes_tables"]
    _, small = run("compress", model, "--all-dense", "--precision", "int8", "--no-finetune")
    assert small["summary"]["compression"]["ranks"] == {}
    cost, before = small["summary"]["cost_serving"], small["summary"]["cost"]
    assert cost["parameters_tables"] == before["parameters_tables"] and cost["bytes_tables"] < before["bytes_tables"] / 2
    code, refused = run("compress", model, "--all-dense", "--no-finetune")
    assert code == 1 and "every layer dense" in refused["error"]
    code, refused = run("compress", model, "--plan", folder / "none.json")
    assert code == 1 and "cannot be read" in refused["error"]


def test_known_datasets_have_an_address(run):
    _, known = run("data", "known")
    assert {"criteo", "avazu", "frappe_x1", "movielens"} <= set(known)
    assert all(facts["address"].startswith("http") for facts in known.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data", "inspect", "/nowhere/at/all.csv"], "/nowhere/at/all.csv"),
        (["spectra", "model-ffffffff"], "model-ffffffff"),
        (["train", "ds-ffffffff", "--epochs", "0"], "epochs must be between"),
        (["compress", "model-ffffffff", "--ranks", "mlp.0=many"], "whole number"),
        (["jobs", "cancel"], "needs the id"),
    ],
)
def test_an_error_is_one_sentence_and_exit_code_one(run, words, message):
    code, answer = run(*words)
    assert code == 1
    assert message in answer["error"] and "\n" not in answer["error"]


def test_without_json_the_sentence_goes_to_standard_error(home, capsys):
    assert main(["spectra", "model-ffffffff", "--home", str(home)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("ctrlab: ")


def test_the_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "ctrlab", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0.1.0"

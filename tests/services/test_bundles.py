"""Bundles by job: raw rows to probabilities without torch or ctrlab, whole or refused; and scores of whole tables."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression

import ctrlab
from ctrlab.data.configs import SourceConfig
from ctrlab.data.dataset import EncodedDataset
from ctrlab.errors import ConfigError, CtrlabError, DataError, JobCancelled, ServingError, StorageError
from ctrlab.evaluation.metrics import sigmoid
from ctrlab.evaluation.prediction import predict_logits
from ctrlab.services import bundles, scores
from ctrlab.services.runner import run_job
from ctrlab.services.work.shared import open_serving
from ctrlab.serving.bundle.calibration import fit_calibration
from ctrlab.serving.bundle.score import ScoreTable, score_table
from tests.support.small_lab import write_table

#: As the bundle's README has it, without ctrlab and torch.
STRANGER = """
import csv, sys
import numpy as np, onnxruntime
folder, table = sys.argv[1:]
session = onnxruntime.InferenceSession(folder + "/model.onnx")
rows = list(csv.DictReader(open(table)))
feeds = {}
for value in session.get_inputs():
    cells = [row[value.name] for row in rows]
    feeds[value.name] = np.array(cells, object) if "string" in value.type else np.array([float(c or "nan") for c in cells])
print("\\n".join(map(repr, session.run(None, feeds)[0].tolist())))
assert not {"torch", "ctrlab"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def lab(small_lab):
    return small_lab.lab


@pytest.fixture(scope="module")
def made(lab, small_lab):
    return lab.bundle(small_lab.model.id)


@pytest.fixture(scope="module")
def folder(made):
    return made.path / bundles.BUNDLE_FOLDER


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A table without its label, with cells that training did not have and missing ones."""
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    table = pd.read_csv(write_table(path, rows=500, seed=5)).drop(columns="click").astype({"price": object})
    table.loc[3, "site"], table.loc[4, "site"], table.loc[5, "price"], table.loc[6, "ad"] = "never seen", "NA", "", " a3 "
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def expected(lab, small_lab, rows):
    """The probabilities by the model itself: its encoder, then torch."""
    from ctrlab.data.dataset import Split
    from ctrlab.data.encoding.encoder import FieldEncoder

    _, model, dataset = open_serving(lab.workspace, small_lab.model.id)
    block = FieldEncoder.load(dataset.path).transform(pl.read_csv(rows, infer_schema_length=0))
    return sigmoid(predict_logits(model, Split("rows", block.ids, block.values, np.zeros(len(block.ids), np.uint8))))


def test_a_script_with_onnx_runtime_alone_scores_raw_rows_as_the_model_does(folder, rows, expected, tmp_path):
    trimmed = tmp_path / "rows.csv"  # blanks at the ends are the reader's to remove
    trimmed.write_text(rows.read_text().replace(" a3 ", "a3"))
    printed = subprocess.run(
        [sys.executable, "-c", STRANGER, folder, trimmed], capture_output=True, text=True, cwd=tmp_path, check=True
    ).stdout
    np.testing.assert_allclose([float(line) for line in printed.split()], expected, atol=1e-5)


def test_load_bundle_predicts_frames_of_every_library_and_loads_no_torch(folder, rows, expected, tmp_path):
    script = (
        "import sys, numpy as np, polars, ctrlab; found = ctrlab.load_bundle(sys.argv[1]).predict(polars.read_csv(sys.argv[2]));"
        "np.save('found.npy', found); assert 'torch' not in sys.modules and 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, folder, rows], cwd=tmp_path, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-5)
    bundle = ctrlab.load_bundle(folder)
    frame = pd.read_csv(rows)
    for given in (frame, frame.to_dict("list"), pa.Table.from_pandas(frame), pl.from_pandas(frame)):
        np.testing.assert_allclose(bundle.predict(given), expected, atol=1e-5)
    bundle.check()


def test_the_manifest_has_columns_auc_versions_and_the_digest_of_every_file(made, folder):
    manifest = json.loads((folder / "bundle.json").read_text())
    assert {column["name"]: column["kind"] for column in manifest["columns"]} == {"site": "text", "ad": "text", "price": "number"}
    assert manifest["auc"]["low"] < manifest["auc"]["estimate"] < manifest["auc"]["high"] and manifest["auc"]["split"] == "test"
    assert set(manifest["files"]) | {"bundle.json", "README.md"} == {path.name for path in folder.iterdir()}
    assert made.summary["version"] == manifest["version"] and manifest["version"] in (folder / "README.md").read_text()


def test_the_bundle_with_given_settings_is_made_once(lab, small_lab, made):
    assert lab.bundle(small_lab.model.id).id == made.id


@pytest.mark.parametrize("fault", ["missing", "truncated", "one bit", "no manifest", "another format", "no JSON object"])
def test_a_damaged_bundle_is_named_and_nothing_is_computed_from_it(folder, tmp_path, fault):
    copy = tmp_path / "bundle"
    shutil.copytree(folder, copy)
    path = copy / "model.ids.onnx"
    if fault == "missing":
        path.unlink()
    elif fault == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif fault == "one bit":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
    elif fault == "no manifest":
        (copy / "bundle.json").unlink()
    else:
        manifest = json.loads((copy / "bundle.json").read_text())
        (copy / "bundle.json").write_text(json.dumps({**manifest, "format": 99} if fault == "another format" else [manifest]))
    with pytest.raises(ServingError, match=r"model\.ids\.onnx of the bundle|holds no bundle|bundle format 99|is damaged"):
        ctrlab.load_bundle(copy)


def test_examples_that_score_otherwise_are_found(folder, tmp_path):
    copy = tmp_path / "bundle"
    shutil.copytree(folder, copy)
    examples = json.loads((copy / "examples.json").read_text())
    examples["probability"][3] += 0.01
    (copy / "examples.json").write_text(json.dumps(examples))
    from ctrlab.serving.bundle.read import digest_of

    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["files"]["examples.json"] = digest_of(copy / "examples.json")
    (copy / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(ServingError, match="other probabilities on this machine"):
        ctrlab.load_bundle(copy).check()


def test_rows_without_a_column_are_refused_by_its_name(folder):
    bundle = ctrlab.load_bundle(folder)
    with pytest.raises(DataError, match="no column ad, price"):
        bundle.predict({"site": ["s1"]})


def test_calibration_is_the_logistic_regression_on_the_logit():
    random = np.random.default_rng(0)
    logits = random.normal(-1, 2, 4000).astype(np.float32)
    clicks = (random.random(4000) < 1 / (1 + np.exp(-(0.4 * logits - 0.7)))).astype(np.float32)
    found = fit_calibration(logits, clicks)
    oracle = LogisticRegression(C=np.inf).fit(logits[:, None], clicks)
    np.testing.assert_allclose([found.slope, found.intercept], [oracle.coef_[0, 0], oracle.intercept_[0]], atol=1e-3)
    weighted = fit_calibration(logits, np.stack([3 * clicks, 3 * (1 - clicks)], axis=1))
    np.testing.assert_allclose([weighted.slope, weighted.intercept], [found.slope, found.intercept], atol=1e-6)
    with pytest.raises(ServingError, match="clicks alone, or none"):
        fit_calibration(logits, np.zeros(4000, np.float32))


def test_a_calibrated_bundle_predicts_the_share_of_clicks_of_the_validation_rows(lab, small_lab):
    calibrated = lab.bundle(small_lab.model.id, calibrate=True)
    bundle = ctrlab.load_bundle(calibrated.path / bundles.BUNDLE_FOLDER)
    bundle.check()
    valid = EncodedDataset.open(small_lab.dataset.path).split("valid")
    from ctrlab.data.encoding.encoder import EncodedBlock

    found = bundle.predict_encoded(EncodedBlock(*valid.fields(slice(None))))
    assert found.mean() == pytest.approx(valid.labels.mean(), abs=1e-4)


def test_a_table_is_scored_in_its_order_to_csv_or_parquet_with_kept_columns(folder, rows, expected, tmp_path):
    bundle = ctrlab.load_bundle(folder, threads=1)
    source = SourceConfig(paths=(str(rows),))
    found = score_table(bundle, ScoreTable(source=source, out=tmp_path / "scores.csv"))
    assert found.rows == len(expected) and found.mean == pytest.approx(expected.mean(), abs=1e-5)
    np.testing.assert_allclose(pd.read_csv(tmp_path / "scores.csv")["probability"], expected, atol=1e-5)
    score_table(bundle, ScoreTable(source=source, out=tmp_path / "scores.parquet", keep=("ad", "site")))
    table = pq.read_table(tmp_path / "scores.parquet").to_pandas()
    assert list(table) == ["ad", "site", "probability"] and table["site"][3] == "never seen"
    np.testing.assert_allclose(table["probability"], expected, atol=1e-5)


def test_scores_are_refused_or_cancelled_without_leaving_a_file(folder, rows, tmp_path):
    bundle = ctrlab.load_bundle(folder, threads=1)
    source = SourceConfig(paths=(str(rows),))
    faults = [
        ({"out": tmp_path / "scores.txt"}, ConfigError, r"\.csv or \.parquet"),
        ({"keep": ("colour",)}, ConfigError, "no column colour to keep"),
        ({"out": tmp_path / "absent" / "scores.csv"}, StorageError, "cannot be written"),
        ({"source": SourceConfig(paths=(str(rows), str(rows)))}, ConfigError, "one table"),
    ]
    for settings, error, message in faults:
        with pytest.raises(error, match=message):
            score_table(bundle, ScoreTable(**{"source": source, "out": tmp_path / "scores.csv", **settings}))
    with pytest.raises(JobCancelled):
        score_table(bundle, ScoreTable(source=source, out=tmp_path / "scores.csv"), should_stop=lambda: True)
    assert not list(tmp_path.iterdir())


def test_columns_whose_values_training_did_not_have_are_named(folder, rows, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text(rows.read_text().replace(",a", ",A").replace(",Ad", ",ad"))
    found = score_table(
        ctrlab.load_bundle(folder, threads=1), ScoreTable(source=SourceConfig(paths=(str(other),)), out=tmp_path / "scores.csv")
    )
    (note,) = found.notes
    assert note.column == "ad" and "ad 100%" in note.text


def test_a_job_scores_a_table_and_refuses_files_of_the_home(lab, small_lab, rows, expected):
    job_id = scores.submit_scores(lab.workspace, scores.ScoresConfig(model_id=small_lab.model.id, path=str(rows), keep=("ad",)))
    ended = run_job(lab.workspace, job_id)
    assert ended.state == "succeeded", ended.error
    filed = scores.latest_scores(lab.workspace, small_lab.model.id)
    assert filed.id == ended.result["scores"] and filed.summary["rows"] == len(expected)
    np.testing.assert_allclose(pd.read_csv(filed.path / scores.SCORES_FILE)["probability"], expected, atol=1e-5)
    with pytest.raises(DataError, match="ctrlab's own files"):
        own = small_lab.dataset.path / "dataset.json"
        scores.submit_scores(lab.workspace, scores.ScoresConfig(model_id=small_lab.model.id, path=str(own)))


def test_lab_predicts_raw_rows(lab, small_lab, rows, expected):
    np.testing.assert_allclose(lab.predict(small_lab.model.id, pl.read_csv(rows)), expected, atol=1e-5)


def test_a_bundle_in_integers_is_refused_with_the_reason_that_there_is_none(lab, small_lab):
    with pytest.raises(CtrlabError, match=r"no bundle in integers: .*no linear layer that is worth"):
        lab.bundle(small_lab.model.id, form="integers")

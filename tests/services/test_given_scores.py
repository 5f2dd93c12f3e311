"""Scores made elsewhere: figures against scikit-learn, other scores by order or key, and what cannot be judged."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from ctrlab.__main__ import main
from ctrlab.data.configs import ColumnConfig
from ctrlab.errors import DataError
from ctrlab.evaluation.delong import auc_difference, auc_interval
from ctrlab.services.given_scores import GivenScoresConfig, evaluate_scores


@pytest.fixture(scope="module")
def table():
    random = np.random.default_rng(0)
    logit = random.normal(-1.5, 1.2, 3000)
    clicked = random.random(3000) < 1 / (1 + np.exp(-logit))
    scores = 1 / (1 + np.exp(-(logit + random.normal(0, 0.5, 3000))))
    worse = 1 / (1 + np.exp(-(logit + random.normal(0, 2.0, 3000))))
    return pd.DataFrame({
        "row": np.arange(3000), "click": clicked.astype(int), "p": scores, "q": worse, "site": random.choice(["a", "b", "rare"], 3000, p=[0.6, 0.399, 0.001]),
        "weight": random.integers(1, 4, 3000),
    })  # fmt: skip


@pytest.fixture(scope="module")
def path(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("scores") / "scores.csv"
    table.to_csv(path, index=False)
    return str(path)


def test_figures_are_scikit_learns_and_intervals_delongs(table, path):
    report = evaluate_scores(GivenScoresConfig(path=path, score="p", against="q", segments=("site",)))
    assert report.auc.estimate == pytest.approx(roc_auc_score(table["click"], table["p"]), abs=1e-12)
    assert report.metrics.log_loss == pytest.approx(log_loss(table["click"], table["p"]), rel=1e-6)
    assert report.metrics.calibration_ratio == pytest.approx(table["p"].mean() / table["click"].mean(), rel=1e-6)
    rate = table["click"].mean()
    base = log_loss(table["click"], np.full(3000, rate))
    assert report.normalised_entropy == pytest.approx(report.metrics.log_loss / base, rel=1e-6)
    assert report.auc == auc_interval(table["click"], table["p"])
    change = auc_difference(table["click"], table["p"], table["q"])
    assert report.auc_change.estimate == pytest.approx(change.estimate) and report.auc_change.low > 0
    (first, second) = report.segments  # the third value has too few clicks
    assert (first.column, first.value, second.value) == ("site", "a", "b")
    own = table[table["site"] == "a"]
    assert first.metrics.auc == pytest.approx(roc_auc_score(own["click"], own["p"]), abs=1e-12)


def test_logits_and_probabilities_of_one_model_are_worth_the_same(table, path, tmp_path):
    table.assign(p=np.log(table["p"] / (1 - table["p"]))).to_parquet(tmp_path / "logits.parquet")
    given = GivenScoresConfig(path=str(tmp_path / "logits.parquet"), score="p", logits=True)
    assert evaluate_scores(given).metrics.log_loss == pytest.approx(
        evaluate_scores(GivenScoresConfig(path=path, score="p")).metrics.log_loss
    )
    with pytest.raises(DataError, match="no probabilities; give --logits"):
        evaluate_scores(given.replace(logits=False))


def test_weights_count_rows_so_often(table, path):
    report = evaluate_scores(GivenScoresConfig(path=path, score="p", weight="weight"))
    assert report.auc.estimate == pytest.approx(roc_auc_score(table["click"], table["p"], sample_weight=table["weight"]))
    assert report.metrics.log_loss == pytest.approx(log_loss(table["click"], table["p"], sample_weight=table["weight"]), rel=1e-5)


def test_another_files_scores_are_matched_by_key_or_by_order(table, path, tmp_path):
    other = str(tmp_path / "other.csv")
    shuffled = table.sample(frac=1, random_state=1)[["row", "q"]].rename(columns={"q": "p"})
    shuffled.to_csv(other, index=False)
    report = evaluate_scores(GivenScoresConfig(path=path, score="p", against=other, key="row"))
    expected = evaluate_scores(GivenScoresConfig(path=path, score="p", against="q"))
    assert report.auc_change == expected.auc_change and not report.notes
    shuffled.iloc[:-100].to_csv(other, index=False)
    with pytest.raises(DataError, match="give --key COLUMN"):
        evaluate_scores(GivenScoresConfig(path=path, score="p", against=other))
    report = evaluate_scores(GivenScoresConfig(path=path, score="p", against=other, key="row"))
    assert report.metrics.num_rows == 2900 and report.notes[0].text == "100 rows with no score are left out"
    pd.concat([shuffled, shuffled.head(1)]).to_csv(other, index=False)
    with pytest.raises(DataError, match="row names several rows"):
        evaluate_scores(GivenScoresConfig(path=path, score="p", against=other, key="row"))


def test_missing_and_certain_scores_are_counted(table, tmp_path):
    changed = table.astype({"p": object})
    changed.loc[:9, "p"] = ""
    changed.loc[10:14, "p"] = 0
    changed.to_csv(tmp_path / "scores.csv", index=False)
    report = evaluate_scores(GivenScoresConfig(path=str(tmp_path / "scores.csv"), score="p"))
    assert report.metrics.num_rows == 2990 and np.isfinite(report.metrics.log_loss)
    assert [note.text.partition(" ")[0] for note in report.notes] == ["10", "5"]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"score": "site"}, DataError, "no numbers, such as"),
        ({"score": "absent"}, DataError, "no column absent"),
        ({"against": "absent"}, DataError, "no column absent"),
        ({"path": "absent.csv"}, DataError, "absent.csv"),
    ],
)
def test_what_cannot_be_judged_is_one_sentence(path, settings, error, message):
    with pytest.raises(error, match=message):
        evaluate_scores(GivenScoresConfig(**{"path": path, "score": "p", **settings}))


def test_another_label_is_read_by_its_settings(table, path):
    label = ColumnConfig(name="site", role="label", positive=("a",), empty_label="drop")
    assert evaluate_scores(GivenScoresConfig(path=path, score="p"), label).metrics.num_clicks == (table["site"] == "a").sum()


def test_the_verb_prints_figures_with_intervals_or_json(path, capsys):
    assert main(["score", path, "--score", "p", "--against", "q", "--segments", "site"]) == 0
    printed = capsys.readouterr().out
    assert "3,000 rows" in printed and "AUC change +0." in printed and "normalised entropy" in printed and "site" in printed
    assert main(["score", path, "--score", "p", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["auc"]["low"] > 0.5
    assert main(["score", path, "--score", "site", "--json"]) == 1

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from ctrlab.services.comparison import EvaluateConfig
from ctrlab.services.controls import tuning_of
from ctrlab.services.paper_claims import claims_table
from ctrlab.services.workspace import open_workspace
from ctrlab.ui.views.compare import verdict
from tests.support.patience import PATIENCE
from tests.support.workspaces import add_compressed, add_evaluation, deepfm_workspace

APP = Path(__file__).parents[2] / "app.py"


@pytest.fixture
def ids(tmp_path, monkeypatch) -> dict[str, str]:
    monkeypatch.setenv("CTRLAB_HOME", str(tmp_path))
    monkeypatch.setattr("ctrlab.services.jobs.ensure_worker", lambda *_: None)
    ids = deepfm_workspace(tmp_path, num_tables=3, mlp_dims=(40, 40))
    workspace = open_workspace(tmp_path)
    ids["compressed"] = add_compressed(workspace, ids).id
    add_evaluation(workspace, ids["model"], auc=0.7629)
    return ids


def open_page(**query: str) -> AppTest:
    page = AppTest.from_file(str(APP), default_timeout=PATIENCE)
    for key, value in query.items():
        page.query_params[key] = value
    page.switch_page("pages/Compare.py").run()
    assert not page.exception
    return page


def html(page: AppTest) -> str:
    return " ".join(element.proto.body for element in page.get("html"))


def texts(page: AppTest) -> str:
    return " ".join(text.value for text in page.markdown)


def test_the_original_and_its_compressed_models_are_the_default(ids):
    page = open_page(model=ids["model"])
    assert page.multiselect[0].value == [ids["model"], ids["compressed"]]
    assert page.query_params["models"] == f"{ids['model']},{ids['compressed']}"


def test_a_model_that_was_not_measured_shows_dashes_and_can_be_measured(ids, tmp_path):
    page = open_page(model=ids["model"])
    assert "0.7629" in html(page) and "–" in html(page)  # noqa: RUF001
    page.button(key="run-evaluate").click().run()
    (job,) = open_workspace(tmp_path).store.jobs.list(5)
    assert EvaluateConfig.from_dict(job.config).model_ids == (ids["compressed"],)


def test_measured_models_get_a_sentence_that_names_what_is_not_known(ids, tmp_path):
    add_evaluation(open_workspace(tmp_path), ids["compressed"], auc=0.7631, speed=1.4)
    page = open_page(model=ids["model"])
    assert "4.0x smaller, 1.4x faster at batch 4096" in texts(page)
    assert "+0.0002" in texts(page) and "may be the fine-tuning" in texts(page)
    assert "run-evaluate" not in [button.key for button in page.button]


def test_names_from_users_are_shown_as_text(ids, tmp_path):
    evil = add_compressed(open_workspace(tmp_path), ids, name="<img src=x onerror=alert(1)>")
    page = open_page(model=ids["model"], models=f"{ids['model']},{evil.id}")
    assert "<img" not in html(page) and "&lt;img" in html(page)


def test_two_models_differ_in_the_settings_listed(ids, tmp_path):
    other = add_compressed(open_workspace(tmp_path), ids, name="lower", ranks=8)
    page = open_page(model=ids["model"], models=f"{ids['compressed']},{other.id}")
    difference = page.dataframe[0].value
    assert difference.to_numpy().tolist() == [["compression.plan.ranks.0.rank", "64", "8"]]


def test_nothing_chosen_asks_for_a_model(ids):
    page = open_page(model=ids["model"])
    page.multiselect[0].set_value([]).run()
    assert not page.exception and any("at least one" in info.value for info in page.info)


def test_an_empty_workspace_says_what_to_do_first(tmp_path, monkeypatch):
    monkeypatch.setenv("CTRLAB_HOME", str(tmp_path))
    monkeypatch.setattr("ctrlab.services.jobs.ensure_worker", lambda *_: None)
    assert "Nothing to compare yet" in texts(open_page())


def row(**values: object) -> pd.Series:
    return pd.Series(
        {
            "id": "model-1",
            "kind": "original",
            "bytes": 4000,
            "auc": 0.7629,
            "torch_rows_per_second_4096": 100.0,
            "measured_rows": 5000,
            "split": "test",
            "tuning": "",
            "effort": "one",
            "auc_change": np.nan,
            "auc_change_low": np.nan,
            "auc_change_high": np.nan,
        }
        | values
    )


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            {"bytes": 1360, "auc": 0.7632, "torch_rows_per_second_4096": 140.0, "tuning": "{}"},
            "2.9x smaller, 1.4x faster at batch 4096; AUC +0.0003 on 5.00 k test rows. "
            "Without the original fine-tuned alike, that gain may be the fine-tuning. One seed.",
        ),
        (
            {"bytes": 4000, "auc": 0.7629, "torch_rows_per_second_4096": 50.0},
            "no smaller, 2.0x slower at batch 4096; AUC ±0.0000 on 5.00 k test rows. One seed.",
        ),
        (
            {"bytes": 2000, "auc": 0.7627, "auc_change_low": -0.0005, "auc_change_high": 0.0001},
            "2.0x smaller, as fast at batch 4096; AUC \N{MINUS SIGN}0.0002 (95 % \N{MINUS SIGN}0.0005 to +0.0001), "
            "no measurable loss, on 5.00 k test rows. One seed.",
        ),
        (
            {"bytes": 2000, "auc": 0.7632, "auc_change_low": -0.0001, "auc_change_high": 0.0007, "tuning": "{}"},
            "2.0x smaller, as fast at batch 4096; AUC +0.0003 (95 % \N{MINUS SIGN}0.0001 to +0.0007), "
            "no measurable gain, on 5.00 k test rows. One seed.",
        ),
        (
            {"bytes": 2000, "auc": 0.7609, "auc_change_low": -0.0025, "auc_change_high": -0.0015},
            "2.0x smaller, as fast at batch 4096; AUC \N{MINUS SIGN}0.0020 (95 % \N{MINUS SIGN}0.0025 to \N{MINUS SIGN}0.0015), "
            "a measurable loss, on 5.00 k test rows. One seed.",
        ),
        (
            {"bytes": 2000, "auc": np.nan, "torch_rows_per_second_4096": np.nan},
            "2.0x smaller; its AUC has not been measured.",
        ),
    ],
)
def test_the_verdict_is_honest(other, sentence):
    compressed = row(**{"kind": "compressed"} | other)
    assert verdict(row(), compressed, pd.DataFrame([row(), compressed])) == sentence


def test_the_verdict_names_what_fine_tuning_alone_gave_and_the_spread_over_seeds():
    tuned = {"kind": "compressed", "tuning": "{}", "effort": "afm", "bytes": 1000}
    changes = (0.0010, 0.0020, 0.0030)
    compressed = [row(**tuned, auc=0.7629 + change, auc_change=change, auc_change_low=change - 0.0005) for change in changes]
    control = {"kind": "control", "tuning": "{}", "effort": "control"}
    controls = [row(**control, auc=0.7633 + step, auc_change=0.0004 + step, auc_change_low=0.0001) for step in (0.0, 0.0002)]
    table = pd.DataFrame([row(), *compressed, *controls])
    said = verdict(row(), compressed[0], table)
    assert said.endswith("test rows; fine-tuning alone gave +0.0005. Over 3 seeds +0.0020, standard deviation 0.0010.")
    assert "may be the fine-tuning" not in said
    assert verdict(row(), controls[0], table).endswith("rows. Over 2 seeds +0.0005, standard deviation 0.0001.")


def test_the_papers_claims_stand_beside_what_was_measured_and_what_fine_tuning_alone_gave():
    tuned = {"tuning": "{}", "parameters": 250}
    table = pd.DataFrame(
        [
            row(parameters=1000),
            row(**tuned, kind="compressed", name="afm", auc_change=0.004, auc_change_low=0.003, auc_change_high=0.005,
                torch_rows_per_second_4096=1.2e6),
            row(kind="compressed", name="truncated", parameters=100, torch_rows_per_second_4096=np.nan),
            row(kind="control", tuning="{}", parameters=1000, auc_change=0.003),
            row(kind="control", tuning="{}", parameters=1000, auc_change=0.005),
        ]
    )  # fmt: skip
    table["torch_rows_per_second_4096"] = table["torch_rows_per_second_4096"] * 1.0
    claims = claims_table(table)
    assert claims["name"].tolist() == ["afm"] * 3 + ["truncated"] * 3
    fewer, auc, faster = (claims.iloc[number] for number in range(3))
    assert fewer["measured"] == 4.0 and fewer["verdict"] == "as claimed" and fewer["control"] == 1.0 and fewer["controls"] == 2
    assert auc["measured"] == 0.004 and auc["control"] == pytest.approx(0.004) and auc["measured_low"] == 0.003
    assert faster["measured"] == pytest.approx(1.2e6 / table["torch_rows_per_second_4096"][0] - 1)
    bare = claims[claims["name"] == "truncated"]
    assert bare["verdict"].tolist() == ["more than claimed", "not measured", "not measured"] and not bare["controls"].any()
    assert claims_table(table[table["kind"] != "original"]).empty


def test_the_page_shows_the_claims_of_each_compressed_model(ids, tmp_path):
    tuned = bool(tuning_of(open_workspace(tmp_path).store.artifacts.get(ids["compressed"])))
    add_evaluation(open_workspace(tmp_path), ids["compressed"], auc=0.7631, speed=1.4)
    shown = html(open_page(model=ids["model"])).split('class="claims"')[1].replace("\N{NO-BREAK SPACE}", " ")
    assert "3 to 5x fewer" in shown and "+0.0030 to +0.0100" in shown and "+35 % to +170 %" in shown
    assert "+40 %" in shown and "as claimed" in shown and shown.count("not run") == 3 * tuned

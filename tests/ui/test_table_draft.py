"""The review of an inspected table: the label is asked for where it is a matter of judgement, and warnings lead to their controls."""

from pathlib import Path

import pytest

from ctrlab.data.configs import DatasetConfig
from ctrlab.data.tables.inspect import inspect_table
from ctrlab.data.tables.notes import Note
from ctrlab.services import datasets

CASES = Path(__file__).parents[1] / "data" / "cases"


@pytest.fixture
def review(open_page, monkeypatch):
    """Opens the Data page and inspects a file on it; returns the page and the configs that were submitted."""
    submitted: list[DatasetConfig] = []
    monkeypatch.setattr(datasets, "submit_encode", lambda workspace, config: submitted.append(config) or "job-none")

    def opened(path: Path, notes: tuple[Note, ...] = ()):
        def inspect(workspace, source, *, label=None, uploaded=False):
            found = inspect_table(source, label=label)
            return type(found)(**{**found.__dict__, "notes": (*found.notes, *notes)})

        monkeypatch.setattr(datasets, "inspect_source_in_child", inspect)
        app = open_page("Data")
        app.button_group(key="data-way").set_value("Your table").run()
        app.text_input(key="data-path").set_value(str(path)).run()
        app.button(key="inspect").click().run()
        assert not app.exception
        return app, submitted

    return opened


def by_label(elements, label):
    return next(element for element in elements if element.label == label)


def encode(app):
    button = app.button(key="encode")
    assert not button.disabled
    button.click().run()
    return app


def test_a_rating_is_asked_about_and_a_threshold_answers(review):
    app, submitted = review(CASES / "ratings.csv")
    assert app.button(key="encode").disabled
    by_label(app.selectbox, "Label").set_value("rating").run()
    readings = by_label(app.radio, "What counts as a click")
    assert readings.value is None
    option = next(option for option in readings.options if "285 clicks in 1.20 k rows" in option)
    readings.set_value(readings.options.index(option)).run()
    encode(app)
    label = submitted[0].label_column
    assert (label.name, label.threshold) == ("rating", 3.0)


def test_values_of_ones_own_can_mean_a_click(review):
    app, submitted = review(CASES / "label_yesno_click.csv")
    by_label(app.selectbox, "Label").set_value("label").run()
    by_label(app.radio, "What counts as a click").set_value("Other").run()
    assert app.button(key="encode").disabled
    by_label(app.multiselect, "Values that mean a click").set_value(["click"]).run()
    encode(app)
    assert submitted[0].label_column.positive == ("click",)


def test_rows_without_a_label_can_be_left_out(review):
    app, submitted = review(CASES / "label_null.csv")
    readings = by_label(app.radio, "What counts as a click")
    option = next(option for option in readings.options if "1.19 k rows" in option)
    readings.set_value(readings.options.index(option)).run()
    encode(app)
    assert submitted[0].label_column.empty_label == "drop"


def test_a_plain_label_needs_no_answer(review):
    app, submitted = review(CASES / "ads_kaggle.csv")
    encode(app)
    assert submitted[0].label == "Clicked on Ad"
    assert {column.name: column.role for column in submitted[0].columns}["Male"] == "categorical"


def test_a_table_without_a_label_is_asked_about_and_not_refused(review, tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,x\n2,y\n3,z\n")
    app, _ = review(tmp_path / "t.csv")
    assert not app.error and app.button(key="encode").disabled
    assert by_label(app.selectbox, "Label").options == ["a", "b"]


def test_another_label_frees_the_first_one(review):
    app, submitted = review(CASES / "ads_kaggle.csv")
    by_label(app.selectbox, "Label").set_value("Male").run()
    encode(app)
    roles = {column.name: column.role for column in submitted[0].columns}
    assert submitted[0].label == "Male" and roles["Clicked on Ad"] == "categorical"


def test_leaks_and_roles_follow_the_label_that_was_chosen_and_changes_by_hand_stay(review, tmp_path):
    rows = [f"{i % 2},{i // 2 % 2},{i // 2 % 2 + (i % 50 == 0)},{i % 7},k{i % 3}" for i in range(2000)]
    (tmp_path / "t.csv").write_text("\n".join(["click,bought,paid,hour,site", *rows]) + "\n")
    app, submitted = review(tmp_path / "t.csv")
    assert not [button for button in app.button if button.label == "Ignore this column"]
    app.session_state["draft"].columns.loc[3, "role"] = "ignore"
    by_label(app.selectbox, "Label").set_value("bought").run()
    assert not app.exception
    leak = by_label(app.button, "Ignore this column")
    assert "paid" in " ".join(element.value for element in app.markdown) and app.session_state["draft"].revision
    leak.click().run()
    encode(app)
    roles = {column.name: column.role for column in submitted[0].columns}
    assert roles == {"click": "categorical", "bought": "label", "paid": "ignore", "hour": "ignore", "site": "categorical"}


def test_a_draft_splits_as_the_command_line_does(review):
    app, submitted = review(CASES / "ads_kaggle.csv")
    encode(app)
    suggested = datasets.draft_split(submitted[0].source, None)
    assert submitted[0].split.replace(time_column=None) == suggested and suggested.finetune == 0.1


def test_a_leak_is_ignored_with_one_click(review):
    note = Note("leak", "Male", "Male alone gives an AUC of 0.99", "warning", "ignore Male")
    app, submitted = review(CASES / "ads_kaggle.csv", (note,))
    by_label(app.button, "Ignore this column").click().run()
    encode(app)
    assert {column.name: column.role for column in submitted[0].columns}["Male"] == "ignore"


def test_a_doubtful_role_is_changed_with_one_click(review):
    note = Note("ids_or_numbers", "Male", "Male holds whole numbers", "info", "set the role of Male to numeric")
    app, submitted = review(CASES / "ads_kaggle.csv", (note,))
    by_label(app.button, "Make it numeric").click().run()
    encode(app)
    assert {column.name: column.role for column in submitted[0].columns}["Male"] == "numeric"


def test_what_several_files_are_is_asked(review, tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_bytes((CASES / "ads_kaggle.csv").read_bytes())
    app, submitted = review(Path(f"{tmp_path / 'a.csv'};{tmp_path / 'b.csv'}"))
    assert app.button(key="encode").disabled
    by_label(app.radio, "The 2 files are").set_value("splits").run()
    encode(app)
    assert submitted[0].split.method == "files"


def test_the_file_is_read_again_with_other_settings(review, tmp_path):
    (tmp_path / "t.csv").write_text("click|site;x\n" + "1|a;b\n0|c;d\n" * 30)
    app, _ = review(tmp_path / "t.csv")
    delimiter = by_label([box for box in app.text_input if (box.key or "").startswith("source-1")], "Delimiter")
    delimiter.set_value("|").run()
    app.button(key="read-again").click().run()
    assert not app.exception
    assert by_label(app.selectbox, "Label").value == "click"

"""`data inspect` and `data encode`: what they print, flags for labels and columns, and settings from a file."""

import json
from pathlib import Path

import pytest

from ctrlab.__main__ import main

CASES = Path(__file__).parents[1] / "data" / "cases"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def run(home, capsys):
    """Run a verb; returns (exit code, standard output, standard error)."""

    def call(*words):
        code = main([*map(str, words), "--home", str(home)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def run_json(run):
    def call(*words):
        code, out, err = run(*words, "--json")
        assert code == 0, out + err
        return json.loads(out)

    return call


@pytest.fixture
def odd_table(tmp_path):
    """Names with = and dots, an identifier, and a label of ratings."""
    path = tmp_path / "odd.csv"
    rows = [f"{i % 5 + 1},v{i % 7},{i % 3},session{i},1{i % 9}.5,{20240300 + i % 28 + 1}" for i in range(400)]
    path.write_text("\n".join(["rating,a=b,c.d,session,price=net,day", *rows]) + "\n")
    return path


def test_encode_prints_the_label_the_clicks_and_what_is_ignored(run, home, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("click,site,same,who\n" + "".join(f"{i % 4 == 0:d},s{i % 5},k,user{i}\n" for i in range(400)))
    code, out, _ = run("data", "encode", path)
    assert code == 0
    assert "label click (0/1, -1/1, true/false or yes/no): 100 clicks; train 70 (25.00%)" in out
    assert "ignored same: every row has the same value, k" in out and "ignored who: " in out


def test_a_question_is_one_sentence_and_its_answer_is_taken(run, run_json):
    table = CASES / "label_12.csv"
    code, out, err = run("data", "encode", table)
    assert code == 1 and out == "" and "--label label --positive 2 gives 457 clicks in 1,200 rows" in err
    code, out, _ = run("data", "inspect", table)
    assert code == 0 and "--label label --positive 2 gives 457 clicks" in out
    dataset = run_json("data", "encode", table, "--label", "label", "--positive", "2")
    assert sum(dataset["summary"]["clicks"].values()) == 457 and dataset["label"] == "label"
    assert [note["text"] for note in dataset["notes"]] == ["label label: '2' is a click, any other value is none"]


def test_inspect_says_what_the_page_says(run, tmp_path):
    path = tmp_path / "t.csv"
    rows = [
        f"{i % 2},{i // 2 % 2},{'NULL' if i % 9 == 0 else i % 40 + 0.5},2024-03-{1 + i // 100:02d} 1{i % 10}:30"
        for i in range(1000)
    ]
    path.write_text("\n".join(["click,bought,price,at", *rows]).replace(",0,", ",no,").replace(",1,", ",yes,") + "\n")
    code, out, _ = run("data", "inspect", path)
    assert code == 0 and "NULL (112)" in out and "2024-03-01 10:30:00, 2024-03-01 11:30:00" in out
    assert "label click (0/1, -1/1, true/false or yes/no), CTR 50.00%" in out


def test_leaks_are_those_of_the_label_that_is_given(run_json, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("click,bought,paid\n" + "".join(f"{i % 2},{i // 2 % 2},{i // 2 % 2}.5\n" for i in range(1000)))
    leaks = {
        label: [note["column"] for note in run_json("data", "encode", path, *flag)["notes"] if note["kind"] == "leak"]
        for label, flag in (("click", []), ("bought", ["--label", "bought"]), ("by role", ["--role", "bought=label"]))
    }
    assert leaks == {"click": [], "bought": ["paid"], "by role": ["paid"]}


def test_an_answer_needs_no_label_where_one_column_alone_is_asked_about(run_json):
    dataset = run_json("data", "encode", CASES / "ratings.csv", "--threshold", "3")
    assert sum(dataset["summary"]["clicks"].values()) == 285


def test_roles_and_settings_of_columns_with_odd_names(run_json, odd_table):
    dataset = run_json(
        "data", "encode", odd_table, "--threshold", "4", "--role", "a=b=ignore", "--role", "c.d=numeric",
        "--role", "price=net=categorical", "--min-count", "3", "--min-count", "a=b=1", "--num-buckets", "c.d=7", "--trim", "session=no",
        "--role", "session=categorical", "--timestamp-format", "day=yyyymmdd", "--role", "day=timestamp",
    )  # fmt: skip
    roles = {column["name"]: column["role"] for column in dataset["config"]["columns"]}
    assert roles == {
        "rating": "label", "a=b": "ignore", "c.d": "numeric", "session": "categorical", "price=net": "categorical", "day": "timestamp",
    }  # fmt: skip
    settings = {
        column["name"]: (column["min_count"], column["num_buckets"], column["trim"]) for column in dataset["config"]["columns"]
    }
    assert settings == dict.fromkeys(roles, (3, 32, True)) | {
        "a=b": (1, 32, True), "c.d": (3, 7, True), "session": (3, 32, False)
    }  # fmt: skip
    assert {field["name"]: field["cardinality"] for field in dataset["summary"]["fields"]}["price=net"] == 9
    assert dataset["ignored"] == {"a=b": "7 different values, texts"}


@pytest.mark.parametrize(
    ("flag", "names"),
    [
        (["--role", "site"], ["COLUMN=VALUE", "site"]),
        (["--role", "nowhere=numeric"], ["no column 'nowhere'", "rating"]),
        (["--role", "a=b=number"], ["--role a=b: role must be 'label' or 'categorical'", "got 'number'"]),
        (["--num-buckets", "c.d=many"], ["--num-buckets c.d: num_buckets", "many"]),
        (["--max-length", "0"], ["--max-length", "0"]),
        (["--label", "nowhere"], ["no column 'nowhere'", "rating"]),
        (["--label-total", "nowhere"], ["no column 'nowhere' of impressions"]),
        (["--positive", "5", "--threshold", "5"], ["positive and threshold read the label"]),
    ],
)
def test_a_wrong_flag_is_a_sentence(run, odd_table, flag, names):
    code, _, err = run("data", "encode", odd_table, *flag)
    assert code == 1 and err.count("\n") == 1 and all(name in err for name in names), err


def test_encode_takes_what_inspect_writes_and_flags_beside_it_win(run, run_json, odd_table, tmp_path):
    inspected = tmp_path / "inspected.json"
    inspected.write_text(run("data", "inspect", odd_table, "--json")[1])
    code, _, err = run("data", "encode", "--config", inspected)
    assert code == 1 and "exactly one column must have the role label" in err
    given = ["data", "encode", "--config", inspected, "--label", "rating"]
    dataset = run_json(
        *given, "--threshold", "5", "--train", "0.6", "--valid", "0.2", "--test", "0.2", "--name", "mine", "--role", "day=ignore"
    )
    assert dataset["name"] == "mine" and sum(dataset["summary"]["clicks"].values()) == 80
    assert dataset["summary"]["rows"]["train"] == 240 and "day" in dataset["ignored"]
    config = tmp_path / "config.json"
    config.write_text(json.dumps(dataset["config"]))
    again = run_json("data", "encode", "--config", config)
    assert again["config"] == dataset["config"]
    other = tmp_path / "other.csv"
    other.write_text(odd_table.read_text().replace("v1", "w1"))
    moved = run_json("data", "encode", other, "--config", config)
    assert moved["config"]["source"]["paths"] == [str(other)]


def test_several_files_are_never_taken_for_splits_unasked(run, run_json, tmp_path):
    paths = [tmp_path / f"{name}.csv" for name in ("a", "b", "c")]
    for path in paths:
        path.write_text("click,site\n" + "1,a\n0,b\n" * 30)
    code, _, err = run("data", "encode", *paths)
    assert code == 1 and "--files table" in err and "--files splits" in err
    dataset = run_json("data", "encode", *paths, "--files", "splits")
    assert dataset["summary"]["rows"] == {"train": 60, "valid": 60, "test": 60}
    inspected = tmp_path / "inspected.json"
    inspected.write_text(json.dumps(run_json("data", "inspect", *paths)))
    assert run("data", "encode", "--config", inspected)[0] == 1
    assert run_json("data", "encode", "--config", inspected, "--files", "splits")["summary"]["rows"]["valid"] == 60


def test_a_label_chosen_by_its_role_needs_no_other_flag(run_json):
    dataset = run_json("data", "encode", CASES / "ads_kaggle.csv", "--role", "Male=label")
    assert dataset["label"] == "Male" and sum(dataset["summary"]["clicks"].values()) == 631


def test_without_a_table_the_sentence_says_so(run):
    code, _, err = run("data", "encode")
    assert code == 1 and err.strip() == "ctrlab: no table is given; name a file, or settings with --config"

"""Strange files are opened in a child process, with a time limit and one sentence for whatever goes wrong."""

import sys

import pytest

from ctrlab.data.configs import SourceConfig
from ctrlab.data.tables.inspect import TableInspection, inspect_table
from ctrlab.errors import DataError, StorageError
from ctrlab.services.inspect_child import answer
from ctrlab.services.inspector import Inspector
from ctrlab.services.workspace import open_workspace


@pytest.fixture
def workspace(tmp_path):
    return open_workspace(tmp_path / "home")


@pytest.fixture
def inspector(workspace):
    inspector = Inspector(workspace)
    yield inspector
    inspector.close()


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("click,site,past\n" + "".join(f"{i % 2},s{i % 7},s{i % 5}^s{i % 3}\n" for i in range(300)))
    return SourceConfig(paths=(str(path),))


def test_an_inspection_in_the_child_is_that_of_this_process(inspector, table):
    assert inspector.inspect(table) == inspect_table(table)


def test_an_inspection_survives_json(table):
    inspection = inspect_table(table)
    assert TableInspection.from_dict(inspection.to_dict()) == inspection


def test_expected_errors_of_the_child_are_raised_here_with_their_class(inspector, tmp_path):
    with pytest.raises(DataError, match=r"nowhere.csv does not exist; check the path"):
        inspector.inspect(SourceConfig(paths=(str(tmp_path / "nowhere.csv"),)))
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04.")
    with pytest.raises(StorageError, match="Python pickle"):
        inspector.fingerprint(tmp_path / "model.safetensors")


def test_an_unexpected_error_of_the_child_is_one_sentence_without_its_message(capsys):
    message = answer({"do": "inspect", "source": {"paths": ["SECRET"], "unknown": object()}, "max_rows": None})
    assert message["kind"] == "ConfigError"
    message = answer({"do": "fingerprint"})
    assert message == {"error": "an unexpected KeyError occurred, see inspect.log in the home folder", "kind": "DataError"}
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("program", ["input(); import os; os.abort()", "input(); raise SystemExit(3)", "input()"])
def test_a_child_that_ends_without_an_answer_is_one_sentence(workspace, table, program):
    inspector = Inspector(workspace, [sys.executable, "-c", program])
    with pytest.raises(DataError, match=r"log.csv could not be opened: the process that reads it ended"):
        inspector.inspect(table)
    inspector.close()


def test_a_child_that_hangs_is_killed_at_the_time_limit(workspace, table):
    inspector = Inspector(workspace, [sys.executable, "-c", "import time; time.sleep(600)"], time_limit=0.2)
    with pytest.raises(DataError, match=r"log.csv could not be opened within 0.2 seconds"):
        inspector.inspect(table)
    inspector.close()


def test_a_spare_that_has_ended_is_replaced(workspace, table):
    inspector = Inspector(workspace, [sys.executable, "-m", "ctrlab.services.inspect_child", "--idle-seconds", "600"])
    inspector.warm_up()
    spare = inspector._spare
    inspector.warm_up()
    assert inspector._spare is spare
    spare.kill()
    spare.wait()
    assert inspector.inspect(table).rows == 300
    inspector.close()


def test_the_child_loads_neither_torch_nor_numba():
    import subprocess

    program = (
        "import sys, ctrlab.services.inspect_child; print([m for m in ('torch', 'numba', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

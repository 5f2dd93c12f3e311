"""Opening a store: creating it, opening it again, refusing what is none."""

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from ctrlab.errors import ConfigError, StorageError
from ctrlab.storage import NewArtifact, Store
from ctrlab.storage.schema import SCHEMA_VERSION, schema_version
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]


def test_a_store_keeps_its_content_when_opened_again(store: Store, store_url: str, tmp_path: Path) -> None:
    added = store.artifacts.add(NewArtifact("dataset", "ads"))
    again = Store.open(tmp_path / "home", store_url)
    assert again.artifacts.get(added.id) == added
    again.close()


def test_a_store_of_another_version_is_refused_with_one_sentence(store: Store, store_url: str, tmp_path: Path) -> None:
    with store.database.write() as connection:
        connection.execute(sa.update(schema_version).values(version=SCHEMA_VERSION + 1))
    with pytest.raises(StorageError, match=rf"has schema version {SCHEMA_VERSION + 1} and this ctrlab reads"):
        Store.open(tmp_path / "home", store_url)


def test_several_processes_may_create_the_store_at_once(store_url: str, tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom ctrlab.storage import NewArtifact, Store\nprint('ready', flush=True)\n"
        "sys.stdin.readline()\nfor i in range(5):\n    store = Store.open(Path(sys.argv[1]) / f'home{i}', sys.argv[2] or None)\n"
        "    store.artifacts.add(NewArtifact('dataset', 'ads'))\n    store.close()\n"
    )
    url = "" if store_url.startswith("sqlite") else store_url
    command = [sys.executable, "-c", script, str(tmp_path), url]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    answers = [process.stdin.write("go\n") for process in processes if process.stdin]
    ends = [process.communicate(timeout=PATIENCE) for process in processes]
    assert len(answers) == 3
    assert [process.returncode for process in processes] == [0, 0, 0], ends
    opened = Store.open(tmp_path / "home0", url or None)
    assert len(opened.artifacts.list()) == (15 if url else 3)
    opened.close()


def test_a_file_that_is_no_database_is_refused_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "ctrlab.sqlite3").write_bytes(b"col1\tcol2\n" * 200)
    with pytest.raises(StorageError, match="file is not a database"):
        Store.open(tmp_path)


def test_a_home_that_cannot_be_made_is_refused_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be used as home folder"):
        Store.open(tmp_path / "file")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("mysql://host/name", "lives in sqlite or postgresql, got mysql"),
        ("not an address", "is not a store address"),
        ("sqlite:///:memory:", "cannot be shared with the worker"),
        ("sqlite://", "cannot be shared with the worker"),
    ],
)
def test_an_address_that_cannot_be_a_store_is_refused(tmp_path: Path, url: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Store.open(tmp_path, url)


def test_an_unreachable_server_is_one_sentence_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be used") as caught:
        Store.open(tmp_path, "postgresql://someone:secret@127.0.0.1:1/nowhere")
    assert "secret" not in str(caught.value)


def test_a_failed_write_takes_everything_back(store: Store) -> None:
    with pytest.raises(RuntimeError), store.database.write() as connection:
        connection.execute(sa.update(schema_version).values(version=99))
        raise RuntimeError
    with store.database.read() as connection:
        assert connection.execute(sa.select(schema_version.c.version)).scalar_one() == SCHEMA_VERSION


def test_readers_see_the_last_commit_while_another_writes(store: Store) -> None:
    with store.database.write() as connection:
        connection.execute(sa.update(schema_version).values(version=99))
        with store.database.read() as reader:
            assert reader.execute(sa.select(schema_version.c.version)).scalar_one() == SCHEMA_VERSION
        connection.rollback()


def test_storage_loads_without_torch_pandas_or_numpy() -> None:
    script = "import sys, ctrlab.storage\nassert not {'torch', 'sklearn', 'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)

"""Uploads: simultaneous ones of one name, unusable names, the limit of size."""

import io
import threading

import pytest

from ctrlab.errors import DataError
from ctrlab.services.datasets import stage_upload
from ctrlab.services.workspace import open_workspace


@pytest.fixture
def workspace(tmp_path):
    return open_workspace(tmp_path / "home")


def test_simultaneous_uploads_of_one_name_are_all_whole(workspace):
    contents = [bytes([i]) * (3 << 20) for i in range(20)]
    paths, start = [None] * len(contents), threading.Barrier(len(contents))

    def upload(i: int) -> None:
        start.wait()
        paths[i] = stage_upload(workspace, "train.csv.gz", io.BytesIO(contents[i]))

    threads = [threading.Thread(target=upload, args=(i,)) for i in range(len(contents))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == len(contents)
    assert [path.read_bytes() for path in paths] == contents
    assert {path.name for path in paths} == {"train.csv.gz", *(f"train-{i}.csv.gz" for i in range(2, 21))}
    assert len(list((workspace.home / "uploads").iterdir())) == len(contents)


@pytest.mark.parametrize(
    ("name", "words"), [("x" * 300 + ".csv", "304 characters"), ("a\0b.csv", "NUL"), ("..", "no name"), ("", "no name")]
)
def test_an_unusable_name_is_one_sentence(workspace, name, words):
    with pytest.raises(DataError, match=words):
        stage_upload(workspace, name, io.BytesIO(b"x"))


def test_an_upload_beyond_the_limit_leaves_nothing(workspace):
    with pytest.raises(DataError, match="larger than the upload limit"):
        stage_upload(workspace, "big.csv", io.BytesIO(b"x" * 100), max_bytes=99)
    assert not list((workspace.home / "uploads").iterdir())


def test_an_upload_is_a_private_file_in_the_upload_folder_whatever_its_name_says(workspace):
    path = stage_upload(workspace, "../../a.csv", io.BytesIO(b"x"))
    assert path == workspace.home / "uploads" / "a.csv"
    assert path.stat().st_mode & 0o077 == 0

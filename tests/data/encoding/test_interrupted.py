"""An encoding that a full disk or an unexpected error interrupts keeps its work, and the same call ends in the same bytes."""

import errno
import os

import pytest

from ctrlab.data.encoding import parsing, write_splits
from ctrlab.data.encoding.column_cache import ColumnCache
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.errors import DataError, FileReadError, JobCancelled, StorageError


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(parsing, "CHUNK_BYTES", 1 << 10)
    monkeypatch.setattr(write_splits, "BLOCK_ROWS", 20)


@pytest.fixture
def config(write, table, config_for):
    return config_for(write("table.tsv", table.write_csv(separator="\t")))


def full_after(writes: int, ending: str) -> type[ColumnCache]:
    """A cache on a disk that is full at one write to a file with this ending, and has room again afterwards."""

    class FullOnce(ColumnCache):
        left = writes

        def append(self, name, array):
            if name.endswith(ending):
                FullOnce.left -= 1
                if FullOnce.left == 0:
                    super().append(name, array[: len(array) // 2])
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            super().append(name, array)

        def write_journal(self, journal):
            if ending == "journal" and journal.blocks_written:
                FullOnce.left -= 1
                if FullOnce.left == 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            super().write_journal(journal)

    return FullOnce


def files_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def steps_of_resumed(config, folder) -> list[str]:
    messages = []
    encode_dataset(config, folder, on_progress=lambda fraction, message: messages.append(message))
    return messages


@pytest.mark.parametrize(("ending", "writes"), [(".cells", 12), ("labels", 3), (".encoded", 2), ("journal", 1)])
def test_after_a_full_disk_the_same_call_resumes_to_the_same_bytes(config, tmp_path, ending, writes):
    with pytest.raises(StorageError, match="No space left on device"):
        encode_dataset(config, tmp_path / "full", open_cache=full_after(writes, ending))
    assert (tmp_path / "full.partial").exists()
    messages = steps_of_resumed(config, tmp_path / "full")
    if ending in (".encoded", "journal"):
        assert not [message for message in messages if message.startswith("read")]
    else:
        assert messages[0] != "read 25 rows"
    encode_dataset(config, tmp_path / "uninterrupted")
    assert files_of(tmp_path / "full") == files_of(tmp_path / "uninterrupted")
    assert not (tmp_path / "full.partial").exists()


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        *(("read", fault) for fault in (MemoryError(), RuntimeError("a defect"), FileReadError("gone"), KeyboardInterrupt())),
        ("fitted", RuntimeError("a defect")),
        ("wrote", FileReadError("the drive is gone")),
        ("writing", KeyboardInterrupt()),
        ("done", MemoryError()),
    ],
)
def test_an_unexpected_error_at_any_step_keeps_the_work(config, tmp_path, fault, step):
    def fail(fraction, message):
        if message.startswith(step):
            raise fault

    with pytest.raises(type(fault)):
        encode_dataset(config, tmp_path / "broken", on_progress=fail)
    assert (tmp_path / "broken.partial").exists()
    encode_dataset(config, tmp_path / "broken")
    encode_dataset(config, tmp_path / "uninterrupted")
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "uninterrupted")


@pytest.mark.parametrize("step", ["read", "fitted", "wrote"])
def test_a_cancelled_encoding_leaves_nothing(config, tmp_path, step):
    reached = []
    with pytest.raises(JobCancelled):
        encode_dataset(
            config,
            tmp_path / "cancelled",
            on_progress=lambda fraction, message: reached.append(message.startswith(step)),
            should_stop=lambda: any(reached),
        )
    assert not list(tmp_path.glob("cancelled*"))


def test_bad_data_leaves_nothing(write, table, config_for, tmp_path):
    config = config_for(write("table.tsv", table.write_csv(separator="\t") + "7\ts1\tr\t1\t2024-03-01\n"))
    with pytest.raises(DataError, match="label 'click'"):
        encode_dataset(config, tmp_path / "bad")
    assert not list(tmp_path.glob("bad*"))


def test_a_dataset_that_was_complete_but_not_renamed_is_finished_by_the_same_call(config, tmp_path):
    class NotDeleted(ColumnCache):
        def delete(self):
            self.remove("0.encoded")
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(StorageError):
        encode_dataset(config, tmp_path / "broken", open_cache=NotDeleted)
    assert steps_of_resumed(config, tmp_path / "broken") == ["done"]
    encode_dataset(config, tmp_path / "uninterrupted")
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "uninterrupted")

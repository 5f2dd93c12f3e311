import errno
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from ctrlab.errors import ConfigError, StorageError, UnknownNameError
from ctrlab.storage import Artifact, NewArtifact, Store


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "weights.bin").write_bytes(b"weights")
    return folder


@pytest.fixture
def chain(store: Store) -> list[Artifact]:
    """dataset -> model -> spectra, and an evaluation of the model."""
    dataset = store.artifacts.add(NewArtifact("dataset", "ads"))
    model = store.artifacts.add(NewArtifact("model", "DeepFM", parents=[dataset.id]))
    spectra = store.artifacts.add(NewArtifact("spectra", "of DeepFM", parents=[model.id]))
    return [dataset, model, spectra, store.artifacts.add(NewArtifact("evaluation", "test split", parents=[model.id, dataset.id]))]


def test_an_artifact_comes_back_as_it_was_added(store: Store, files: Path) -> None:
    parent = store.artifacts.add(NewArtifact("dataset", "ads"))
    before = datetime.now(UTC)
    added = store.artifacts.add(
        NewArtifact(
            "model",
            " DeepFM ",
            parents=[parent.id],
            config={"mlp_dims": (400, 400)},
            summary={"auc": 0.76},
            seed=2**40,
            files_from=files,
        )
    )
    assert store.artifacts.get(added.id) == added
    assert added.id.startswith("model-")
    assert len(added.id) == len("model-") + 8
    assert (added.name, added.parents, added.seed) == ("DeepFM", (parent.id,), 2**40)
    assert (added.config, added.summary) == ({"mlp_dims": [400, 400]}, {"auc": 0.76})
    assert before <= added.created_at <= datetime.now(UTC)
    assert added.code_version.startswith("0.")


def test_files_are_moved_into_the_artifact_folder(store: Store, files: Path) -> None:
    added = store.artifacts.add(NewArtifact("model", "DeepFM", files_from=files))
    assert (added.path / "inner" / "weights.bin").read_bytes() == b"weights"
    assert not files.exists()


def test_files_on_another_file_system_arrive_whole(store: Store, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def refuse_once_across(self: Path, target: Path) -> Path:
        if self == files:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_once_across)
    added = store.artifacts.add(NewArtifact("model", "DeepFM", files_from=files))
    assert (added.path / "inner" / "weights.bin").read_bytes() == b"weights"
    assert not files.exists()


def test_numpy_values_and_nan_survive_in_summaries(store: Store) -> None:
    summary = {"auc": float("nan"), "rows": np.int64(3), "ctr": np.float32(0.5), "ranks": np.array([1, 2]), "path": Path("a/b")}
    read = store.artifacts.get(store.artifacts.add(NewArtifact("dataset", "ads", summary=summary)).id).summary
    assert math.isnan(read.pop("auc"))
    assert read == {"rows": 3, "ctr": 0.5, "ranks": [1, 2], "path": "a/b"}


def test_an_unknown_parent_is_refused_and_the_files_stay_where_they_were(store: Store, files: Path) -> None:
    with pytest.raises(UnknownNameError, match="ds-ffffffff"):
        store.artifacts.add(NewArtifact("model", "DeepFM", parents=["ds-ffffffff"], files_from=files))
    assert (files / "inner" / "weights.bin").exists()
    assert store.artifacts.list() == []
    assert list((store.home / "artifacts").iterdir()) == []


@pytest.mark.parametrize(("kind", "name"), [("weights", "x"), ("model", "  "), ("model", "x" * 201)])
def test_an_unusable_kind_or_name_is_refused(store: Store, kind: str, name: str) -> None:
    with pytest.raises(ConfigError, match=r"must"):
        store.artifacts.add(NewArtifact(kind, name))  # type: ignore[arg-type]


def test_missing_files_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        store.artifacts.add(NewArtifact("model", "DeepFM", files_from=tmp_path / "nowhere"))


def test_lists_are_newest_first_and_filtered_by_kind_and_parent(store: Store, chain: list[Artifact]) -> None:
    dataset, model, spectra, evaluation = chain
    assert store.artifacts.list() == [evaluation, spectra, model, dataset]
    assert store.artifacts.list("model") == [model]
    assert store.artifacts.list(parent=dataset.id) == [evaluation, model]
    assert store.artifacts.list("evaluation", parent=model.id) == [evaluation]
    assert store.artifacts.list(limit=1) == [evaluation]


def test_a_long_list_keeps_its_parents(store: Store) -> None:
    dataset = store.artifacts.add(NewArtifact("dataset", "ads"))
    for number in range(120):
        store.artifacts.add(NewArtifact("model", f"model {number}", parents=[dataset.id]))
    listed = store.artifacts.list("model")
    assert len(listed) == 120
    assert {model.parents for model in listed} == {(dataset.id,)}


def test_lineage_goes_from_the_oldest_ancestor_to_the_artifact(store: Store, chain: list[Artifact]) -> None:
    dataset, model, spectra, evaluation = chain
    assert store.artifacts.lineage(spectra.id) == [dataset, model, spectra]
    assert store.artifacts.lineage(evaluation.id) == [dataset, model, evaluation]
    assert store.artifacts.dependents(dataset.id) == [model, spectra, evaluation]


def test_an_unknown_artifact_is_refused_by_every_reader(store: Store) -> None:
    for read in (store.artifacts.get, store.artifacts.lineage, store.artifacts.dependents, store.artifacts.delete):
        with pytest.raises(UnknownNameError, match="model-00000000"):
            read("model-00000000")


def test_rename_changes_the_name_only(store: Store, chain: list[Artifact]) -> None:
    renamed = store.artifacts.rename(chain[1].id, "best DeepFM")
    assert (renamed.id, renamed.name, renamed.parents) == (chain[1].id, "best DeepFM", chain[1].parents)
    with pytest.raises(ConfigError):
        store.artifacts.rename(chain[1].id, "")


def test_delete_refuses_and_names_what_depends_on_the_artifact(store: Store, chain: list[Artifact]) -> None:
    _, model, spectra, evaluation = chain
    with pytest.raises(StorageError, match=f"{spectra.id}.*{evaluation.id}"):
        store.artifacts.delete(model.id)
    assert len(store.artifacts.list()) == 4


def test_delete_with_cascade_takes_dependents_and_files(store: Store, chain: list[Artifact], files: Path) -> None:
    dataset, model, spectra, evaluation = chain
    copy = store.artifacts.add(NewArtifact("model", "compressed", parents=[model.id], files_from=files))
    assert set(store.artifacts.delete(model.id, cascade=True)) == {model.id, spectra.id, evaluation.id, copy.id}
    assert store.artifacts.list() == [dataset]
    assert not copy.path.exists()
    assert store.artifacts.delete(dataset.id) == (dataset.id,)


def test_a_job_adds_an_artifact_once_per_key(store: Store, tmp_path: Path) -> None:
    job = store.jobs.submit("train", "Train", {})
    first = store.artifacts.add(NewArtifact("model", "DeepFM"), job_id=job.id)
    (tmp_path / "again").mkdir()
    assert store.artifacts.add(NewArtifact("model", "DeepFM", files_from=tmp_path / "again"), job_id=job.id) == first
    assert store.artifacts.add(NewArtifact("model", "DeepFM"), job_id=job.id, job_key="folded") != first
    assert store.artifacts.add(NewArtifact("model", "by hand")) != store.artifacts.add(NewArtifact("model", "by hand"))

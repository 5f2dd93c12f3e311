"""What is read from artifacts is cached by home and id."""

from ctrlab.services.workspace import Workspace, open_workspace
from ctrlab.ui import cache


def test_an_id_is_read_once_per_home(tmp_path):
    reads = []

    @cache.per_workspace(max_entries=4)
    def read(workspace: Workspace, artifact_id: str) -> list[str]:
        reads.append(artifact_id)
        return [str(workspace.home), artifact_id]

    first, second = (open_workspace(tmp_path / name) for name in ("one", "two"))
    assert read(first, "model-1") is read(open_workspace(tmp_path / "one"), "model-1")
    assert read(second, "model-1") == [str(second.home), "model-1"] and reads == ["model-1", "model-1"]

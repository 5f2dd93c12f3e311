"""An architecture that the package does not know is trained, decomposed and compressed like its own."""

import subprocess
import sys
from pathlib import Path

import ctrlab
from tests.support.patience import PATIENCE
from tests.support.small_lab import copied

EXAMPLE = Path(__file__).with_name("new_architecture.py")


def whole_way(home: str, dataset_id: str) -> None:
    """Run in a process of its own: registering an architecture is for good."""
    from tests.examples import new_architecture  # noqa: F401  registers the architecture

    with ctrlab.Lab(home) as lab:
        fit = ctrlab.FitConfig(batch_size=256, learning_rate=3e-3, epochs=2)
        settings = {"embed_dim": 6, "width": 16}
        model = lab.train(ctrlab.TrainConfig(dataset_id=dataset_id, architecture="deep_crossing", model=settings, fit=fit))
        spectra = lab.spectra(model.id)
        small = lab.compress(model.id, ranks={"blocks.*": 4, "embedding.*": 2}, finetune=fit.replace(epochs=1))
        table = lab.compare([model.id, small.id]).set_index("id")
    assert spectra.summary["num_layers"] == 5  # entry, two blocks, two tables
    assert set(small.summary["compression"]["ranks"]) == {"blocks.0", "blocks.1", "embedding.site", "embedding.ad"}
    assert table.loc[model.id, "auc"] > 0.6
    assert table.loc[small.id, "parameters"] < table.loc[model.id, "parameters"]
    assert abs(table.loc[small.id, "auc_change"]) < 0.1


def test_an_architecture_from_outside_goes_the_whole_way(small_home, tmp_path):
    small = copied(*small_home, tmp_path / "home")
    small.lab.workspace.store.close()
    call = f"from {__name__} import whole_way; whole_way({str(tmp_path / 'home')!r}, {small.dataset.id!r})"
    done = subprocess.run(
        [sys.executable, "-c", call], cwd=EXAMPLE.parents[2], capture_output=True, text=True, timeout=5 * PATIENCE
    )
    assert done.returncode == 0, done.stderr


def test_it_takes_less_than_40_lines():
    lines = [line for line in EXAMPLE.read_text().splitlines() if line.strip()]
    assert len(lines) < 40

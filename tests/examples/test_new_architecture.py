"""An architecture that the package does not know is trained, decomposed and compressed like its own."""

from pathlib import Path

import ctrlab
from ctrlab.models.configs import MODELS

EXAMPLE = Path(__file__).with_name("new_architecture.py")


def test_an_architecture_from_outside_goes_the_whole_way(small_lab, request):
    from tests.examples import new_architecture  # noqa: F401  registers the architecture

    request.addfinalizer(lambda: MODELS.remove("deep_crossing"))
    lab, fit = small_lab.lab, ctrlab.FitConfig(batch_size=256, learning_rate=3e-3, epochs=2)
    config = ctrlab.TrainConfig(
        dataset_id=small_lab.dataset.id, architecture="deep_crossing", model={"embed_dim": 6, "width": 16}, fit=fit
    )
    model = lab.train(config)
    spectra = lab.spectra(model.id)
    small = lab.compress(model.id, ranks={"blocks.*": 4, "embedding.*": 2}, finetune=fit.replace(epochs=1))
    table = lab.compare([model.id, small.id]).set_index("id")
    assert spectra.summary["num_layers"] == 5  # entry, two blocks, two tables
    assert set(small.summary["compression"]["ranks"]) == {"blocks.0", "blocks.1", "embedding.site", "embedding.ad"}
    assert table.loc[model.id, "auc"] > 0.6
    assert table.loc[small.id, "parameters"] < table.loc[model.id, "parameters"]
    assert abs(table.loc[small.id, "auc_change"]) < 0.1


def test_it_takes_less_than_40_lines():
    lines = [line for line in EXAMPLE.read_text().splitlines() if line.strip()]
    assert len(lines) < 40

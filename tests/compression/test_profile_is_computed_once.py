"""A compression and the filing of its result run the model on a blank row as rarely as they can."""

from ctrlab.compression.fold import cheaper_form
from ctrlab.compression.pipeline import compress_and_finetune
from ctrlab.models.deepfm import DeepFM
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressConfig
from ctrlab.training.configs import FitConfig
from tests.support.small_models import MemoryDataset, make_model, spectra_of


class Counting(DeepFM):
    """A DeepFM that counts its forward passes over a single row; the dataset has none."""

    blank_rows = 0

    def forward(self, fields):
        Counting.blank_rows += len(fields.ids) == 1
        return super().forward(fields)


def counting_model():
    plain = make_model("deepfm")
    model = Counting(plain.config, plain.schema)
    model.load_state_dict(plain.state_dict())
    return model


def test_a_two_stage_compression_profiles_its_model_once():
    model, data = counting_model(), MemoryDataset()
    config = CompressConfig.of({"mlp.0": 5, "mlp.2": 4, "embedding.ad": 2}, finetune=FitConfig(epochs=1, batch_size=256))
    spectra = spectra_of(model, data)
    Counting.blank_rows = 0
    result = compress_and_finetune(model, data, config, spectra)
    assert [stage.name for stage in result.stages] == ["mlp", "tables"] and Counting.blank_rows == 1


def test_the_serving_form_is_chosen_by_one_more_pass():
    model = counting_model()
    Counting.blank_rows = 0
    profile = profile_model(model)
    assert Counting.blank_rows == 1
    cheaper_form(model, profile.cost)
    assert Counting.blank_rows == 2

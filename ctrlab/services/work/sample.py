"""The `open_sample` job: encode the sample's table, take in its trained model, compute the model's spectra."""

from ctrlab.data.configs import DatasetConfig
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.models.checkpoint import load_model
from ctrlab.models.configs import MODELS
from ctrlab.services.handlers import JobContext
from ctrlab.services.models import MODEL_FILE
from ctrlab.services.sample import SAMPLE_CONFIG_FILE, SAMPLE_MODEL_NAME, OpenSampleConfig, sample_folder
from ctrlab.services.spectra import SpectraConfig
from ctrlab.services.work.encode import file_dataset
from ctrlab.services.work.shared import file_model
from ctrlab.services.work.spectra import decompose_and_file


def run(config: OpenSampleConfig, context: JobContext) -> dict[str, str]:
    """-> the ids of the dataset, the model and its spectra."""
    source = sample_folder()
    dataset_config = sample_dataset_config()
    context.report(0.0, "encoding the table")
    encoded = encode_dataset(
        dataset_config,
        context.folder / "dataset",
        on_progress=lambda fraction, message: context.report(0.5 * fraction, message),
        should_stop=context.should_stop,
    )
    schema = encoded.schema
    dataset = file_dataset(context, encoded)
    context.report(0.5, "loading the trained model")
    model = load_model(source / MODEL_FILE, schema)
    artifact = file_model(
        context,
        model,
        role="original",
        name=SAMPLE_MODEL_NAME,
        parents=[dataset.id],
        config={"dataset_id": dataset.id, "architecture": MODELS.entry_for(model.config).name, "model": model.config.to_dict()},
        summary={},
        seed=None,
    )
    spectra = decompose_and_file(SpectraConfig(model_id=artifact.id), context, start=0.6, end=1.0)
    return {"dataset": dataset.id, "model": artifact.id, "spectra": spectra.id}


def sample_dataset_config() -> DatasetConfig:
    """The committed dataset config, with the table's path made absolute."""
    folder = sample_folder()
    config = DatasetConfig.from_json((folder / SAMPLE_CONFIG_FILE).read_text())
    paths = tuple(str(folder / path) for path in config.source.paths)
    return config.replace(source=config.source.replace(paths=paths))

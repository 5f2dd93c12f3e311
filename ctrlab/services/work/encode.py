"""The `encode` job."""

from ctrlab.data.configs import DatasetConfig
from ctrlab.data.dataset import EncodedDataset
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.services.annotations import free_name
from ctrlab.services.datasets import check_source
from ctrlab.services.handlers import JobContext
from ctrlab.storage import Artifact, NewArtifact


def run(config: DatasetConfig, context: JobContext) -> dict[str, str]:
    """Encode the table and file it as a dataset."""
    # Checked again: a link may have changed since the job was queued. The config keeps the paths as they were given.
    check_source(context.workspace, config.source, uploaded=True)
    dataset = encode_dataset(config, context.folder / "dataset", on_progress=context.report, should_stop=context.should_stop)
    return {"dataset": file_dataset(context, dataset).id}


def file_dataset(context: JobContext, dataset: EncodedDataset) -> Artifact:
    """Move an encoded dataset into the store; its name gets a number where another dataset has it."""
    schema = dataset.schema
    summary = dataset.summary.to_dict() | {"fingerprint": schema.fingerprint, "schema": schema.to_dict()}
    config = dataset.config
    return context.add_artifact(
        NewArtifact(
            "dataset",
            free_name(context.workspace, "dataset", config.name),
            config=config.to_dict(),
            summary=summary,
            seed=config.split.seed,
            files_from=dataset.path,
        )
    )

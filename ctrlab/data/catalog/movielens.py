"""MovielensLatest_x1: tags that people gave to films, as the BARS benchmark splits it."""

from ctrlab.data.catalog.known import KnownDataset
from ctrlab.data.configs import ColumnConfig, DatasetConfig, SourceConfig, SplitConfig

CATEGORICAL_NAMES = ("user_id", "item_id", "tag_id")


def _config(source: SourceConfig, split: SplitConfig) -> DatasetConfig:
    fields = (ColumnConfig(name=name, role="categorical") for name in CATEGORICAL_NAMES)
    columns = (ColumnConfig(name="label", role="label"), *fields)
    return DatasetConfig(name="MovielensLatest_x1", source=source, columns=columns, split=split)


MOVIELENS = KnownDataset(
    name="movielens",
    title="MovieLens tags, MovielensLatest_x1 (BARS benchmark)",
    description="Whether a person gave a film a tag: three categorical columns.",
    address="https://huggingface.co/datasets/reczoo/MovielensLatest_x1",
    files="unpack MovielensLatest_x1.zip and choose train.csv, valid.csv and test.csv",
    size="16.2 MB packed",
    size_source="dataset page",
    num_rows=2_006_859,
    licence="GroupLens: research use, no commercial use without permission",
    make_config=_config,
    checksums={
        "train.csv": "efc8bceeaa0e895d566470fc99f3f271",
        "valid.csv": "e1930223a5026e910ed5a48687de8af1",
        "test.csv": "54e8c6baff2e059fe067fb9b69e692d0",
    },
    checksum_source="dataset page",
    num_files=3,
)

"""Frappe_x1: use of mobile apps in context, as the BARS benchmark splits it."""

from ctrlab.data.catalog.known import KnownDataset
from ctrlab.data.configs import ColumnConfig, DatasetConfig, SourceConfig, SplitConfig

CATEGORICAL_NAMES = ("user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city")


def _config(source: SourceConfig, split: SplitConfig) -> DatasetConfig:
    fields = (ColumnConfig(name=name, role="categorical") for name in CATEGORICAL_NAMES)
    columns = (ColumnConfig(name="label", role="label"), *fields)
    return DatasetConfig(name="Frappe_x1", source=source, columns=columns, split=split)


FRAPPE_X1 = KnownDataset(
    name="frappe_x1",
    title="Frappe_x1 (BARS benchmark)",
    description="Which app was used in which context: ten categorical columns, two unused apps drawn for each used one.",
    address="https://huggingface.co/datasets/reczoo/Frappe_x1",
    files="unpack Frappe_x1.zip and choose train.csv, valid.csv and test.csv",
    size="about 3 MB packed",
    size_source="a user's note; the publisher's figure was not found",
    num_rows=288_609,
    licence="research use; see the dataset's page",
    make_config=_config,
    checksums={
        "train.csv": "ba7306e6c4fc19dd2cd84f2f0596d158",
        "valid.csv": "88d51bf2173505436d3a8f78f2a59da8",
        "test.csv": "3470f6d32713dc5f7715f198ca7c612a",
    },
    checksum_source="dataset page",
    num_files=3,
)

"""Avazu click-through rate prediction (Kaggle, 2014)."""

from ctrlab.data.catalog.known import KnownDataset
from ctrlab.data.configs import ColumnConfig, DatasetConfig, SourceConfig, SplitConfig

CATEGORICAL_NAMES = (
    "C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category",
    "device_id", "device_ip", "device_model", "device_type", "device_conn_type",
    "C14", "C15", "C16", "C17", "C18", "C19", "C20", "C21",
)  # fmt: skip


def _config(source: SourceConfig, split: SplitConfig) -> DatasetConfig:
    columns = (
        ColumnConfig(name="id", role="ignore"),
        ColumnConfig(name="click", role="label"),
        ColumnConfig(name="hour", role="timestamp", timestamp_format="yymmddhh"),
        *(ColumnConfig(name=name, role="categorical") for name in CATEGORICAL_NAMES),
    )
    return DatasetConfig(name="Avazu", source=source, columns=columns, split=split)


AVAZU = KnownDataset(
    name="avazu",
    title="Avazu click-through rate prediction",
    description="Ten days of mobile ads: 21 categorical columns and the hour, which becomes hour of day and weekday.",
    address="https://www.kaggle.com/c/avazu-ctr-prediction/data",
    files="choose train.gz as it is, or unpacked (comma-separated, with header)",
    size="1.04 GB packed",
    size_source="competition page",
    num_rows=40_428_967,
    licence="Kaggle competition rules: needs an account, no redistribution",
    make_config=_config,
)

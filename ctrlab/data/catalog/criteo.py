"""Criteo display advertising: the challenge's original text file, and the form benchmarks share."""

import re
from pathlib import Path, PurePosixPath

from ctrlab.data.catalog.known import KnownDataset
from ctrlab.data.configs import ColumnConfig, DatasetConfig, SourceConfig, SplitConfig, Transform
from ctrlab.data.tables.archives import archive_members, is_table_name
from ctrlab.data.tables.inspect import TableInspection
from ctrlab.data.tables.reader import open_table
from ctrlab.errors import DataError

NUMERIC_NAMES = tuple(f"I{i}" for i in range(1, 14))
CATEGORICAL_NAMES = tuple(f"C{i}" for i in range(1, 27))
COLUMN_NAMES = ("label", *NUMERIC_NAMES, *CATEGORICAL_NAMES)
_HASH = re.compile("[0-9a-f]{8}")


def _columns(transform: Transform) -> tuple[ColumnConfig, ...]:
    return (
        ColumnConfig(name="label", role="label"),
        *(ColumnConfig(name=name, role="numeric", transform=transform) for name in NUMERIC_NAMES),
        *(ColumnConfig(name=name, role="categorical") for name in CATEGORICAL_NAMES),
    )


def _original(source: SourceConfig, split: SplitConfig) -> DatasetConfig:
    # A Parquet copy brings its names; the original text has none.
    if not source.paths[0].lower().endswith((".parquet", ".pq")):
        source = source.replace(column_names=COLUMN_NAMES, delimiter="\t")
    return DatasetConfig(name="Criteo", source=source, columns=_columns("criteo"), split=split)


def _source_of(source: SourceConfig) -> SourceConfig:
    """The source with names and delimiter as the file has them: a copy may have a header, or commas.

    Of the archive as it is downloaded, `train.txt` is read: the rows of `test.txt` have no label.
    """
    try:
        source = source.replace(paths=(_training_file(source.paths[0]),))
        detected = source.replace(column_names=(), delimiter=None)
        reader = open_table(detected)
    except (DataError, OSError):
        return source  # its reader names what is wrong
    if set(COLUMN_NAMES) <= set(reader.column_names):
        return detected
    if len(reader.column_names) == len(COLUMN_NAMES) and not reader.layout.header:
        return detected.replace(column_names=COLUMN_NAMES, delimiter=reader.layout.delimiter)
    return source


def _training_file(path: str) -> str:
    """The path of `train.txt` inside an archive of several tables; any other path as it is."""
    members = archive_members(Path(path)) if Path(path).is_file() else None
    tables = [name for name in members or () if is_table_name(name)]
    found = next((name for name in tables if PurePosixPath(name).name == "train.txt"), None)
    return f"{path}/{found}" if len(tables) > 1 and found else path


def _is_like(inspection: TableInspection) -> bool:
    """Whether a table has a label, 13 counts and 26 hashes of 8 hexadecimal digits, by their names or in this order."""
    if set(COLUMN_NAMES) <= set(inspection.column):
        found = [inspection.column[name] for name in COLUMN_NAMES]
    else:
        found = list(inspection.columns)
    label, *columns = found
    counts, hashes = columns[: len(NUMERIC_NAMES)], columns[len(NUMERIC_NAMES) :]
    return (
        len(found) == len(COLUMN_NAMES)
        and inspection.label == label.name
        and all(column.minimum is not None or not column.distinct for column in counts)
        and all(_HASH.fullmatch(example) for column in hashes for example in column.examples)
    )


def _x1(source: SourceConfig, split: SplitConfig) -> DatasetConfig:
    return DatasetConfig(name="Criteo_x1", source=source, columns=_columns("standard"), split=split)


CRITEO = KnownDataset(
    name="criteo",
    title="Criteo display advertising",
    description="A week of display ads: 13 counts and 26 hashed categorical columns. Counts become floor(log(x)^2) buckets.",
    address="https://go.criteo.net/criteo-research-kaggle-display-advertising-challenge-dataset.tar.gz",
    files="choose the archive as it is (dac.tar.gz), or the train.txt in it (tab-separated, no header)",
    size="4.58 GB (4,576,820,670 bytes) packed",
    size_source="length the server reports, as others have recorded it; not checked here",
    num_rows=45_840_617,
    licence="CC BY-NC-SA 4.0: research use, no commercial use",
    make_config=_original,
    find_source=_source_of,
    is_like=_is_like,
)

CRITEO_X1 = KnownDataset(
    name="criteo_x1",
    title="Criteo_x1 (BARS benchmark)",
    description="The same data as the BARS benchmark shares it: split 7:2:1, counts already scaled, values already numbered.",
    address="https://huggingface.co/datasets/reczoo/Criteo_x1",
    files="unpack Criteo_x1.zip and choose train.csv, valid.csv and test.csv",
    size="2.89 GB packed",
    size_source="dataset page",
    num_rows=45_840_617,
    licence="that of the original: CC BY-NC-SA 4.0, research use, no commercial use",
    make_config=_x1,
    checksums={
        "train.csv": "30b89c1c7213013b92df52ec44f52dc5",
        "valid.csv": "f73c71fb3c4f66b6ebdfa032646bea72",
        "test.csv": "2c48b26e84c04a69b948082edae46f8c",
    },
    checksum_source="dataset page",
    num_files=3,
)

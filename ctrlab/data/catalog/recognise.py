"""Inspection that recognises the files of known public datasets without their being named."""

from ctrlab.data.catalog import DATASETS
from ctrlab.data.catalog.known import KnownDataset
from ctrlab.data.configs import ColumnConfig, SourceConfig
from ctrlab.data.tables.inspect import TableInspection, inspect_table


def inspect_and_recognise(
    source: SourceConfig, max_rows: int = 200_000, *, label: ColumnConfig | None = None
) -> TableInspection:  # fmt: skip
    """`inspect_table`, with the roles and settings that are usual for a known dataset where the table is one, and a note of it.

    Args:
        max_rows, label: as in `inspect_table`.

    Raises:
        DataError: as `inspect_table`.
    """
    inspection = inspect_table(source, max_rows, label=label)
    if label is None and (known := _known_by_cells(inspection)):
        names = tuple(column.name for column in known.config_for(source.paths[: known.num_files]).columns)
        inspection = inspect_table(inspection.source.replace(column_names=names), max_rows)
    known = next((known for known in DATASETS if known.recognises(inspection)), None)
    return known.adopted(inspection) if known else inspection


def _known_by_cells(inspection: TableInspection) -> KnownDataset | None:
    """The known dataset whose files have no header and whose cells are like these."""
    if inspection.source.header is not False:
        return None
    return next((known for known in DATASETS if known.is_like is not None and known.is_like(inspection)), None)

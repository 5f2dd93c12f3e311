"""Drafts the config that encodes an inspected table, to be corrected by the user."""

from collections.abc import Mapping
from typing import Any, Literal

from ctrlab.data.configs import NEW_DATA_SPLIT, ColumnConfig, DatasetConfig, SourceConfig, SplitConfig
from ctrlab.data.tables.columns import ColumnInspection
from ctrlab.data.tables.inspect import TableInspection
from ctrlab.data.tables.label_candidates import label_question
from ctrlab.data.tables.labels import label_settings
from ctrlab.errors import DataError

#: What several files are: parts of one table, or the train, valid, test (and finetune) rows.
Several = Literal["table", "splits"]


def draft_config(
    inspection: TableInspection,
    name: str,
    *,
    label: str | None = None,
    several: Several | None = None,
    **label_settings: Any,
) -> DatasetConfig:
    """A dataset config with the inferred roles.

    Args:
        label: the label column; by default the one that is the label beyond doubt.
        several: what several files are; required if the source has more than one path.
        label_settings: how the label is read, as settings of `ColumnConfig`: positive, threshold, empty_label, soft, label_total.

    Raises:
        DataError: it is a matter of judgement which column is the label or what counts as a click, and the sentence gives the
            answers with their counts; or no feature is left; or `several` is not given.

    >>> import tempfile, pathlib
    >>> from ctrlab.data.configs import SourceConfig
    >>> from ctrlab.data.tables.inspect import inspect_table
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "log.csv"
    >>> _ = path.write_text("rating,site\\n" + "1,a\\n3,b\\n5,a\\n4,b\\n" * 50)
    >>> inspection = inspect_table(SourceConfig(paths=(str(path),)))
    >>> draft_config(inspection, "log", label="rating", threshold=4).label_column.threshold
    4.0
    """
    label_column = draft_label(inspection, label, label_settings)
    columns = draft_columns(inspection, label_column)
    if all(column.role in ("label", "weight", "ignore") for column in columns):
        other = [column for column in inspection.columns if column.name != label_column.name]
        reasons = "; ".join(f"{column.name}: {column.reason}" for column in other[:5])
        raise DataError(
            f"no column is left to learn from beside the label {label_column.name!r} ({reasons or 'it is the only one'}); "
            "give a table with more columns, or choose roles by hand"
        )
    return DatasetConfig(name=name, source=inspection.source, columns=columns, split=draft_split(inspection.source, several))


def draft_label(inspection: TableInspection, label: str | None, settings: Mapping[str, Any]) -> ColumnConfig:
    """The label column with the settings that read it; of an inspection for a given label, that one by default.

    Raises:
        DataError: a person must choose the column or the reading; or the table has no such column.
    """
    label = label or inspection.label or _only_candidate_for(inspection, settings)
    if not settings and inspection.judged_by is not None and label == inspection.label == inspection.judged_by.name:
        settings = label_settings(inspection.judged_by)
    if label is None:
        raise DataError(label_question(inspection.label_candidates))
    if label not in inspection.column:
        raise DataError(f"the table has no column {label!r} to be the label; its columns are {', '.join(inspection.column)}")
    found = next((found for found in inspection.label_candidates if found.column == label), None)
    column = ColumnConfig(name=label, role="label", **settings)
    if column.label_total is not None and column.label_total not in inspection.column:
        raise DataError(
            f"the table has no column {column.label_total!r} of impressions; its columns are {', '.join(inspection.column)}"
        )
    if found is not None and not found.plain and not found.settled_by(settings):
        raise DataError(label_question((found,)))
    return column


def draft_columns(inspection: TableInspection, label: ColumnConfig | None) -> tuple[ColumnConfig, ...]:
    """Every column with its inferred role and settings; without a label, the label is still to be chosen."""
    return tuple(_draft_column(column, label) for column in inspection.columns)


def draft_split(source: SourceConfig, several: Several | None) -> SplitConfig:
    """A split by files where several files are splits, else a stratified one that keeps a tenth aside for fine-tuning.

    Raises:
        DataError: there are several files and `several` is not given.
    """
    paths = source.paths
    if len(paths) > 1 and several is None:
        raise DataError(
            f"{len(paths)} files are given: say whether they are parts of one table (--files table, several='table') or the "
            "train, valid, test and finetune rows in that order (--files splits, several='splits')"
        )
    return SplitConfig(method="files") if len(paths) > 1 and several == "splits" else NEW_DATA_SPLIT


def _only_candidate_for(inspection: TableInspection, settings: Mapping[str, Any]) -> str | None:
    """The column meant by settings without a name: the only likely candidate."""
    candidates = inspection.label_candidates
    likely = [found for found in candidates if found.likeliness == candidates[0].likeliness]
    return likely[0].column if settings and len(likely) == 1 else None


def _draft_column(column: ColumnInspection, label: ColumnConfig | None) -> ColumnConfig:
    if label is not None and column.name == label.name:
        return label
    if label is not None and column.name == label.label_total:
        return ColumnConfig(name=column.name, role="weight")
    # Another column with the values of a label becomes a categorical field.
    role = "categorical" if column.role == "label" else column.role
    return ColumnConfig(
        name=column.name,
        role=role,
        min_count=column.min_count,
        transform=column.transform,
        number_format=column.number_format,
        timestamp_format=column.timestamp_format,
        separator=column.separator,
        list_format=column.list_format,
        max_length=column.max_length,
        shares=column.shares if label is None or column.shares != label.name else None,
    )

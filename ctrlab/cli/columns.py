"""Settings of `data encode`: from an inspection or a file of settings, changed by the flags that were given."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ctrlab.cli.flags import add_config_flags, flag_settings, help_of, parse_assignments, parse_value
from ctrlab.cli.output import read_text
from ctrlab.data.catalog import DATASETS
from ctrlab.data.configs import SPLIT_NAMES, ColumnConfig, DatasetConfig, SourceConfig, SplitConfig
from ctrlab.data.tables.inspect import TableInspection
from ctrlab.data.tables.labels import LABEL_SETTINGS
from ctrlab.data.tables.notes import Note
from ctrlab.errors import ConfigError, DataError
from ctrlab.services import datasets
from ctrlab.services.paths import input_path
from ctrlab.services.workspace import Workspace

#: Settings of a column that have a flag COLUMN=VALUE.
COLUMN_SETTINGS = tuple(field.name for field in fields(ColumnConfig) if field.name not in ("name", *LABEL_SETTINGS))
#: Those of them that every column has: without COLUMN= the flag sets them for all.
FOR_ALL = tuple(
    name for name in COLUMN_SETTINGS if name != "role" and ColumnConfig.__dataclass_fields__[name].default is not None
)


@dataclass(frozen=True)
class GivenConfig:
    """A dataset's settings; the reasons of the columns' roles; notes of the inspection, if there was one."""

    config: DatasetConfig
    reasons: Mapping[str, str]
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class _Parts:
    """The parts of a `DatasetConfig` before the flags are applied; a label may still be missing."""

    name: str
    source: SourceConfig
    columns: tuple[ColumnConfig, ...]
    split: SplitConfig


def add_label_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name the label and say how it is read."""
    group = parser.add_argument_group("label")
    group.add_argument("--label", metavar="COLUMN", help="the label column, where it is not inferred")
    group.add_argument(
        "--positive",
        action="append",
        metavar="VALUE",
        default=argparse.SUPPRESS,
        help="a cell text of the label that means a click; may be given several times",
    )
    add_config_flags(
        parser, ColumnConfig, only=[name for name in LABEL_SETTINGS if name != "positive"], title="reading of the label"
    )


def given_label(args: argparse.Namespace, default: str) -> ColumnConfig:
    """The label column by its flags alone, where no table is inspected."""
    return ColumnConfig(name=args.label or default, role="label", **_label_settings(args))


def add_column_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for settings of columns."""
    group = parser.add_argument_group("columns", "flags with COLUMN=VALUE may be given several times; a name may hold =")
    for setting in COLUMN_SETTINGS:
        group.add_argument(
            _flag(setting),
            dest=f"of_{setting}",
            action="append",
            default=[],
            metavar="[COLUMN=]VALUE" if setting in FOR_ALL else "COLUMN=VALUE",
            help=help_of(ColumnConfig, setting),
        )


def source_of(args: argparse.Namespace, base: SourceConfig | None = None) -> SourceConfig:
    """The source of the given paths and flags; what is not given is as in `base`."""
    settings = flag_settings(SourceConfig, args)
    settings["paths"] = tuple(str(Path(path).absolute()) for path in args.paths) or (base.paths if base else ())
    return SourceConfig(**settings) if base is None else base.replace(**settings)


def inspected(args: argparse.Namespace, workspace: Workspace | None = None) -> TableInspection:
    """The inspection of the given paths and flags: roles and notes follow the label, if one is given."""
    inspection = datasets.inspect_source(source_of(args), workspace=workspace)
    settings = _label_settings(args)
    if args.label:
        label = ColumnConfig(name=args.label, role="label", **settings)
    elif settings:
        label = datasets.draft_label(inspection, None, settings)
    else:
        return inspection
    return inspection if label == inspection.judged_by else datasets.inspect_source(inspection.source, label=label)


def drafted(inspection: TableInspection, args: argparse.Namespace) -> dict[str, Any]:
    """The drafted settings as JSON for `data encode --config`.

    The label is left out where a person must choose it, and the split where it has to be said what several files are.
    """
    label = None if inspection.label is None else datasets.draft_label(inspection, None, {})
    parts = {
        "name": _name_of(inspection.source.paths),
        "source": inspection.source.to_dict(),
        "columns": [column.to_dict() for column in datasets.draft_columns(inspection, label)],
    }
    if len(inspection.source.paths) > 1 and args.files is None:
        return parts
    return parts | {"split": datasets.draft_split(inspection.source, args.files).to_dict()}


def given_config(args: argparse.Namespace, workspace: Workspace) -> GivenConfig:
    """The settings of a dataset that the arguments of `data encode` describe.

    Raises:
        CtrlabError: no file is given, the settings do not fit, or something has to be said that the flags leave open.
    """
    if not args.paths and not args.config:
        raise ConfigError("no table is given; name a file, or settings with --config")
    reasons: dict[str, str] = {}
    notes: tuple[Note, ...] = ()
    if args.config:
        parts = _from_file(args, workspace)
    elif args.known:
        known, source = DATASETS[args.known], datasets.check_source(workspace, source_of(args))
        config, inspection = known.config_for(source.paths), known.inspect(source.paths)
        parts = _Parts(config.name, source_of(args, inspection.source), config.columns, config.split)
        reasons = {column.name: f"as usual for {known.title}" for column in config.columns}
        notes = tuple(note for note in inspection.notes if note.kind != "label")
    else:
        roles = _column_values(args, "role", None)
        args.label = args.label or next((name for name, role in roles.items() if role == "label"), None)
        inspection = inspected(args, workspace)
        parts = _from_inspection(inspection, args)
        reasons = {column.name: column.reason for column in inspection.columns}
        notes = tuple(note for note in inspection.notes if note.kind != "label" or note.column == _label_of(parts))
    return GivenConfig(_with_flags(parts, args), reasons, notes)


def _from_file(args: argparse.Namespace, workspace: Workspace) -> _Parts:
    path = input_path(workspace, args.config)
    try:
        body = json.loads(read_text(path, "settings that `data inspect --json` wrote"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not valid JSON ({error}); give settings that `data inspect --json` wrote") from None
    body = body.get("config", body) if isinstance(body, dict) else body
    if not isinstance(body, dict) or not isinstance(body.get("columns"), list) or "source" not in body:
        raise ConfigError(f"{path} holds no settings of a dataset; give what `data inspect --json` wrote")
    source = source_of(args, SourceConfig.from_dict(body["source"]))
    columns = tuple(ColumnConfig.from_dict(column) for column in body["columns"])
    split = (
        SplitConfig.from_dict(body["split"]) if "split" in body and not args.files else datasets.draft_split(source, args.files)
    )
    return _Parts(body.get("name", _name_of(source.paths)), source, columns, split)


def _from_inspection(inspection: TableInspection, args: argparse.Namespace) -> _Parts:
    for setting in COLUMN_SETTINGS:  # a wrong flag is named before the label is asked for
        _column_values(args, setting, list(inspection.column))
    label = datasets.draft_label(inspection, args.label, _label_settings(args))
    columns = datasets.draft_columns(inspection, label)
    split = datasets.draft_split(inspection.source, args.files)
    return _Parts(_name_of(inspection.source.paths), inspection.source, columns, split)


def _with_flags(parts: _Parts, args: argparse.Namespace) -> DatasetConfig:
    settings: dict[str, dict[str, Any]] = {column.name: {} for column in parts.columns}
    for setting in COLUMN_SETTINGS:
        for name, value in _column_values(args, setting, list(settings)).items():
            settings[name][setting] = value
    if args.label:
        if args.label not in settings:
            raise DataError(f"the table has no column {args.label!r} to be the label; its columns are {', '.join(settings)}")
        settings[args.label]["role"] = "label"
    columns = tuple(column.replace(**settings[column.name]) for column in parts.columns)
    chosen = {name for name, changed in settings.items() if changed.get("role") == "label"}
    # A label that was chosen by a flag replaces the drafted one, which becomes a field.
    columns = tuple(
        column.replace(role="categorical") if chosen and column.role == "label" and column.name not in chosen else column
        for column in columns
    )
    columns = tuple(column.replace(**_label_settings(args)) if column.role == "label" else column for column in columns)
    split = parts.split.replace(**_shares_in_full(flag_settings(SplitConfig, args)))
    return DatasetConfig(name=args.name or parts.name, source=parts.source, columns=columns, split=split)


def _column_values(args: argparse.Namespace, setting: str, columns: list[str] | None) -> dict[str, Any]:
    """{column: value} of a flag.

    Args:
        columns: those of the table; None where they are not known yet, and names are not checked.
    """
    texts: list[str] = getattr(args, f"of_{setting}")

    def fits(name: str, value: str) -> bool:
        return (columns is None or name in columns) and _fault(setting, value) is None

    for text in texts:
        if setting in FOR_ALL and "=" not in text and (fault := _fault(setting, text)):
            raise ConfigError(f"{_flag(setting)}: {fault}")
    for_all = [text for text in texts if setting in FOR_ALL and _fault(setting, text) is None and columns is not None]
    found = dict.fromkeys(columns or (), for_all[-1]) if for_all else {}
    found |= parse_assignments(
        [text for text in texts if text not in for_all], form=f"{_flag(setting)} COLUMN=VALUE", accepts=fits
    )
    for name, value in found.items():
        if columns is not None and name not in columns:
            raise ConfigError(f"{_flag(setting)}: the table has no column {name!r}; its columns are {', '.join(columns)}")
        if fault := _fault(setting, value):
            raise ConfigError(f"{_flag(setting)} {name}: {fault}")
    return {name: parse_value(ColumnConfig, setting, value) for name, value in found.items()}


def _fault(setting: str, text: str) -> str | None:
    """Why a text is no value of a setting; None if it is one."""
    try:
        ColumnConfig(name="column", **{setting: parse_value(ColumnConfig, setting, text)})
    except ConfigError as error:
        return str(error).split(": ", 1)[-1]
    return None


def _flag(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def _label_settings(args: argparse.Namespace) -> dict[str, Any]:
    given = {name: value for name, value in vars(args).items() if name in LABEL_SETTINGS}
    return given | ({"positive": tuple(given["positive"])} if "positive" in given else {})


def _label_of(parts: _Parts) -> str | None:
    return next((column.name for column in parts.columns if column.role == "label"), None)


def _name_of(paths: tuple[str, ...]) -> str:
    return Path(paths[0]).name.split(".")[0] or "table"


def _shares_in_full(given: dict[str, Any]) -> dict[str, Any]:
    """Split settings where shares that add up to 1 leave nothing to the parts that are not named.

    >>> _shares_in_full({"train": 0.8, "valid": 0.1, "test": 0.1})["finetune"]
    0.0
    """
    shares = [given[name] for name in SPLIT_NAMES if name in given]
    return dict.fromkeys(SPLIT_NAMES, 0.0) | given if shares and abs(sum(shares) - 1) < 1e-6 else given

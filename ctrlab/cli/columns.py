"""Settings of `data encode`: from an inspection or a file of settings, changed by the flags that were given."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrlab.cli.flags import flag_settings, parse_assignments
from ctrlab.cli.output import read_text
from ctrlab.config import choices_of
from ctrlab.data.catalog import DATASETS
from ctrlab.data.configs import SPLIT_NAMES, ColumnConfig, DatasetConfig, SourceConfig, SplitConfig
from ctrlab.data.tables.inspect import TableInspection
from ctrlab.data.tables.notes import Note
from ctrlab.errors import ConfigError, DataError
from ctrlab.services import datasets
from ctrlab.services.paths import input_path
from ctrlab.services.workspace import Workspace

#: Flags that set one setting of one column, COLUMN=VALUE, and the setting.
_COLUMN_FLAGS = {
    "role": "role",
    "time_format": "timestamp_format",
    "number_format": "number_format",
    "transform": "transform",
    "separator": "separator",
    "shares": "shares",
}
#: Flags that say how the label is read; they have the names of the settings.
_LABEL_FLAGS = ("positive", "threshold", "empty_label", "soft", "label_total")


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


def add_column_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the label and for single columns."""
    group = parser.add_argument_group("columns", "flags with COLUMN=VALUE may be given several times; a name may hold =")
    group.add_argument("--label", metavar="COLUMN", help="the label column, where it is not inferred")
    group.add_argument(
        "--positive",
        action="append",
        metavar="VALUE",
        default=argparse.SUPPRESS,
        help="a cell text of the label that means a click; may be given several times",
    )
    group.add_argument("--threshold", type=float, default=argparse.SUPPRESS, metavar="X", help=_help("threshold"))
    group.add_argument(
        "--empty-label",
        choices=list(choices_of(ColumnConfig, "empty_label")),
        default=argparse.SUPPRESS,
        help=_help("empty_label"),
    )
    group.add_argument("--soft", action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=_help("soft"))
    group.add_argument("--label-total", metavar="COLUMN", default=argparse.SUPPRESS, help=_help("label_total"))
    for flag, setting in _COLUMN_FLAGS.items():
        group.add_argument(
            f"--{flag.replace('_', '-')}",
            dest=f"of_{flag}",
            action="append",
            default=[],
            metavar="COLUMN=VALUE",
            help=_help(setting),
        )
    group.add_argument("--min-count", type=int, help="categorical values and list elements rarer than this share one id")


def source_of(args: argparse.Namespace, base: SourceConfig | None = None) -> SourceConfig:
    """The source of the given paths and flags; what is not given is as in `base`."""
    settings = flag_settings(SourceConfig, args)
    settings["paths"] = tuple(str(Path(path).absolute()) for path in args.paths) or (base.paths if base else ())
    return SourceConfig(**settings) if base is None else base.replace(**settings)


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
        inspection = datasets.inspect_source(source_of(args), workspace=workspace)
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
    roles = _column_values(args, "role", list(inspection.column))
    labels = [name for name, role in roles.items() if role == "label"]
    label = datasets.draft_label(inspection, args.label or next(iter(labels), None), _label_settings(args))
    columns = datasets.draft_columns(inspection, label)
    split = datasets.draft_split(inspection.source, args.files)
    return _Parts(_name_of(inspection.source.paths), inspection.source, columns, split)


def _with_flags(parts: _Parts, args: argparse.Namespace) -> DatasetConfig:
    settings: dict[str, dict[str, Any]] = {column.name: {} for column in parts.columns}
    for flag, setting in _COLUMN_FLAGS.items():
        for name, value in _column_values(args, flag, list(settings)).items():
            settings[name][setting] = value
    if args.min_count:
        for column in parts.columns:
            if settings[column.name].get("role", column.role) in ("categorical", "list"):
                settings[column.name]["min_count"] = args.min_count
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


def _column_values(args: argparse.Namespace, flag: str, columns: list[str]) -> dict[str, str]:
    """{column: value} of a flag COLUMN=VALUE."""
    setting = _COLUMN_FLAGS[flag]
    allowed = choices_of(ColumnConfig, setting)
    pairs = getattr(args, f"of_{flag}")
    found = parse_assignments(
        pairs, form="COLUMN=VALUE", accepts=lambda name, value: name in columns and (not allowed or value in allowed)
    )
    for name, value in found.items():
        if name not in columns:
            raise ConfigError(
                f"--{flag.replace('_', '-')}: the table has no column {name!r}; its columns are {', '.join(columns)}"
            )
        if allowed and value not in allowed:
            raise ConfigError(f"--{flag.replace('_', '-')} {name}: {value!r} must be one of {', '.join(map(str, allowed))}")
    return found


def _label_settings(args: argparse.Namespace) -> dict[str, Any]:
    given = {name: value for name, value in vars(args).items() if name in _LABEL_FLAGS}
    return given | ({"positive": tuple(given["positive"])} if "positive" in given else {})


def _label_of(parts: _Parts) -> str | None:
    return next((column.name for column in parts.columns if column.role == "label"), None)


def _name_of(paths: tuple[str, ...]) -> str:
    return Path(paths[0]).name.split(".")[0] or "table"


def _help(setting: str) -> str:
    return str(ColumnConfig.__dataclass_fields__[setting].metadata["help"]).replace("%", "%%")


def _shares_in_full(given: dict[str, Any]) -> dict[str, Any]:
    """Split settings where shares that add up to 1 leave nothing to the parts that are not named.

    >>> _shares_in_full({"train": 0.8, "valid": 0.1, "test": 0.1})["finetune"]
    0.0
    """
    shares = [given[name] for name in SPLIT_NAMES if name in given]
    return dict.fromkeys(SPLIT_NAMES, 0.0) | given if shares and abs(sum(shares) - 1) < 1e-6 else given

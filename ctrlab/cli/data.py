"""`data`: inspect, encode and list datasets."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from ctrlab.cli.common import Subparsers, declare_verb, open_lab, print_artifact
from ctrlab.cli.flags import add_config_flags, config_from_flags, flag_settings
from ctrlab.cli.output import print_json, read_text, table_text
from ctrlab.data.catalog import DATASETS
from ctrlab.data.configs import DatasetConfig, SourceConfig, SplitConfig
from ctrlab.data.tables.notes import Note, notes_from
from ctrlab.services import datasets
from ctrlab.services.paths import input_path
from ctrlab.services.workspace import Workspace


def declare_data(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the verb `data` with its actions."""
    parser = subparsers.add_parser("data", help="inspect, encode and list datasets")
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    inspect = declare_verb(verbs, common, "inspect", run_inspect, "show column roles, cardinalities and missing values of a file")
    _source_flags(inspect)

    encode = declare_verb(verbs, common, "encode", run_encode, "encode a table into a dataset")
    _source_flags(encode)
    encode.add_argument("--name", default="", help="name of the dataset (default: the name of the file)")
    encode.add_argument("--known", choices=DATASETS.names(), help="the file has the format of this public dataset")
    encode.add_argument("--label", help="the label column, where it is not inferred")
    encode.add_argument("--min-count", type=int, help="categorical values and list elements rarer than this share one id")
    encode.add_argument("--config", type=Path, help="a DatasetConfig as JSON; other settings are ignored")
    add_config_flags(encode, SplitConfig, title="split")

    declare_verb(verbs, common, "list", run_list_data, "list the datasets in the store")
    declare_verb(verbs, common, "known", run_known, "list known public datasets with address, size and checksum")
    declare_verb(verbs, common, "sample", run_sample, "open the sample: dataset, trained model and spectra")


def _source_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", help="CSV, TSV or Parquet, plain, gz or zst; several files if they are already split")
    add_config_flags(parser, SourceConfig, skip=("paths",), title="source")


def run_inspect(args: argparse.Namespace) -> None:
    """`data inspect`."""
    inspection = datasets.inspect_source(config_from_flags(SourceConfig, args, paths=tuple(args.paths)))
    if args.json:
        print_json(inspection.to_dict())
        return
    rows = [
        (c.name, c.role, c.distinct, f"{c.missing_share:.1%}", ", ".join(map(str, c.examples[:3]))) for c in inspection.columns
    ]
    print(table_text(["column", "role", "distinct", "missing", "examples"], rows))
    print(f"{inspection.rows:,} rows inspected")
    _print_notes(inspection.notes)


def _print_notes(notes: Iterable[Note]) -> None:
    for note in notes:
        print(note.line)


def run_encode(args: argparse.Namespace) -> None:
    """`data encode`."""
    with open_lab(args) as lab:
        dataset = lab.encode(_dataset_config(args, lab.workspace))
        rows = ", ".join(f"{split} {count:,}" for split, count in dataset.summary["rows"].items())
        print_artifact(args, dataset, f"{dataset.id}  {dataset.name}: {rows} rows; {len(dataset.summary['fields'])} fields")
        if not args.json:
            _print_notes(notes_from(dataset.summary["notes"]))


def _dataset_config(args: argparse.Namespace, workspace: Workspace) -> DatasetConfig:
    if args.config:
        return DatasetConfig.from_json(read_text(input_path(workspace, args.config), "a DatasetConfig as JSON"))
    paths = tuple(str(Path(path).absolute()) for path in args.paths)
    if args.known:
        config = DATASETS[args.known].config_for(paths)
    else:
        source = config_from_flags(SourceConfig, args, paths=paths)
        inspection = datasets.inspect_source(source, workspace=workspace)
        config = datasets.draft_config(inspection, args.name or Path(paths[0]).name.split(".")[0], label=args.label)
    columns = config.columns
    if args.min_count:
        columns = tuple(c.replace(min_count=args.min_count) if c.role in ("categorical", "list") else c for c in columns)
    split = config.split.replace(**flag_settings(SplitConfig, args))
    return config.replace(columns=columns, split=split, name=args.name or config.name)


def run_list_data(args: argparse.Namespace) -> None:
    """`data list`."""
    with open_lab(args) as lab:
        found = datasets.list_datasets(lab.workspace)
        if args.json:
            print_json({"datasets": [{"id": d.id, "name": d.name, "rows": d.summary["rows"]} for d in found]})
        else:
            rows = [(d.id, d.name, sum(d.summary["rows"].values()), d.created_at.strftime("%Y-%m-%d %H:%M")) for d in found]
            print(table_text(["id", "name", "rows", "created"], rows))


def run_known(args: argparse.Namespace) -> None:
    """`data known`."""
    facts = (
        "title",
        "description",
        "address",
        "files",
        "size",
        "size_source",
        "num_rows",
        "licence",
        "checksum",
        "checksum_source",
    )
    known = {dataset.name: {fact: getattr(dataset, fact) for fact in facts} for dataset in datasets.known_datasets()}
    if args.json:
        print_json(known)
        return
    for name, of in known.items():
        print(f"{name}\n" + "\n".join(f"  {fact.replace('_', ' ')}: {value}" for fact, value in of.items()))


def run_sample(args: argparse.Namespace) -> None:
    """`data sample`."""
    with open_lab(args) as lab:
        ids = lab.open_sample()
        print_json(ids) if args.json else print("  ".join(f"{kind} {artifact_id}" for kind, artifact_id in ids.items()))

"""`data`: inspect, encode, list and manage datasets."""

import argparse
from typing import Any

from ctrlab.cli.columns import add_column_flags, add_label_flags, drafted, given_config, inspected
from ctrlab.cli.common import Subparsers, declare_verb, open_lab, print_artifact
from ctrlab.cli.flags import add_config_flags
from ctrlab.cli.manage import add_search_flags, declare_management, marks, search_of
from ctrlab.cli.output import print_json, table_text
from ctrlab.data.catalog import DATASETS
from ctrlab.data.configs import SourceConfig, SplitConfig
from ctrlab.data.tables.columns import ColumnInspection
from ctrlab.data.tables.labels import ALLOWED_TEXT, reading_text
from ctrlab.data.tables.notes import Note, notes_from
from ctrlab.services import annotations, datasets
from ctrlab.storage import Artifact


def declare_data(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the verb `data` with its actions."""
    parser = subparsers.add_parser("data", help="inspect, encode, list and manage datasets")
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    help = "show column roles, cardinalities and missing values of a file; --json writes what `data encode --config` takes"
    inspect = declare_verb(verbs, common, "inspect", run_inspect, help)
    _source_flags(inspect, "+")
    add_label_flags(inspect)

    encode = declare_verb(verbs, common, "encode", run_encode, "encode a table into a dataset")
    _source_flags(encode, "*")
    encode.add_argument("--name", default="", help="name of the dataset (default: the name of the file)")
    encode.add_argument("--known", choices=DATASETS.names(), help="the file has the format of this public dataset")
    encode.add_argument(
        "--config", metavar="FILE", help="settings as JSON that `data inspect --json` wrote; flags and files given beside it win"
    )
    add_label_flags(encode)
    add_column_flags(encode)
    add_config_flags(encode, SplitConfig, title="split")

    add_search_flags(declare_verb(verbs, common, "list", run_list_data, "list the datasets in the store"))
    declare_management(verbs, common, "dataset")
    declare_verb(verbs, common, "known", run_known, "list known public datasets with address, size and checksum")
    declare_verb(verbs, common, "sample", run_sample, "open the sample: dataset, trained model and spectra")


def _source_flags(parser: argparse.ArgumentParser, number: str) -> None:
    parser.add_argument(
        "paths", nargs=number, help="the table: a file, or several that are parts of one table or its splits (see --files)"
    )
    parser.add_argument(
        "--files",
        choices=("table", "splits"),
        help="several files are: table = parts of one table; splits = train, valid, test and finetune rows, in that order",
    )
    add_config_flags(parser, SourceConfig, skip=("paths",), title="source")


def run_inspect(args: argparse.Namespace) -> None:
    """`data inspect`."""
    inspection = inspected(args)
    if args.json:
        print_json(inspection.to_dict() | {"config": drafted(inspection, args)})
        return
    print(_columns_text(inspection.columns))
    if inspection.label is not None and inspection.judged_by is not None:
        rate = "" if inspection.ctr is None else f", CTR {inspection.ctr:.2%}"
        print(f"label {inspection.label} ({reading_text(inspection.judged_by) or ALLOWED_TEXT}){rate}")
    print(f"{'all' if inspection.complete else 'the first'} {inspection.rows:,} rows inspected")
    _print_notes(inspection.notes)


def _columns_text(columns: tuple[ColumnInspection, ...]) -> str:
    """The columns as a table; words for missing cells and the first times where a column has some."""
    facts: dict[str, list[Any]] = {
        "column": [c.name for c in columns],
        "role": [c.role for c in columns],
        "distinct": [c.distinct for c in columns],
        "missing": [f"{c.missing_share:.1%}" for c in columns],
        "missing words": [", ".join(f"{word} ({cells:,})" for word, cells in c.missing_words) for c in columns],
        "examples": [", ".join(map(str, c.examples[:3])) for c in columns],
        "first times": [", ".join(c.time_examples) for c in columns],
        "reason": [c.reason for c in columns],
    }
    shown = {name: cells for name, cells in facts.items() if any(cells)}
    return table_text(list(shown), list(zip(*shown.values(), strict=True)))


def _print_notes(notes: tuple[Note, ...]) -> None:
    for note in notes:
        print(note.line)


def run_encode(args: argparse.Namespace) -> None:
    """`data encode`."""
    with open_lab(args) as lab:
        given = given_config(args, lab.workspace)
        dataset = lab.encode(given.config)
        label = given.config.label_column
        ignored = {
            column.name: given.reasons.get(column.name, "as set") for column in given.config.columns if column.role == "ignore"
        }
        # A note of the inspection may be measured again on all rows: the dataset's own stands for both.
        encoded = notes_from(dataset.summary["notes"])
        told = {(note.kind, note.column) for note in encoded}
        notes = (*(note for note in given.notes if (note.kind, note.column) not in told), *encoded)
        print_artifact(
            args, dataset, _encoded_line(dataset),
            label=label.name, ignored=ignored, notes=[note.to_dict() for note in notes],
        )  # fmt: skip
        if not args.json:
            print(f"label {label.name} ({reading_text(label) or ALLOWED_TEXT}): {_clicks_text(dataset)}")
            for name, reason in ignored.items():
                print(f"ignored {name}: {reason}")
            _print_notes(notes)


def _encoded_line(dataset: Artifact) -> str:
    rows = ", ".join(f"{split} {count:,}" for split, count in dataset.summary["rows"].items())
    return f"{dataset.id}  {dataset.name}: {rows} rows; {len(dataset.summary['fields'])} fields"


def _clicks_text(dataset: Artifact) -> str:
    clicks, ctr = dataset.summary["clicks"], dataset.summary["ctr"]
    by_split = ", ".join(f"{split} {count:,.10g} ({ctr[split]:.2%})" for split, count in clicks.items())
    return f"{sum(clicks.values()):,.10g} clicks; {by_split}"


def run_list_data(args: argparse.Namespace) -> None:
    """`data list`."""
    with open_lab(args) as lab:
        found = annotations.select(datasets.list_datasets(lab.workspace), **search_of(args))
        if args.json:
            facts = [{"id": d.id, "name": d.name, "rows": d.summary["rows"], **vars(d.annotation)} for d in found]
            print_json({"datasets": facts})
        else:
            rows = [(d.id, d.name, sum(d.summary["rows"].values()), f"{d.created_at:%F %H:%M}", *marks(d)) for d in found]
            print(table_text(["id", "name", "rows", "created", "tags", "note"], rows))


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

"""Actions of `data`, `models` and `jobs` that manage what is stored: rename, note, tag, star, archive, delete, restore."""

import argparse
from collections.abc import Sequence
from typing import Any

from ctrlab.cli.common import Subparsers, declare_verb, open_lab
from ctrlab.cli.output import print_json
from ctrlab.figures.text import size
from ctrlab.services import annotations, deletion
from ctrlab.services.annotations import Subject
from ctrlab.services.deletion import Deletion
from ctrlab.storage import Job
from ctrlab.storage.trash import TrashEntry


def declare_management(verbs: Subparsers, common: argparse.ArgumentParser, noun: str) -> None:
    """Add the actions to a verb whose ids are of `noun`."""
    of = f"id of the {noun}"
    rename = declare_verb(verbs, common, "rename", run_rename, f"give a {noun} another name")
    rename.add_argument("id", help=of)
    rename.add_argument("name", help="1 to 200 characters")
    note = declare_verb(verbs, common, "note", run_note, f"write a note about a {noun}, in place of the one before")
    note.add_argument("id", help=of)
    note.add_argument("text", help='the note; "" removes it')
    tag = declare_verb(verbs, common, "tag", run_tag, f"add tags to a {noun}, or remove them")
    tag.add_argument("id", help=of)
    tag.add_argument("tags", nargs="+", help="labels to search by")
    tag.add_argument("--remove", action="store_true", help="remove these tags")
    for action, run, help in (("star", run_star, "mark favourites"), ("archive", run_archive, "leave out of lists")):
        parser = declare_verb(verbs, common, action, run, f"{help}, or undo that with --remove")
        parser.add_argument("ids", nargs="+", help=f"ids of the {noun}s")
        parser.add_argument("--remove", action="store_true", help="undo it")
    help = "delete into the trash, from which `restore` brings back for 30 days; measurements of a model are deleted with it"
    delete = declare_verb(verbs, common, "delete", run_delete, help)
    delete.add_argument("ids", nargs="+", help=f"ids of the {noun}s")
    delete.add_argument("--cascade", action="store_true", help="also delete the models that were made from them")
    add_delete_flags(delete)
    restore = declare_verb(verbs, common, "restore", run_restore, "restore what was deleted, with all that was deleted with it")
    restore.add_argument("id", help=f"{of}, or of an entry of the trash (`storage` lists them)")


def add_delete_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of every `delete` but --cascade."""
    parser.add_argument("--permanently", action="store_true", help="free the disk at once; it cannot be restored")
    parser.add_argument("--dry-run", action="store_true", help="print what would be deleted, and delete nothing")


def add_search_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `annotations.select` takes."""
    parser.add_argument("--search", default="", metavar="WORDS", help="words in name, id, note or tags")
    parser.add_argument("--tag", nargs="+", default=[], help="only those with all these tags")
    parser.add_argument("--starred", action="store_true", help="only favourites")
    parser.add_argument("--archived", action="store_true", help="only archived ones, which are left out otherwise")


def search_of(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `annotations.select` from the flags."""
    return {"search": args.search, "tags": args.tag, "starred": args.starred, "archived": args.archived}


def marks(found: Subject) -> tuple[str, str]:
    """The last two cells of a list: star with tags, and the note's first line."""
    annotation = found.annotation
    words = (["*"] if annotation.star else []) + [f"#{tag}" for tag in annotation.tags]
    return " ".join(words), annotation.note.partition("\n")[0]


def run_rename(args: argparse.Namespace) -> None:
    """`rename`."""
    with open_lab(args) as lab:
        _print(args, [lab.annotate(args.id, name=args.name)])


def run_note(args: argparse.Namespace) -> None:
    """`note`."""
    with open_lab(args) as lab:
        _print(args, [lab.annotate(args.id, note=args.text)])


def run_tag(args: argparse.Namespace) -> None:
    """`tag`."""
    with open_lab(args) as lab:
        before = annotations.subject(lab.workspace, args.id).annotation.tags
        tags = [tag for tag in before if tag not in args.tags] if args.remove else [*before, *args.tags]
        _print(args, [lab.annotate(args.id, tags=tags)])


def run_star(args: argparse.Namespace) -> None:
    """`star`."""
    with open_lab(args) as lab:
        _print(args, [lab.annotate(subject_id, star=not args.remove) for subject_id in args.ids])


def run_archive(args: argparse.Namespace) -> None:
    """`archive`."""
    with open_lab(args) as lab:
        _print(args, [lab.annotate(subject_id, archived=not args.remove) for subject_id in args.ids])


def run_delete(args: argparse.Namespace) -> None:
    """`delete`."""
    with open_lab(args) as lab:
        planned = deletion.deletion_of(lab.workspace, args.ids)
        if args.dry_run:
            _print_planned(args, planned)
            return
        entry = lab.delete(args.ids, cascade=args.cascade, permanently=args.permanently)
        if args.json:
            print_json({"deleted": planned.ids, "bytes": planned.size_bytes, "trash": None if args.permanently else entry.id})
        else:
            print(_deleted_line(entry, planned, args.permanently))


def run_restore(args: argparse.Namespace) -> None:
    """`restore`."""
    with open_lab(args) as lab:
        _print(args, lab.restore(args.id))


def _deleted_line(entry: TrashEntry, planned: Deletion, permanently: bool) -> str:
    with_it = f" with {planned.dependents_text}" if planned.dependents else ""
    names = ", ".join(annotations.name_of(found) for found in planned.subjects)
    end = "freed" if permanently else f"in the trash; `restore {entry.items[0].id}` brings it back"
    return f"deleted {names}{with_it}: {size(planned.size_bytes)} {end}"


def _print_planned(args: argparse.Namespace, planned: Deletion) -> None:
    if args.json:
        print_json({"would_delete": planned.ids, "bytes": planned.size_bytes})
        return
    print(_lines([*planned.subjects, *planned.dependents]))
    print(f"{size(planned.size_bytes)} would be deleted; nothing was")


def _print(args: argparse.Namespace, subjects: Sequence[Subject]) -> None:
    if args.json:
        print_json(
            {"changed": [{"id": found.id, "name": annotations.name_of(found), **vars(found.annotation)} for found in subjects]}
        )
    else:
        print(_lines(subjects))


def _lines(subjects: Sequence[Subject]) -> str:
    return "\n".join("  ".join(filter(None, (found.id, annotations.name_of(found), *_facts(found)))) for found in subjects)


def _facts(found: Subject) -> list[str]:
    archived = ["archived"] if found.annotation.archived else []
    return [*archived, *marks(found), found.state if isinstance(found, Job) else ""]

"""`storage` and `clean`: what the home takes on disk, what is in the trash, and freeing what no result needs."""

import argparse

from ctrlab.cli.common import Subparsers, declare_verb, open_lab
from ctrlab.cli.output import print_json, table_text
from ctrlab.figures.text import plural, size
from ctrlab.services import deletion, disk
from ctrlab.services.disk import Freeable
from ctrlab.storage.trash import TrashEntry


def declare_storage(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the verbs `storage` and `clean`."""
    declare_verb(subparsers, common, "storage", run_storage, "show sizes by kind, what can be freed, and the trash")
    help = "free disk that no result needs: checkpoints, used uploads, trash, files stored twice"
    clean = declare_verb(subparsers, common, "clean", run_clean, help)
    clean.add_argument("--only", nargs="+", choices=disk.FREEABLE_KINDS, help="free only these (default: all)")
    clean.add_argument("--dry-run", action="store_true", help="print what would be freed, and free nothing")


def run_storage(args: argparse.Namespace) -> None:
    """`storage`."""
    with open_lab(args) as lab:
        uses, free, trash = disk.disk_use(lab.workspace), disk.freeable(lab.workspace), deletion.trash_entries(lab.workspace)
        if args.json:
            print_json({"home": lab.workspace.home, "uses": list(map(vars, uses)), "freeable": list(map(_facts, free)),
                        "trash": [_entry_facts(entry) for entry in trash]})  # fmt: skip
            return
        print(f"{lab.workspace.home}: {size(sum(use.size_bytes for use in uses))}")
        print(table_text(["kind", "number", "size"], [(use.kind, use.count, size(use.size_bytes)) for use in uses]))
        print()
        _print_freeable(free, "`clean` frees")
        if trash:
            rows = [(entry.id, _contents(entry), size(entry.size_bytes), f"{entry.removed_at:%F %H:%M}") for entry in trash]
            print()
            print(table_text(["in the trash", "contents", "size", "deleted"], rows))


def run_clean(args: argparse.Namespace) -> None:
    """`clean`."""
    with open_lab(args) as lab:
        found = lab.clean(args.only, dry_run=args.dry_run)
        if args.json:
            print_json({"freed" if not args.dry_run else "would_free": list(map(_facts, found))})
        else:
            _print_freeable(found, "would be freed:" if args.dry_run else "freed:")


def _print_freeable(found: list[Freeable], head: str) -> None:
    if not found:
        print("nothing to free")
        return
    print(f"{head} {size(sum(item.size_bytes for item in found))}")
    rows = [(item.key, size(item.size_bytes), plural(len(item.paths), "item"), item.consequence) for item in found]
    print(table_text(["what", "size", "number", "consequence"], rows))


def _facts(found: Freeable) -> dict[str, object]:
    return {"what": found.key, "bytes": found.size_bytes, "paths": list(found.paths)}


def _entry_facts(entry: TrashEntry) -> dict[str, object]:
    return {"id": entry.id, "bytes": entry.size_bytes, "deleted": entry.removed_at, "items": list(map(vars, entry.items))}


def _contents(entry: TrashEntry) -> str:
    if not entry.items:
        return f"{entry.name}, left by a crash"
    first, *rest = entry.items
    return f"{first.kind} {first.name}" + (f" and {len(rest)} more" if rest else "")

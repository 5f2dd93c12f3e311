"""`train`, `import`, `export`, `compare`, `models`: models from a dataset or a checkpoint, their files, and their comparison."""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from ctrlab.cli.common import Subparsers, declare_verb, open_lab, print_artifact
from ctrlab.cli.flags import add_config_flags, config_from_flags, flag_settings, parse_settings
from ctrlab.cli.manage import add_search_flags, declare_management, marks, search_of
from ctrlab.cli.output import comparison_text, print_json, segments_text, table_text
from ctrlab.figures.text import rows_and_clicks, size
from ctrlab.models.configs import MODELS
from ctrlab.reports.training import finished_training, planned_training
from ctrlab.services import annotations, comparison, export, models
from ctrlab.services.doubts import model_doubts
from ctrlab.services.lab import Lab
from ctrlab.services.models import TrainConfig
from ctrlab.services.outside import abilities
from ctrlab.services.reporting import TABLE_FORMS
from ctrlab.services.segments import latest_segments, moved_table, segments_table
from ctrlab.services.serving import IntegersConfig
from ctrlab.services.text_files import write_text
from ctrlab.storage import Artifact
from ctrlab.training.configs import FitConfig


def declare_models(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the verbs `train`, `import`, `export`, `compare` and `models`."""
    for declare in (_train, _import, _export, _compare, _segments, _models):
        declare(subparsers, common)


def _train(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = declare_verb(subparsers, common, "train", run_train, "train a model on a dataset")
    parser.add_argument("dataset", help="id of the dataset")
    parser.add_argument("--model", default="deepfm", choices=MODELS.names(), help="architecture (default deepfm)")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="settings of the architecture, e.g. embed_dim=16 mlp_dims=400,400,400",
    )
    parser.add_argument(
        "--max-parameters", type=int, metavar="N", help="scale all widths down until the model has at most N parameters"
    )
    parser.add_argument("--teacher", default="", metavar="MODEL", help="id of the teacher model for --distillation")
    parser.add_argument("--name", default="", help="shown in lists")
    add_config_flags(parser, FitConfig, title="training")


def run_train(args: argparse.Namespace) -> None:
    """`train`."""
    settings = parse_settings(MODELS[args.model].config_class, args.set)
    fit = config_from_flags(FitConfig, args)
    config = TrainConfig(
        dataset_id=args.dataset, architecture=args.model, model=settings, fit=fit, name=args.name,
        max_parameters=args.max_parameters, teacher_id=args.teacher,
    )  # fmt: skip
    with open_lab(args) as lab:
        model = lab.train(config)
        print_artifact(args, model, "\n".join([_model_line(lab, model), *_training_lines(lab, model)]))


def _model_line(lab: Lab, model: Artifact) -> str:
    row = comparison.comparison_table(lab.workspace, [model.id]).iloc[0]
    measured = rows_and_clicks(row.measured_rows, row.measured_clicks, row.split)
    size = f"{row.parameters / 1e6:.3f} M parameters"
    return f"{model.id}  {model.name}: {size}, {_auc(row)}, log loss {row.log_loss:.4f} on {measured}"


def _training_lines(lab: Lab, model: Artifact) -> list[str]:
    """The settings that followed from the rows, how the training went, and what speaks against the model."""
    dataset = lab.workspace.store.artifacts.get(model.config["dataset_id"])
    fit = FitConfig.from_dict(model.config["fit"])
    rows = dataset.summary["rows"][fit.rows]
    planned = planned_training(fit, rows, round(rows * dataset.summary["ctr"][fit.rows]))
    lines = [f"{planned}; {finished_training(model.summary['training'])}"]
    return lines + [f"in doubt: {doubt}" for doubt in model_doubts(lab.workspace, model)]


def _auc(row: "pd.Series[Any]") -> str:
    """The AUC with its interval; why there is none on rows of one class."""
    if row.auc != row.auc:
        return "no AUC (all rows are of one class)"
    return f"{row.split} AUC {row.auc:.4f} (95 % {row.auc_low:.4f} to {row.auc_high:.4f})"


def _import(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = declare_verb(subparsers, common, "import", run_import, "import a checkpoint that ctrlab wrote")
    parser.add_argument("dataset", help="id of the dataset that the model was trained on")
    parser.add_argument("checkpoint", type=Path, help="the .safetensors file")
    parser.add_argument("--name", default="", help="shown in lists")


def run_import(args: argparse.Namespace) -> None:
    """`import`."""
    with open_lab(args) as lab:
        model = lab.import_checkpoint(args.dataset, args.checkpoint, args.name)
        print_artifact(args, model, f"{model.id}  {model.name}")


def _export(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = declare_verb(
        subparsers, common, "export", run_export, "write a model to files: a bundle for serving, and checkpoints"
    )
    parser.add_argument("model", help="id of the model")
    parser.add_argument("folder", type=Path, help="folder to write to")
    parser.add_argument("--integers", action="store_true", help="the bundle multiplies integers, checked against the float form")
    parser.add_argument("--calibrate", action="store_true", help="fit scale and intercept of the logit on the validation rows")
    parser.add_argument(
        "--user-fields", nargs="+", default=[], metavar="FIELD",
        help="fields of the user: also ONNX for many candidates of one user, whose part is computed once",
    )  # fmt: skip
    add_config_flags(parser, IntegersConfig, skip=("model_id",), title="with --integers")


def run_export(args: argparse.Namespace) -> None:
    """`export`."""
    with open_lab(args) as lab:
        model = lab.workspace.store.artifacts.get(args.model)
        reason = abilities(lab.workspace, model).why_not("serve")
        made = lab.integers(args.model, **flag_settings(IntegersConfig, args)) if args.integers else None
        form = "integers" if made and not made.summary["refused"] else "float"
        bundle = None if reason else lab.bundle(args.model, form=form, calibrate=args.calibrate)
        files = export.export_model(lab.workspace, args.model, args.folder, args.user_fields, bundle=bundle)
        lines = [*map(str, files), *([made.summary["advice"]] if made else []), *([reason] if reason else [])]
        found = {"files": [str(path) for path in files], "bundle": bundle.summary["version"] if bundle else None}
        found |= {"integers": made.summary} if made else {}
        print_json(found) if args.json else print("\n".join(lines))


def _compare(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = declare_verb(subparsers, common, "compare", run_compare, "compare AUC, size and speed of models")
    parser.add_argument("models", nargs="+", help="ids of the models; sizes are relative to the first")
    parser.add_argument("--time-again", action="store_true", help="time all models again, in turns in one job")
    parser.add_argument(
        "--baseline", metavar="MODEL", help="id of the one that the others are compared with (default: the first original)"
    )
    parser.add_argument("--csv", type=Path, help="also write the whole table to this file")
    parser.add_argument("--markdown", type=Path, help="also write the main columns as a Markdown table")
    parser.add_argument("--latex", type=Path, help="also write the main columns as a LaTeX table")
    parser.add_argument("--html", type=Path, help="also write a report that needs no server: table, charts, verdicts")
    parser.add_argument("--title", default="", help="title of the report")


def run_compare(args: argparse.Namespace) -> None:
    """`compare`."""
    with open_lab(args) as lab:
        table = lab.compare(args.models, args.baseline, time_again=args.time_again)
        for form, write in TABLE_FORMS.items():
            if path := getattr(args, form):
                write_text(path, write(table))
        if args.html:
            lab.report(args.models, args.html, args.baseline, args.title)
        print_json({"models": table.to_dict("records")}) if args.json else print(comparison_text(table))


def _segments(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = declare_verb(subparsers, common, "segments", run_segments, "where a model loses against another: segments and rows")
    parser.add_argument("model", help="id of the model")
    parser.add_argument("--against", metavar="MODEL", help="id of the other (default: the original that it was made from)")
    parser.add_argument("--top", type=int, default=15, metavar="N", help="segments to print (default 15; --json has all)")


def run_segments(args: argparse.Namespace) -> None:
    """`segments`."""
    with open_lab(args) as lab:
        model = models.require_artifact(lab.workspace, args.model, "model")
        against = args.against or comparison.original_id_of(model)
        found = latest_segments(lab.workspace, model.id, against) or lab.segments(model.id, against)
        table, rows = segments_table(found), moved_table(found)
        if args.json:
            print_json({"segments": table.to_dict("records"), "rows": rows.to_dict("records")})
        else:
            print(segments_text(table.head(args.top)))


def _models(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = subparsers.add_parser("models", help="list models, and rename, note, tag, star, archive, delete and restore them")
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    found = declare_verb(verbs, common, "list", run_list_models, "list the models in the store, newest first")
    found.add_argument("--dataset", metavar="ID", help="only models of this dataset")
    add_search_flags(found)
    declare_management(verbs, common, "model")


def run_list_models(args: argparse.Namespace) -> None:
    """`models list`."""
    with open_lab(args) as lab:
        found = annotations.select(models.list_models(lab.workspace, args.dataset), **search_of(args))
        rows = [(model, _auc_of(lab, model), _served_bytes(model)) for model in found]
        if args.json:
            facts = [{"id": model.id, "name": model.name, "role": models.role_of(model), "auc": auc, "bytes": served,
                      **vars(model.annotation)} for model, auc, served in rows]  # fmt: skip
            print_json({"models": facts})
        else:
            cells = [
                (model.id, model.name, models.role_of(model), "-" if auc is None else f"{auc:.4f}", size(served), *marks(model))
                for model, auc, served in rows
            ]
            print(table_text(["id", "name", "role", "AUC", "size", "tags", "note"], cells))


def _auc_of(lab: Lab, model: Artifact) -> float | None:
    evaluation = comparison.latest_evaluation(lab.workspace, model.id)
    return evaluation.summary["metrics"].get("auc") if evaluation else None


def _served_bytes(model: Artifact) -> int:
    cost = model.summary["cost_serving"]
    return int(cost["bytes_tables"] + cost["bytes_dense"])

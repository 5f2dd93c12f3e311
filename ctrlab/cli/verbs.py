"""The verbs of the command line: their parsers, and functions that call the services which the dashboard calls too."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctrlab.cli.flags import add_config_flags, config_from_flags, parse_assignments, parse_ranks, values_for
from ctrlab.cli.modules import declare_modules
from ctrlab.cli.output import ProgressLine, comparison_text, print_json, table_text
from ctrlab.cli.planning import declare_planning
from ctrlab.cli.tables import declare_tables
from ctrlab.data.catalog import DATASETS
from ctrlab.data.configs import DatasetConfig, SourceConfig, SplitConfig
from ctrlab.errors import ConfigError
from ctrlab.models.configs import MODELS
from ctrlab.plans.configs import BASES, BOTTLENECKS, COMPRESSORS, ORDERS, PRECISIONS, RankPlan
from ctrlab.plans.ranks import PRESETS
from ctrlab.services import comparison, datasets, jobs, models, plans, sample, spectra
from ctrlab.services.lab import Lab
from ctrlab.services.models import TrainConfig
from ctrlab.services.spectra import SpectraConfig
from ctrlab.storage import Artifact
from ctrlab.training.configs import FINETUNE, FitConfig

Subparsers = Any  # argparse's own class is private


def add_verbs(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Declare every verb; each leaves its function in `args.run`."""
    for declare in (
        _data,
        _train,
        _import,
        _spectra,
        declare_planning,
        _compress,
        declare_modules,
        declare_tables,
        _compare,
        _export,
        _jobs,
        _demo,
    ):
        declare(subparsers, common)


def _open(args: argparse.Namespace) -> Lab:
    return Lab(args.home, args.store_url, on_progress=ProgressLine())


def _verb(
    subparsers: Subparsers, common: argparse.ArgumentParser, name: str, run: Callable[..., None], help: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(name, help=help, description=help, parents=[common])
    parser.set_defaults(run=run)
    return parser


def _show(args: argparse.Namespace, artifact: Artifact, text: str) -> None:
    if args.json:
        print_json({"id": artifact.id, "kind": artifact.kind, "name": artifact.name, "parents": artifact.parents,
                    "config": artifact.config, "summary": artifact.summary, "path": artifact.path})  # fmt: skip
    else:
        print(text)


# ---------------------------------------------------------------- data


def _data(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = subparsers.add_parser("data", help="inspect, encode and list datasets")
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    inspect = _verb(verbs, common, "inspect", run_inspect, "show column roles, cardinalities and missing values of a file")
    _source_flags(inspect)

    encode = _verb(verbs, common, "encode", run_encode, "encode a table into a dataset")
    _source_flags(encode)
    encode.add_argument("--name", default="", help="name of the dataset (default: the name of the file)")
    encode.add_argument("--known", choices=DATASETS.names(), help="the file has the format of this public dataset")
    encode.add_argument("--label", help="the label column, where it is not inferred")
    encode.add_argument("--min-count", type=int, help="categorical values and list elements rarer than this share one id")
    encode.add_argument("--config", type=Path, help="a DatasetConfig as JSON; other settings are ignored")
    add_config_flags(encode, SplitConfig, title="split")

    _verb(verbs, common, "list", run_list_data, "list the datasets in the store")
    _verb(verbs, common, "known", run_known, "list known public datasets with address, size and checksum")
    _verb(verbs, common, "sample", run_sample, "open the sample: dataset, trained model and spectra")


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


def run_encode(args: argparse.Namespace) -> None:
    """`data encode`."""
    with _open(args) as lab:
        dataset = lab.encode(_dataset_config(args))
        rows = ", ".join(f"{split} {count:,}" for split, count in dataset.summary["rows"].items())
        _show(args, dataset, f"{dataset.id}  {dataset.name}: {rows} rows; {len(dataset.summary['fields'])} fields")


def _dataset_config(args: argparse.Namespace) -> DatasetConfig:
    if args.config:
        return DatasetConfig.from_json(args.config.read_text())
    paths = tuple(str(Path(path).absolute()) for path in args.paths)
    if args.known:
        config = DATASETS[args.known].config_for(paths)
    else:
        source = config_from_flags(SourceConfig, args, paths=paths)
        config = datasets.draft_config(
            datasets.inspect_source(source), args.name or Path(paths[0]).name.split(".")[0], label=args.label
        )
    columns = config.columns
    if args.min_count:
        columns = tuple(c.replace(min_count=args.min_count) if c.role in ("categorical", "list") else c for c in columns)
    given = {name for name in vars(args) if name in SplitConfig.__dataclass_fields__}
    split = config.split.replace(**{name: getattr(args, name) for name in given}) if given else config.split
    return config.replace(columns=columns, split=split, name=args.name or config.name)


def run_list_data(args: argparse.Namespace) -> None:
    """`data list`."""
    with _open(args) as lab:
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
    with _open(args) as lab:
        ids = lab.open_sample()
        print_json(ids) if args.json else print("  ".join(f"{kind} {artifact_id}" for kind, artifact_id in ids.items()))


# ---------------------------------------------------------------- models


def _train(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = _verb(subparsers, common, "train", run_train, "train a model on a dataset")
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
    settings = values_for(MODELS[args.model].config_class, parse_assignments(args.set))
    fit = config_from_flags(FitConfig, args)
    config = TrainConfig(
        dataset_id=args.dataset, architecture=args.model, model=settings, fit=fit, name=args.name,
        max_parameters=args.max_parameters, teacher_id=args.teacher,
    )  # fmt: skip
    with _open(args) as lab:
        model = lab.train(config)
        _show(args, model, _model_line(lab, model))


def _model_line(lab: Lab, model: Artifact) -> str:
    row = comparison.comparison_table(lab.workspace, [model.id]).iloc[0]
    return (
        f"{model.id}  {model.name}: {row.parameters / 1e6:.3f} M parameters, test AUC {row.auc:.4f}, log loss {row.log_loss:.4f}"
    )


def _import(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = _verb(subparsers, common, "import", run_import, "import a checkpoint that ctrlab wrote")
    parser.add_argument("dataset", help="id of the dataset that the model was trained on")
    parser.add_argument("checkpoint", type=Path, help="the .safetensors file")
    parser.add_argument("--name", default="", help="shown in lists")


def run_import(args: argparse.Namespace) -> None:
    """`import`."""
    with _open(args) as lab:
        model = lab.import_checkpoint(args.dataset, args.checkpoint, args.name)
        _show(args, model, f"{model.id}  {model.name}")


def _export(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = _verb(subparsers, common, "export", run_export, "write a model to files: training and serving checkpoints, ONNX")
    parser.add_argument("model", help="id of the model")
    parser.add_argument("folder", type=Path, help="folder to write to")


def run_export(args: argparse.Namespace) -> None:
    """`export`."""
    with _open(args) as lab:
        files = models.export_model(lab.workspace, args.model, args.folder)
        print_json({"files": [str(path) for path in files]}) if args.json else print("\n".join(map(str, files)))


# ---------------------------------------------------------------- spectra, compress, compare


def _spectra(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = _verb(subparsers, common, "spectra", run_spectra, "compute the spectra of all layers and tables")
    parser.add_argument("model", help="id of the model")
    parser.add_argument("--values", action="store_true", help="with --json: also every singular value")
    add_config_flags(parser, SpectraConfig, skip=("model_id",), title="rows")


def run_spectra(args: argparse.Namespace) -> None:
    """`spectra`."""
    with _open(args) as lab:
        settings = config_from_flags(SpectraConfig, args, model_id=args.model).to_dict()
        artifact = lab.spectra(**{key: value for key, value in settings.items() if key != "version"})
        table = spectra.spectra_table(lab.workspace, artifact.id)
        if args.json:
            values = {}
            if args.values:
                layers = spectra.load_layer_spectra(lab.workspace, artifact.id)
                values = {name: layer.singular_values.tolist() for name, layer in layers.items()}
            print_json({"id": artifact.id, "layers": table.to_dict("records"), "singular_values": values})
        else:
            print(f"{artifact.id}  {artifact.name}")
            print(table_text(list(table.columns), table.itertuples(index=False, name=None)))


def _compress(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = _verb(subparsers, common, "compress", run_compress, "compress layers and tables to low rank, then fine-tune")
    parser.add_argument("model", help="id of the model")
    ranks = parser.add_mutually_exclusive_group(required=True)
    ranks.add_argument("--variance", type=float, help="share of output variance every layer and table keeps, e.g. 0.95")
    ranks.add_argument("--ranks", nargs="+", metavar="LAYER=RANK", help="e.g. mlp.2=64 'embedding.*=4'; other layers stay dense")
    ranks.add_argument("--preset", choices=list(PRESETS), help="a named rule that sets all ranks")
    ranks.add_argument("--all-dense", action="store_true", help="keep all layers dense; only --precision makes the model smaller")
    ranks.add_argument("--plan", type=Path, metavar="FILE", help="ranks as JSON, written by `plan --output` or the dashboard")
    parser.add_argument("--first-dense", action="store_true", help="keep the first MLP layer dense, as in the paper")
    parser.add_argument("--method", default="afm", choices=COMPRESSORS.names(), help="compression method (default afm)")
    parser.add_argument(
        "--bottleneck", default="none", choices=BOTTLENECKS, help="nonlinearity between the factors (default none)"
    )
    parser.add_argument(
        "--basis",
        default="per_field",
        choices=BASES,
        help="one basis per table, or one shared by all tables (default per_field)",
    )
    parser.add_argument(
        "--precision", default="float32", choices=PRECISIONS, help="precision of the served weights (default float32)"
    )
    parser.add_argument(
        "--order", default="mlp_first", choices=ORDERS, help="order of the compression stages (default mlp_first)"
    )
    parser.add_argument("--no-finetune", action="store_true", help="truncate without fine-tuning")
    parser.add_argument("--no-measure", action="store_true", help="skip the measurement of speed and accuracy")
    parser.add_argument("--name", default="", help="shown in lists")
    add_config_flags(parser, FitConfig, title="fine-tuning after each stage", base=FINETUNE)


def run_compress(args: argparse.Namespace) -> None:
    """`compress`."""
    ranks = parse_ranks(args.ranks) if args.ranks else None
    with _open(args) as lab:
        plan = RankPlan() if args.all_dense else None
        if args.plan:
            plan = plans.plan_from_json(lab.workspace, args.model, _text_of(args.plan))
        model = lab.compress(
            args.model, plan=plan, variance=args.variance, ranks=ranks, preset=args.preset, keep_first_dense=args.first_dense,
            finetune=None if args.no_finetune else config_from_flags(FitConfig, args, base=FINETUNE),
            method=args.method, bottleneck=args.bottleneck, basis=args.basis, order=args.order,
            precision=args.precision, name=args.name,
            measure=not args.no_measure,
        )  # fmt: skip
        original = models.original_of(lab.workspace, model)
        _show(args, model, f"{model.id}\n" + comparison_text(comparison.comparison_table(lab.workspace, [original.id, model.id])))


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); give a file that `plan --output` wrote") from error


def _compare(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = _verb(subparsers, common, "compare", run_compare, "compare AUC, size and speed of models")
    parser.add_argument("models", nargs="+", help="ids of the models; sizes are relative to the first")
    parser.add_argument("--csv", type=Path, help="also write the whole table to this file")


def run_compare(args: argparse.Namespace) -> None:
    """`compare`."""
    with _open(args) as lab:
        table = lab.compare(args.models)
        if args.csv:
            table.to_csv(args.csv, index=False)
        print_json({"models": table.to_dict("records")}) if args.json else print(comparison_text(table))


# ---------------------------------------------------------------- jobs, demo


def _jobs(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = _verb(subparsers, common, "jobs", run_jobs, "list, show, cancel and retry jobs, and print their logs")
    parser.add_argument("action", nargs="?", default="list", choices=("list", "show", "log", "cancel", "retry"))
    parser.add_argument("job", nargs="?", help="id of the job")
    parser.add_argument("--limit", type=int, default=20, help="number of jobs to list (default 20)")


def run_jobs(args: argparse.Namespace) -> None:
    """`jobs`."""
    if args.action != "list" and not args.job:
        raise ConfigError(f"jobs {args.action} needs the id of a job; `jobs list` shows them")
    with _open(args) as lab:
        if args.action == "list":
            _list_jobs(args, lab)
        elif args.action == "log":
            print(jobs.job_log(lab.workspace, args.job))
        else:
            act = {"show": jobs.get_job, "cancel": jobs.cancel_job, "retry": jobs.retry_job}[args.action]
            job = act(lab.workspace, args.job)
            facts = {key: value for key, value in vars(job).items() if key != "config"}
            print_json(facts) if args.json else print("\n".join(f"{key}: {value}" for key, value in facts.items()))


def _list_jobs(args: argparse.Namespace, lab: Lab) -> None:
    found = jobs.list_jobs(lab.workspace, limit=args.limit)
    if args.json:
        print_json(
            {"jobs": [{"id": j.id, "kind": j.kind, "title": j.title, "state": j.state, "progress": j.progress} for j in found]}
        )
    else:
        rows = [(j.id, j.state, f"{j.progress:.0%}", j.title, j.error or j.message) for j in found]
        print(table_text(["id", "state", "done", "title", "message"], rows))


def _demo(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    parser = _verb(subparsers, common, "demo", run_demo, "run spectra, compression and comparison on the sample")
    parser.add_argument(
        "--variance", type=float, default=0.95, help="share of variance every layer and table keeps (default 0.95)"
    )


def run_demo(args: argparse.Namespace) -> None:
    """`demo`."""
    with _open(args) as lab:
        ids = lab.open_sample()
        compressed = lab.compress(
            ids["model"], variance=args.variance, finetune=sample.SAMPLE_FINETUNE, name=f"AFM at {args.variance:.0%} variance"
        )
        table = lab.compare([ids["model"], compressed.id])
        if args.json:
            print_json({"sample": ids, "compressed": compressed.id, "models": table.to_dict("records")})
        else:
            print(comparison_text(table))
            print("\nPart of a gain in AUC may be due to fine-tuning; a control (the original, fine-tuned alike) shows how much.")

"""`register` and `read-weights`: models trained elsewhere."""

import argparse
from pathlib import Path

from ctrlab.cli.common import Subparsers, declare_verb, open_lab, print_artifact
from ctrlab.cli.modules import batch_progress
from ctrlab.cli.output import table_text
from ctrlab.figures.text import count, size
from ctrlab.services.comparison import latest_evaluation
from ctrlab.services.lab import Lab
from ctrlab.services.outside import abilities
from ctrlab.services.spectra import latest_spectra, spectra_table
from ctrlab.storage import Artifact


def declare_outside(subparsers: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the verbs `register` and `read-weights`."""
    help = "store a model trained elsewhere, which a Python function of the working folder makes"
    parser = declare_verb(subparsers, common, "register", run_register, help)
    parser.add_argument("factory", metavar="MODULE:FUNCTION", help="returns (module, batches) or (module, batches, labels)")
    parser.add_argument("--name", default="", help="shown in lists")
    help = "store the layers and the weight spectra of a .safetensors, .onnx or .npy file"
    parser = declare_verb(subparsers, common, "read-weights", run_read_weights, help)
    parser.add_argument("file", type=Path, help="the file; pickles are refused")
    parser.add_argument("--name", default="", help="shown in lists")


def run_register(args: argparse.Namespace) -> None:
    """`register`."""
    with open_lab(args) as lab:
        model = lab.register_factory(args.factory, name=args.name, on_batch=batch_progress(args.json))
        print_artifact(args, model, _text(lab, model))


def run_read_weights(args: argparse.Namespace) -> None:
    """`read-weights`."""
    with open_lab(args) as lab:
        model = lab.read_weights(args.file, args.name)
        print_artifact(args, model, _text(lab, model))


def _text(lab: Lab, model: Artifact) -> str:
    """Size, accuracy, the rank that each layer needs, and what cannot be done with the model."""
    cost = model.summary["cost"]
    parameters, size_bytes = (cost[f"{what}_tables"] + cost[f"{what}_dense"] for what in ("parameters", "bytes"))
    lines = [f"{model.id}  {model.name}: {count(parameters)} parameters, {size(size_bytes)}, {count(cost['macs'])} MACs a row"]
    evaluation = latest_evaluation(lab.workspace, model.id)
    if evaluation is not None:
        metrics, own = evaluation.summary["metrics"], evaluation.summary["measure"]
        lines += [f"AUC {metrics['auc']:.4f}, log loss {metrics['log_loss']:.4f}"] if metrics["auc"] is not None else []
        lines += [f"own measure {own:.6g}"] if own is not None else []
    spectra = latest_spectra(lab.workspace, model.id)
    if spectra is not None:
        table = spectra_table(lab.workspace, spectra.id)[["layer", "kind", "in_features", "out_features", "k90", "k95", "k99"]]
        lines.append(table_text(list(table), table.to_numpy().tolist()))
    return "\n".join([*lines, *dict.fromkeys(abilities(lab.workspace, model).reasons.values())])

"""The paper's seven on Frappe_x1 (train negatives re-drawn), with at most a third of their parameters; test AUC over seeds.

    python benchmarks/frappe_zoo.py --out runs/frappe                                 # first: the models
    python benchmarks/frappe_compress.py --out runs/frappe --seeds 3 --threads 1 --jobs 1

Ranks, by one rule for all: every layer and table keeps the same share of its variance, the largest share at which the serving
form has at most a third of the parameters of the base's serving form. Fine-tuning is ctrlab's default (its rate and optimizer) on
the training rows, for --epochs epochs after each of the two stages, MLP and tables. The control arm is the base with the same
fine-tuning twice and nothing compressed. Every arm keeps the best by validation AUC, step 0 included. Results are kept in
--out and not repeated.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown_table, write_json
from frappe_zoo import TITLE, frappe, in_parallel, keep, mean, model_file, result_of

from ctrlab.compression.fold import serving_form
from ctrlab.compression.pipeline import compress_and_finetune
from ctrlab.decomposition.collect import collect_spectra
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.evaluation.prediction import evaluate_model
from ctrlab.models.checkpoint import load_model
from ctrlab.models.configs import MODELS
from ctrlab.models.cost import measure_cost
from ctrlab.models.profile import ModelProfile
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressConfig, CompressionSpec, RankPlan
from ctrlab.plans.cost_prediction import predict
from ctrlab.plans.ranks import plan_ranks
from ctrlab.training.configs import FINETUNE, FitConfig
from ctrlab.training.loop import fit

SEVEN = ("deepfm", "dcn", "autoint_plus", "fibinet", "nfm", "afn_plus", "gdcn")
SHARE = 1 / 3
#: Shares of variance that are tried, most first: 1 - 10^-x.
VARIANCES = 1 - np.logspace(-6, np.log10(0.9), 400)
ARMS = ("base", "control", "truncated", "afm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder that frappe_zoo.py left its models in")
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(SEVEN), metavar="A,B,...")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1, help="of fine-tuning after each stage")
    parser.add_argument("--threads", type=int, default=1, help="of each job")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time")
    args = parser.parse_args()
    wanted = [(name, seed) for name in args.models for seed in range(args.seeds)]
    if missing := [f"{name} (seed {seed})" for name, seed in wanted if result_of(args.out, name, seed) is None]:
        raise SystemExit(f"not trained yet: {', '.join(missing)}; run frappe_zoo.py with the same --out first")
    tuning = FINETUNE.replace(epochs=args.epochs, device="cpu", monitor="auc")
    todo = [(args.out, name, seed, tuning) for name, seed in wanted if arms_of(args.out, name, seed, tuning) is None]
    in_parallel(run, todo, args)
    results = {name: [arms_of(args.out, name, seed, tuning) for seed in range(args.seeds)] for name in args.models}
    print(f"{TITLE}; fine-tuned with Adam at {tuning.learning_rate:g}, {tuning.epochs} epoch(s) a stage\n\n{table(results)}")
    print("written to", write_json("frappe_compress", {"title": TITLE, "finetune": tuning.to_dict(), "models": results}))


def run(folder: Path, name: str, seed: int, tuning: FitConfig) -> dict[str, Any]:
    """All arms of one trained model; the result is kept in `folder`."""
    dataset = frappe(folder)
    tuning = tuning.replace(seed=seed + 1000)
    base = load_model(model_file(folder, name, seed), dataset.schema)
    spectra, profile = collect_spectra(base, dataset), profile_model(base)
    variance, plan = ranks_for(profile, spectra)
    truncated = compress_and_finetune(base, dataset, CompressConfig(plan=plan), spectra).model
    tuned = compress_and_finetune(base, dataset, CompressConfig(plan=plan, finetune=tuning), spectra)
    control = fit(fit(base, dataset, tuning).model, dataset, tuning).model
    served = serving_form(tuned.model)
    before, after = measure_cost(serving_form(base)), measure_cost(served)
    models = {"base": base, "control": control, "truncated": serving_form(truncated), "afm": served}
    metrics = {arm: evaluate_model(model, dataset.split("test")) for arm, model in models.items()}
    result = {
        "model": name, "seed": seed, "variance": variance, "auc": {arm: found.auc for arm, found in metrics.items()},
        "log_loss": {arm: found.log_loss for arm, found in metrics.items()}, "ranks": plan.as_dict(),
        "parameters": before.parameters, "left": after.parameters / before.parameters, "macs_left": after.macs / before.macs,
        "best_steps": {stage.name: stage.best_step for stage in tuned.stages}, "tuning": tuning.replace(seed=0).to_dict(),
    }  # fmt: skip
    keep(arms_file(folder, name, seed), result)
    return result


def ranks_for(profile: ModelProfile, spectra: Mapping[str, LayerSpectrum]) -> tuple[float, RankPlan]:
    """The largest share of variance that leaves at most a third of the parameters, and its ranks."""
    for variance in VARIANCES:
        plan = plan_ranks(profile, spectra, variance=float(variance))
        predicted = predict(profile, None, CompressionSpec(plan=plan))
        if len(plan) and predicted.serving.parameters <= SHARE * predicted.serving_original.parameters:
            return float(variance), plan
    raise SystemExit("no share of variance leaves a third of the parameters: what is not compressible takes more")


def arms_file(folder: Path, name: str, seed: int) -> Path:
    """Path of the result of all arms."""
    return folder / f"{name}-{seed}.compressed.json"


def arms_of(folder: Path, name: str, seed: int, tuning: FitConfig) -> dict[str, Any] | None:
    """The result of `run`, or None where there is none with this fine-tuning."""
    path = arms_file(folder, name, seed)
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found if found and found["tuning"] == tuning.replace(seed=0).to_dict() else None


def table(results: Mapping[str, list[Any]]) -> str:
    """One row a model: mean and deviation of every arm over seeds, and whether AFM beats the control."""
    rows = []
    for name, runs in results.items():
        gaps = [run["auc"]["afm"] - run["auc"]["control"] for run in runs]
        arms = [spread([run["auc"][arm] for run in runs]) for arm in ARMS]
        verdict = "yes" if np.mean(gaps) > 0 else "no"
        left = [f"{mean(runs, key):.1%}" for key in ("left", "macs_left")]
        title, variance = MODELS[name].title, f"{mean(runs, 'variance'):.2%}"
        rows.append([title, f"{runs[0]['parameters']:,}", *left, variance, *arms, spread(gaps, signed=True), verdict])
    headers = [
        "model", "parameters", "left", "MACs left", "variance", "base", "control", "truncation only", "AFM + fine-tuning",
        "AFM - control", "AFM beats control",
    ]  # fmt: skip
    return markdown_table(headers, rows)


def spread(values: list[float], *, signed: bool = False) -> str:
    """Mean ± standard deviation, four digits."""
    deviation = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):{'+' if signed else ''}.4f}{deviation}"


if __name__ == "__main__":
    main()

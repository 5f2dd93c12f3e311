"""Every way to make a model smaller, at equal bytes: DeepFM and DCN on three real datasets.

    python benchmarks/bases.py --out runs/bases --seeds 3                       # first: the originals
    python benchmarks/methods.py --bases runs/bases --out runs/methods --seeds 3
    python benchmarks/methods.py --bases runs/bases --out runs/methods --seeds 3 --table    # of what is there

The budgets are a third and a tenth of the bytes that the original is served with. All methods that factor layers share one plan
for each; tensor trains, dropped ids and QR hash share another, made by the same planner, for their tables cannot be folded.
Plans, sensitivities and spectra see training and validation rows only.

Every arm but the original, truncation alone and the integers has one epoch of fine-tuning with the default settings, in one
stage, on held-out rows that no training used. Arms from scratch are first trained as the original was, and so are those whose
tables are re-initialised. Quantised originals have their own bytes, not the budget's. The interval is DeLong's, paired on
the test rows with the original, and with the original fine-tuned alike; its ends are averaged over seeds. Seconds are those of
making the arm; spectra, sensitivity and the original's own training are not in them. Every finished arm is in --out and is not
run again.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from bases import ARCHITECTURES, base_of, training_of, untrained
from common import machine, markdown_table, write_json
from frappe_zoo import in_parallel, keep

from ctrlab.compression.fold import serving_form
from ctrlab.compression.pipeline import compress_and_finetune
from ctrlab.compression.qr_hash import with_reinitialised_tables
from ctrlab.compression.quantize import quantize
from ctrlab.compression.surgery import compress_model
from ctrlab.data.dataset import EncodedDataset
from ctrlab.decomposition.collect import collect_spectra, look_up_counts
from ctrlab.evaluation.delong import auc_difference
from ctrlab.evaluation.metrics import auc, log_loss
from ctrlab.evaluation.prediction import predict_logits
from ctrlab.measuring.probe import Probe
from ctrlab.measuring.sensitivity_probe import measure_sensitivity
from ctrlab.models.base import CTRModel
from ctrlab.models.cost import measure_cost
from ctrlab.models.profiling import profile_model
from ctrlab.models.structure import Precision
from ctrlab.plans.budgets import Budget, BudgetError
from ctrlab.plans.configs import CompressConfig, CompressionSpec, RankPlan
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.plans.methods import METHODS
from ctrlab.plans.planner import plan_for_budget
from ctrlab.plans.rank_problem import PlanOptions
from ctrlab.training.configs import FINETUNE, FitConfig
from ctrlab.training.loop import fit
from ctrlab.training.smaller import smaller_config

#: Fastest first, so that an unfinished run has most results.
DATASETS = ("avazu", "criteo", "frappe")
FACTORS = (3, 10)
DISTILLATION = 0.5
_BYTES_A_NUMBER = 4


@dataclass(frozen=True, eq=False)
class Bench:
    """One original with its data, and what all arms share, made on first use."""

    name: str
    architecture: str
    seed: int
    base: CTRModel
    dataset: EncodedDataset
    factor: int = 1

    @property
    def tuning(self) -> FitConfig:
        """Fine-tuning settings of every arm that is fine-tuned."""
        batch_size = training_of(self.name, self.architecture, self.seed).batch_size
        return FINETUNE.replace(batch_size=batch_size, rows="finetune", seed=self.seed + 1000, device="cpu")

    def at(self, factor: int) -> "Bench":
        """The same, to be made smaller by `factor`."""
        other = replace(self, factor=factor)
        other.__dict__.update({name: getattr(self, name) for name in ("profile", "spectra", "sensitivity")})
        return other

    @cached_property
    def profile(self) -> Any:
        return profile_model(self.base)

    @cached_property
    def spectra(self) -> Any:
        return collect_spectra(self.base, self.dataset)

    @cached_property
    def sensitivity(self) -> Any:
        return measure_sensitivity(Probe(self.base, self.spectra, self.dataset.split("valid")))

    @property
    def budget(self) -> Budget:
        return Budget(kind="bytes", limit=serving_cost(self.profile, {}).size_bytes / self.factor)

    def plan(self, method: str, basis: str) -> RankPlan:
        """Of all methods alike that keep tables in the same form."""
        if METHODS[method].keeps_latents:
            plan = self._plan("afm")
            return plan if basis == "per_field" else self._shared(plan)
        plan = self._plan("tensor_train")
        if not any(self.profile.by_name[name].kind == "embedding" for name in plan.as_dict()):
            raise BudgetError("the planner meets this budget with every table dense")
        return plan

    def _plan(self, method: str) -> RankPlan:
        return plan_for_budget(
            self.profile, self.sensitivity, self.budget, PlanOptions(spec=CompressionSpec(method=method), spectra=self.spectra)
        ).plan

    def _shared(self, plan: RankPlan) -> RankPlan:
        """The linear layers of `plan`, and the largest rank for all tables that meets the budget."""
        linear = {name: rank for name, rank in plan.as_dict().items() if self.profile.by_name[name].kind == "linear"}
        tables = [layer for layer in self.profile.compressible if layer.kind == "embedding"]
        for rank in range(tables[0].out_features - 1, 0, -1):
            ranks = linear | {layer.layer_name: rank for layer in tables}
            if serving_cost(self.profile, ranks, CompressionSpec(basis="shared")).size_bytes <= self.budget.limit:
                return RankPlan.of(ranks)
        raise BudgetError("no rank of a shared basis meets the budget")

    def finetuned(self, model: CTRModel) -> CTRModel:
        """The same fine-tuning for all."""
        return fit(model, self.dataset, self.tuning).model

    def trained(self, model: CTRModel, **changes: Any) -> CTRModel:
        """Trained like the original, then fine-tuned like every other arm."""
        training = training_of(self.name, self.architecture, self.seed).replace(**changes)
        return self.finetuned(fit(model, self.dataset, training, teacher=self.base).model)

    def compressed(self, method: str = "afm", *, finetune: bool = True, basis: str = "per_field", **settings: Any) -> CTRModel:
        """The plan by `method`, in one stage."""
        config = CompressConfig(
            plan=self.plan(method, basis), method=method, basis=basis, order="joint",
            finetune=self.tuning if finetune else None, **settings,
        )  # fmt: skip
        return compress_and_finetune(self.base, self.dataset, config, self.spectra).model

    def hashed(self) -> CTRModel:
        plan, counts = self.plan("qr_hash", "per_field"), look_up_counts(self.base, self.dataset)
        return self.trained(
            compress_model(self.base, CompressionSpec(plan=plan, method="qr_hash"), self.spectra, counts=counts).model
        )

    def reinitialised(self) -> CTRModel:
        """The control of the hash."""
        return self.trained(with_reinitialised_tables(self.base, self.seed + 2000))

    def smaller(self, **changes: Any) -> CTRModel:
        limit = int(self.budget.limit / _BYTES_A_NUMBER)
        small = smaller_config(self.base.config, self.dataset.schema, limit)
        settings = {field.name: getattr(small, field.name) for field in fields(small)}
        return self.trained(untrained(self.name, self.architecture, self.dataset, self.seed + 3000, **settings), **changes)


def _integers(precision: Precision, of: Callable[[Bench], CTRModel] = lambda bench: bench.base) -> Callable[[Bench], CTRModel]:
    return lambda bench: quantize(serving_form(of(bench)), precision)


#: Arms without a budget, in the order of the table.
FIXED: Mapping[str, Callable[[Bench], CTRModel]] = {
    "original": lambda bench: bench.base,
    "original, fine-tuned": lambda bench: bench.finetuned(bench.base),
    "original, tables re-initialised": lambda bench: bench.reinitialised(),
    "int8": _integers("int8"),
    "int4 tables": _integers("int4"),
}
#: Arms with a budget.
ARMS: Mapping[str, Callable[[Bench], CTRModel]] = {
    "AFM, truncated only": lambda bench: bench.compressed(finetune=False),
    "AFM": lambda bench: bench.compressed(),
    "AFM, ReLU between": lambda bench: bench.compressed(bottleneck="relu"),
    "AFM, PReLU between": lambda bench: bench.compressed(bottleneck="prelu"),
    "AFM, shared basis": lambda bench: bench.compressed(basis="shared"),
    "SVD": lambda bench: bench.compressed("svd"),
    "SVD, bias corrected": lambda bench: bench.compressed("svd_corrected"),
    "SVD, input-whitened": lambda bench: bench.compressed("whitened_svd"),
    "tensor train": lambda bench: bench.compressed("tensor_train"),
    "rare ids dropped": lambda bench: bench.compressed("rare_ids"),
    "QR hash": lambda bench: bench.hashed(),
    "smaller from scratch": lambda bench: bench.smaller(),
    "smaller, distilled": lambda bench: bench.smaller(distillation=DISTILLATION),
    "AFM, then int8": _integers("int8", lambda bench: bench.compressed()),
}
#: Uses the budget's plan and has fewer bytes.
BELOW = "AFM, then int8"
CONTROL = "original, fine-tuned"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bases", type=Path, required=True, help="the folder that bases.py left its models in")
    parser.add_argument("--out", type=Path, required=True, help="folder of results; made where absent")
    parser.add_argument("--datasets", type=lambda text: text.split(","), default=list(DATASETS), metavar="A,B,...")
    parser.add_argument("--factors", type=lambda text: tuple(map(int, text.split(","))), default=FACTORS, metavar="A,B,...")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of each job")
    parser.add_argument("--jobs", type=int, default=1, help="originals at a time")
    parser.add_argument("--table", action="store_true", help="run nothing: print the tables of what is there")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    wanted = [(name, model, seed) for seed in range(args.seeds) for name in args.datasets for model in ARCHITECTURES]
    if not args.table:
        keys = {key for key, _, _ in arms(args.factors)}
        left = [each for each in wanted if keys - set(result_of(args.out, *each)["arms"])]
        in_parallel(run, [(args.bases, args.out, *each, args.factors) for each in left], args)
    results = [result_of(args.out, *each) for each in wanted]
    print(tables(results))
    print("\nwritten to", write_json("methods", [result for result in results if result["arms"]]))


def arms(factors: tuple[int, ...]) -> list[tuple[str, int, Callable[[Bench], CTRModel]]]:
    """(its key in the results, by how much smaller, how it is made) of every arm."""
    fixed = [(title, 1, make) for title, make in FIXED.items()]
    return fixed + [(f"{factor}x {title}", factor, make) for factor in factors for title, make in ARMS.items()]


def run(bases: Path, out: Path, name: str, architecture: str, seed: int, factors: tuple[int, ...]) -> dict[str, Any]:
    """All arms of one original that are not there yet."""
    base, dataset = base_of(bases, name, architecture, seed)
    bench, path = Bench(name, architecture, seed, base, dataset).at(1), result_file(out, name, architecture, seed)
    result, original = result_of(out, name, architecture, seed), predict_logits(base, dataset.split("test"))
    for key, factor, make in arms(factors):
        if key in result["arms"]:
            continue
        started = time.perf_counter()
        try:
            model = serving_form(make(bench.at(factor)))
        except BudgetError as error:
            result["arms"][key] = {"refused": str(error)}
        else:
            seconds, logits = time.perf_counter() - started, predict_logits(model, dataset.split("test"))
            if key == CONTROL:
                np.save(path.with_suffix(".control.npy"), logits)
            control = np.load(path.with_suffix(".control.npy")) if key != "original" else original
            found = measured(model, dataset.split("test").labels, logits, original, control)
            result["arms"][key] = {**found, "limit": bench.at(factor).budget.limit, "seconds": seconds}
        keep(path, result | {"machine": machine()})
    return result | {"auc": result["arms"]["original"]["auc"]}


def measured(model: CTRModel, labels: Any, logits: Any, original: Any, control: Any) -> dict[str, Any]:
    """Accuracy, its paired changes, and size."""
    cost = measure_cost(model)
    return {
        "auc": auc(labels, logits), "log_loss": log_loss(labels, logits), "cost": cost.to_dict(), "bytes": cost.size_bytes,
        "change": auc_difference(labels, logits, original).to_dict(),
        "change_from_control": auc_difference(labels, logits, control).to_dict(),
    }  # fmt: skip


def result_file(out: Path, name: str, architecture: str, seed: int) -> Path:
    """Where the arms of one original lie."""
    return out / f"{name}-{architecture}-{seed}.json"


def result_of(out: Path, name: str, architecture: str, seed: int) -> dict[str, Any]:
    """Results of one original so far."""
    path = result_file(out, name, architecture, seed)
    found: dict[str, Any] = {"dataset": name, "model": architecture, "seed": seed, "arms": {}}
    return json.loads(path.read_text()) if path.exists() else found


def tables(results: list[dict[str, Any]]) -> str:
    """A table a dataset and model, a row an arm."""
    parts = []
    for name in DATASETS:
        for architecture in ARCHITECTURES:
            own = [one for one in results if (one["dataset"], one["model"]) == (name, architecture) and one["arms"]]
            if own:
                parts.append(f"**{name}, {architecture}**\n\n{table(own)}")
    return "\n\n".join(parts)


def table(results: list[dict[str, Any]]) -> str:
    """Means over the seeds that have an arm; the best AUC within each budget in bold."""
    rows = [row("", key, runs_of(results, key)) for key, _, _ in arms(()) if runs_of(results, key)]
    for factor in FACTORS:
        found = {title: runs_of(results, f"{factor}x {title}") for title in ARMS}
        means = {title: np.mean([run["auc"] for run in runs]) for title, runs in found.items() if runs and title != BELOW}
        best = max(means, key=lambda title: means[title], default="")
        for title, runs in found.items():
            if runs:
                rows.append(row(f"{factor}x", f"**{title}**" if title == best else title, runs))
            elif refused := [one["arms"][key] for one in results if (key := f"{factor}x {title}") in one["arms"]]:
                rows.append([f"{factor}x", title, "", "", f"not run: {refused[0]['refused']}", *[""] * 5])
    heads = [
        "size",
        "arm",
        "MB",
        "of it tables",
        "test AUC",
        "log loss",
        "AUC change (95 %)",
        "over the original fine-tuned",
        "seconds",
        "seeds",
    ]
    return markdown_table(heads, rows)


def runs_of(results: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """An arm in every seed that has it."""
    return [one["arms"][key] for one in results if "auc" in one["arms"].get(key, {})]


def row(size: str, title: str, runs: list[dict[str, Any]]) -> list[Any]:
    """One arm: mean ± deviation over seeds, and the paired changes."""
    return [
        size, title, f"{np.mean([run['bytes'] for run in runs]) / 1e6:.3f}",
        f"{np.mean([run['cost']['bytes_tables'] for run in runs]) / 1e6:.3f}", spread([run["auc"] for run in runs]),
        spread([run["log_loss"] for run in runs]), interval([run["change"] for run in runs]),
        interval([run["change_from_control"] for run in runs]), f"{np.mean([run['seconds'] for run in runs]):.1f}", len(runs),
    ]  # fmt: skip


def interval(changes: list[dict[str, float]]) -> str:
    """Means over seeds of an estimate and the ends of its interval."""
    estimate, low, high = (np.mean([one[key] for one in changes]) for key in ("estimate", "low", "high"))
    return f"{estimate:+.4f} ({low:+.4f} to {high:+.4f})"


def spread(values: list[float]) -> str:
    """Mean ± standard deviation, four digits."""
    deviation = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{deviation}"


if __name__ == "__main__":
    main()

"""Serving in ONNX Runtime: the original, compressed models in float, and the same in integers; answers and speed.

    python benchmarks/serving.py --out runs/serving                  # on a quiet machine
    python benchmarks/serving.py --out runs/serving --clock cpu      # on a busy one: time of the computing thread alone

DeepFM on the real Criteo rows (39 fields x 16, MLP 400x3), one epoch; originals are kept in --out. Compressed by AFM without
fine-tuning: the paper's preset (second and third layer to rank 64, tables to 4), and ranks of 8 with tables of 2. One thread.
At each batch size all files take turns in every round; figures are ratios to the float original with their 95 % interval. "300
candidates": 20 of the 39 fields belong to the user and are the same in all rows; files with the user once have them as
inputs of one row. Answers are compared on the test rows.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
import torch
from common import Table, Target, at_least, real_data, write_json
from numpy.typing import NDArray

from ctrlab.compression.fold import serving_form
from ctrlab.compression.surgery import compress_model
from ctrlab.data.catalog import DATASETS
from ctrlab.data.configs import SplitConfig
from ctrlab.data.dataset import EncodedDataset, Split
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.decomposition.collect import collect_spectra
from ctrlab.evaluation.latency import interleaved, latency_of, open_onnx
from ctrlab.evaluation.metrics import auc
from ctrlab.evaluation.prediction import predict_logits
from ctrlab.evaluation.speed_ratio import ratio_of_rounds
from ctrlab.models.base import CTRModel, build_model
from ctrlab.models.checkpoint import load_model, save_model
from ctrlab.models.configs import DeepFMConfig
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.ranks import plan_ranks
from ctrlab.serving.integer_export import Limits, export_integers
from ctrlab.serving.processor import has_vnni
from ctrlab.serving.user_once import write_with_user_once
from ctrlab.training.configs import FitConfig
from ctrlab.training.loop import fit

RANKS = {
    "original": {},
    "64/64, tables 4": {"mlp.2": 64, "mlp.4": 64, "embedding.*": 4},
    "8, tables 2": {"mlp.*": 8, "embedding.*": 2},
}
BATCHES = (1, 256, 4096)
CANDIDATES = 300
USER = tuple(range(20))
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.thread_time}
Feeds = dict[str, NDArray[Any]]


class Session:
    """A file in ONNX Runtime on one thread; `prepare` keeps the inputs that it has."""

    device = "cpu"

    def __init__(self, path: Path) -> None:
        self._session: onnxruntime.InferenceSession = open_onnx(path, threads=1)
        self._names = [node.name for node in self._session.get_inputs()]

    def prepare(self, feeds: Any) -> Feeds:
        return {name: feeds[name] for name in self._names}

    def __call__(self, inputs: Any) -> None:
        self._session.run(None, inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of data, original and ONNX files")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each file at each batch size")
    parser.add_argument("--rounds", type=int, default=17)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--quick", action="store_true", help="only to see that it runs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    dataset = criteo(args.out)
    original = trained(args.out, dataset)
    files, answers = exported(args.out, original, dataset)
    settings = {"seconds": 0.2 if args.quick else args.seconds, "rounds": 6 if args.quick else args.rounds}
    speeds = timed(files, dataset.split("test"), CLOCKS[args.clock], **settings)
    report(answers, speeds, args)


def criteo(out: Path) -> EncodedDataset:
    folder = out / "dataset"
    if folder.exists():
        return EncodedDataset.open(folder)
    out.mkdir(parents=True, exist_ok=True)
    table = out / "criteo.tsv"
    frame = pl.read_parquet(real_data("criteo_137k.parquet")).fill_null("")
    frame.write_csv(table, separator="\t", include_header=False, quote_style="never")
    split = SplitConfig(train=0.8, valid=0.1, test=0.1)
    return encode_dataset(DATASETS["criteo"].config_for(str(table), split), folder)


def trained(out: Path, dataset: EncodedDataset) -> CTRModel:
    path = out / "original.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        model = build_model(DeepFMConfig(embed_dim=16, mlp_dims=(400, 400, 400)), dataset.schema)
        config = FitConfig(epochs=1, batch_size=256, learning_rate=1e-3, optimizer="lazy_adam", monitor="auc")
        save_model(fit(model, dataset, config).model, path)
    return load_model(path, dataset.schema)


def exported(out: Path, original: CTRModel, dataset: EncodedDataset) -> tuple[dict[str, Path], dict[str, Any]]:
    """{name: file}, and {name: what the check of the integer form found}."""
    spectra = collect_spectra(original, dataset, max_rows=65_536)
    test, files, answers = dataset.split("test"), {}, {}
    for number, (name, ranks) in enumerate(RANKS.items()):
        plan = plan_ranks(profile_model(original), spectra, ranks=ranks) if ranks else None
        model = compress_model(original, CompressionSpec(plan=plan), spectra).model if plan else original
        served = serving_form(model)
        files[f"{name}, float"], files[f"{name}, integers"] = out / f"{number}-float.onnx", out / f"{number}-integers.onnx"
        form = export_integers(
            served, files[f"{name}, integers"], dataset.split("train"), test, limits=Limits(probability=1.0, auc_loss=1.0),
            float_file=files[f"{name}, float"],
        )  # fmt: skip
        answers[name] = {**form.to_dict(), "float_auc": auc(test.targets(), predict_logits(served, test))}
        for kind in ("float", "integers"):
            (files[f"{name}, {kind}, user once"],) = write_with_user_once([files[f"{name}, {kind}"]], USER)
    return files, answers


def timed(files: Mapping[str, Path], rows: Split, clock: Callable[[], float], *, seconds: float, rounds: int) -> dict[str, Any]:
    """{batch size, or "300 candidates": {name: timing and ratio to the float original}}."""
    sessions = {name: Session(path) for name, path in files.items()}
    plain = {name: session for name, session in sessions.items() if "user once" not in name}
    found = {}
    for size in BATCHES:
        feeds = [_feeds(rows, np.arange(start, start + size) % len(rows)) for start in range(0, 16 * size, size)]
        found[str(size)] = _ratios(plain, feeds, size, clock, seconds, rounds)
    requests = [
        _of_one_user(_feeds(rows, np.arange(start, start + CANDIDATES))) for start in range(0, 8 * CANDIDATES, CANDIDATES)
    ]
    found[f"{CANDIDATES} candidates"] = _ratios(sessions, requests, CANDIDATES, clock, seconds, rounds)
    return found


def _feeds(rows: Split, places: NDArray[np.int64]) -> Feeds:
    return {name: np.array(part) for name, part in rows.fields(places)._asdict().items()}


def _of_one_user(feeds: Feeds) -> Feeds:
    ids = feeds["ids"].copy()
    ids[:, USER] = ids[0, USER]
    return {"ids": ids, "user_ids": ids[:1, USER], "own_ids": np.delete(ids, USER, axis=1)}


def _ratios(
    sessions: Mapping[str, Session], feeds: list[Feeds], size: int, clock: Callable[[], float], seconds: float, rounds: int
) -> dict[str, Any]:
    inputs = {
        name: [session.prepare({**own, "ids": own["own_ids"]} if "user once" in name else own) for own in feeds]
        for name, session in sessions.items()
    }
    durations = interleaved(sessions, inputs, seconds, rounds, clock)
    timings = {name: latency_of(own, size, 1, "cpu").to_dict() for name, own in durations.items()}
    reference = timings["original, float"]
    return {
        name: {**own, "ratio": vars(ratio_of_rounds(own, reference, batch_size=size, runtime="onnx"))}
        for name, own in timings.items()
    }


def report(answers: dict[str, Any], speeds: dict[str, Any], args: argparse.Namespace) -> None:
    clock = "time of the computing thread" if args.clock == "cpu" else "wall time"
    processor = "with VNNI" if has_vnni() else "without VNNI"
    tables = [
        Table("Answers in integers against the float form, test rows",
              ["ranks", "float AUC", "change of AUC (95 %)", "largest change of a probability", "float file", "integer file"],
              [_answer(name, own) for name, own in answers.items()]),
        Table(f"Throughput divided by the float original's (95 %), one thread, {clock}, processor {processor}",
              ["file", *(f"batch {size}" for size in BATCHES), f"{CANDIDATES} candidates"],
              [_speed(name, speeds) for name in speeds[f"{CANDIDATES} candidates"]]),
    ]  # fmt: skip
    targets = _targets(answers, speeds)
    print(*tables, *targets, sep="\n")
    content = {"answers": answers, "speeds": speeds, "clock": args.clock, "vnni": has_vnni()}
    print("written to", write_json("serving", content, tables=tables, targets=targets, quick=args.quick))


def _answer(name: str, own: dict[str, Any]) -> list[str]:
    change = own["auc_change"]
    interval = f"{change['estimate']:+.5f} ({change['low']:+.5f} to {change['high']:+.5f})"
    files = [f"{own[key] / 1e6:.2f} MB" for key in ("float_bytes", "bytes")]
    return [name, f"{own['float_auc']:.5f}", interval, f"{own['largest_change']:.4f}", *files]


def _speed(name: str, speeds: dict[str, Any]) -> list[str]:
    cells = []
    for own in speeds.values():
        ratio = own[name]["ratio"] if name in own else None
        cells.append("" if ratio is None else f"{ratio['ratio']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})")
    return [name, *cells]


def _targets(answers: dict[str, Any], speeds: dict[str, Any]) -> list[Target]:
    name = "64/64, tables 4, integers"
    wanted = [(str(size), name, bound) for size, bound in ((256, 5.0), (4096, 5.0))]
    wanted.append((f"{CANDIDATES} candidates", f"{name}, user once", 8.0))
    found = [
        at_least(f"the paper's preset in integers against the float original, {at}", speeds[at][own]["ratio"]["ratio"], bound)
        for at, own, bound in wanted
    ]
    change = answers["64/64, tables 4"]["auc_change"]["estimate"]
    return [*found, at_least("its change of AUC against its float form", change, -0.0002, "{:+.5f}")]


if __name__ == "__main__":
    main()

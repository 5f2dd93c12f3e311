"""The process of one contender: reads one JSON request a line from standard input and writes one JSON response a line.

    {"do": "steps", "count": 20}  -> {"rows_per_second": ...}    one round
    {"do": "gemm"}                -> the GEMM limit
    {"do": "epoch"}               -> a whole epoch as users train: {"rows_per_second", "peak_gb"}
    {"do": "auc", ...}            -> one epoch over real rows, all in one order: {"auc", "log_loss"}

Standard output goes to the log, because frameworks print.
"""

import argparse
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zoo
from criteo_shaped import Rows, load

BATCH = 4096
#: Batches kept in memory for the peers, whose loaders are not measured; used in rotation.
READY = 40


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--framework", choices=("own", "peer_fuxictr", "peer_deepctr", "gemm"), required=True)
    parser.add_argument("--model", default="deepfm")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--settings", type=json.loads, default={})
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    turns = Turns(args)
    for line in sys.stdin:
        order = json.loads(line)
        answer = getattr(turns, order.pop("do"))(**order)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Turns:
    """The requests of a contender; each method is one."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.contender: Any = None
        self.ready: Any = None

    def _made(self, learning_rate: float = zoo.LEARNING_RATE) -> Any:
        if self.contender is None:
            torch.manual_seed(0)
            self.rows = load(self.args.rows)
            module = __import__(self.args.framework)
            own = {"dtype": self.args.dtype, **self.args.settings} if self.args.framework == "own" else {}
            self.contender = module.Contender(self.args.model, self.rows, learning_rate, **own)
        return self.contender

    def facts(self) -> dict[str, Any]:
        """Parameters and MACs a row of the dense part."""
        made = self._made()
        macs = made.macs() if self.args.framework == "own" else matrix_macs(made, self.rows)
        return {"dense_parameters": made.dense_parameters(), "macs": macs, "torch": torch.__version__}

    def steps(self, count: int) -> dict[str, float]:
        """One round of `count` steps."""
        made = self._made()
        if self.args.framework == "own":
            return {"rows_per_second": made.timed(count)}
        if self.ready is None:
            batches = (slice(start, start + BATCH) for start in range(0, min(READY * BATCH, len(self.rows)) - BATCH + 1, BATCH))
            self.ready = itertools.cycle([made.batch(np.array(self.rows.ids[b]), np.array(self.rows.labels[b])) for b in batches])
            made.step(next(self.ready))
        started = time.perf_counter()
        for _ in range(count):
            made.step(next(self.ready))
        return {"rows_per_second": count * BATCH / (time.perf_counter() - started)}

    def gemm(self) -> dict[str, dict[str, float]]:
        """GEMM limit in float32 and bfloat16."""
        from gemm import limit

        return {str(dtype).removeprefix("torch."): limit(dtype) for dtype in (torch.float32, torch.bfloat16)}

    def epoch(self, valid_rows: int = 0) -> dict[str, float]:
        """One epoch as users train, with the peak memory of this process."""
        made = self._made()
        before = peak_gb()
        rest = {}
        if valid_rows:
            rest["valid"] = Rows(self.rows.ids[-valid_rows:], self.rows.labels[-valid_rows:], self.rows.field_dims)
        started = time.perf_counter()
        made.epoch(self.rows, **rest)
        seconds = time.perf_counter() - started
        return {"rows_per_second": len(self.rows) / seconds, "peak_gb": peak_gb(), "before_gb": before}

    def auc(self, test: str, seed: int, batch_size: int, order: str) -> dict[str, float]:
        """One epoch over the rows, then AUC and log loss of other rows.

        order: file with the row order, written by ctrlab and used by the others: the order alone changes AUC by 0.001.
        """
        torch.manual_seed(seed)
        made, held_out = self._made(), load(Path(test))
        if self.args.framework == "own":
            import own

            made.config = made.config.replace(batch_size=batch_size, seed=seed)
            np.save(order, own.order_of_rows(self.rows, made.config))
            probabilities = own.probabilities(made.epoch(self.rows).model, held_out)
        else:
            places = np.load(order)
            for start in range(0, len(places), batch_size):
                chosen = places[start : start + batch_size]
                made.step(made.batch(self.rows.ids[chosen], self.rows.labels[chosen]))
            parts = (slice(start, start + BATCH) for start in range(0, len(held_out), BATCH))
            probabilities = np.concatenate([made.predict(made.batch(held_out.ids[p], held_out.labels[p])) for p in parts])
        return accuracy(np.asarray(held_out.labels), probabilities)


def accuracy(labels: "np.ndarray[Any, Any]", probabilities: "np.ndarray[Any, Any]") -> dict[str, float]:
    """AUC and log loss by scikit-learn, which every environment has."""
    from sklearn.metrics import log_loss, roc_auc_score

    return {
        "auc": float(roc_auc_score(labels, probabilities)),
        "log_loss": float(log_loss(labels, probabilities.astype(np.float64))),
    }


def matrix_macs(made: Any, rows: Rows) -> int:
    """MACs of one row in matrix products, by torch's FLOP counter."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        made.predict(made.batch(np.array(rows.ids[:64]), np.array(rows.labels[:64])))
    made.model.train()
    return counter.get_total_flops() // 2 // 64


def peak_gb() -> float:
    """Peak resident memory of this process in 1e9 bytes, without its parent's."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e9


if __name__ == "__main__":
    main()

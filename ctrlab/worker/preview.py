"""The process behind `services.previews`: keeps models and validation rows loaded, and measures one plan after another.

One line of JSON in, one line out; anything printed goes to its log. It exits when its input closes, or after 15 minutes without
a request.
"""

import argparse
import json
import logging
import os
import select
import sys
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, BinaryIO

import torch

from ctrlab.errors import CtrlabError
from ctrlab.evaluation.delong import auc_difference, auc_interval, log_loss_difference
from ctrlab.measuring.probe import PlanProbe
from ctrlab.services.capabilities import is_outside
from ctrlab.services.outside import facts_of
from ctrlab.services.previews import Answer, OwnMeasure, Preview, PreviewRequest
from ctrlab.services.work.outside import own_measures
from ctrlab.services.work.probes import open_probe
from ctrlab.services.workspace import Workspace, open_workspace
from ctrlab.worker.processors import usable_processors

#: Models kept loaded, with their rows.
_KEPT_PROBES = 2
_IDLE_SECONDS = 900.0

logger = logging.getLogger("ctrlab.preview")


def main(argv: Sequence[str] | None = None) -> None:
    """Answer requests until the input closes or the process has been idle."""
    parser = argparse.ArgumentParser(prog="python -m ctrlab.worker.preview")
    parser.add_argument("--idle-seconds", type=float, default=_IDLE_SECONDS)
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(asctime)s preview %(process)d: %(message)s", level=logging.INFO)
    torch.set_num_threads(usable_processors())
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    previewer = Previewer(open_workspace())
    while select.select([sys.stdin], [], [], arguments.idle_seconds)[0]:
        line = sys.stdin.readline()
        if not line:
            return
        _answer(previewer, line, answers)
    logger.info("no request for %g s", arguments.idle_seconds)


def _answer(previewer: "Previewer", line: str, answers: BinaryIO) -> None:
    message: dict[str, Any]
    try:
        found = previewer.answer(PreviewRequest.from_dict(json.loads(line)))
        message = {"preview": found.to_dict()} if isinstance(found, Preview) else {"own": asdict(found)}
    except CtrlabError as error:
        message = {"error": str(error)}
    except Exception as error:  # the page shows it, the log has the traceback, and the next request is answered
        logger.exception("a plan could not be measured")
        message = {"error": f"unexpected: {type(error).__name__}: {error}, see preview.log"}
    answers.write(json.dumps(message).encode() + b"\n")
    answers.flush()


class Previewer:
    """Measures plans; the most recently used models stay loaded."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._probes: OrderedDict[tuple[str, str], PlanProbe] = OrderedDict()

    def answer(self, request: PreviewRequest) -> Answer:
        """The plan's accuracy; of an outside model without labels, what its own `evaluate` gives."""
        stored = self._workspace.store.artifacts.get(request.model_id)
        if not is_outside(stored) or facts_of(stored)["measure"] != "evaluate":
            return self.measure(request)
        started = time.perf_counter()
        value, original = own_measures(self._workspace, stored, request.spectra_id, request.spec)
        return OwnMeasure(value=value, original=original, seconds=time.perf_counter() - started)

    def measure(self, request: PreviewRequest) -> Preview:
        """The plan's accuracy, and its change from the original, on the kept rows."""
        probe = self._probe(request.model_id, request.spectra_id)
        started = time.perf_counter()
        found = probe.measure(request.spec.replace(precision="float32", layer_precisions=()))
        return Preview(
            num_rows=probe.num_rows,
            auc=auc_interval(probe.labels, found.logits),
            auc_change=auc_difference(probe.labels, found.logits, probe.original.logits),
            log_loss=found.log_loss,
            log_loss_change=log_loss_difference(probe.labels, found.logits, probe.original.logits),
            original_auc=probe.original.auc,
            original_log_loss=probe.original.log_loss,
            seconds=time.perf_counter() - started,
        )

    def _probe(self, model_id: str, spectra_id: str) -> PlanProbe:
        key = (model_id, spectra_id)
        if key not in self._probes:
            probe = open_probe(self._workspace, model_id, spectra_id, with_counts=True)
            while len(self._probes) >= _KEPT_PROBES:
                self._probes.popitem(last=False)
            self._probes[key] = probe
        self._probes.move_to_end(key)
        return self._probes[key]


if __name__ == "__main__":
    main()

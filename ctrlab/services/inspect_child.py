"""The process that opens strange files for the dashboard: one JSON request in, one JSON answer out, then it ends.

Requests:
    {"do": "inspect", "source": {...}, "label": {...}, "max_rows": n} -> {"inspection": {...}}
    {"do": "inspect_known", "known": name, "paths": [...]} -> {"inspection": {...}}
    {"do": "fingerprint", "path": path}                    -> {"fingerprint": text}
An expected error is {"error": message, "kind": name of its class in `ctrlab.errors`}. Loads without torch.
"""

import argparse
import json
import os
import select
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from ctrlab.data.catalog import DATASETS
from ctrlab.data.catalog.recognise import inspect_and_recognise
from ctrlab.data.configs import ColumnConfig, SourceConfig
from ctrlab.errors import CtrlabError
from ctrlab.models.header import read_model_header

_IDLE_SECONDS = 900.0


def main(argv: Sequence[str] | None = None) -> None:
    """Answer one request; end without an answer if none comes for a while or the input closes."""
    parser = argparse.ArgumentParser(prog="python -m ctrlab.services.inspect_child")
    parser.add_argument("--idle-seconds", type=float, default=_IDLE_SECONDS)
    arguments = parser.parse_args(argv)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answer
    if not select.select([sys.stdin], [], [], arguments.idle_seconds)[0]:
        return
    line = sys.stdin.readline()
    if line:
        json.dump(answer(json.loads(line)), answers)
        answers.flush()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request, as JSON."""
    try:
        return _ACTIONS[request["do"]](request)
    except CtrlabError as error:
        return {"error": str(error), "kind": type(error).__name__}
    except Exception as error:  # standard error is inspect.log; the message may quote cells, so only its class is reported
        traceback.print_exc()
        return {
            "error": f"an unexpected {type(error).__name__} occurred, see inspect.log in the home folder",
            "kind": "DataError",
        }


def _inspect(request: dict[str, Any]) -> dict[str, Any]:
    label = ColumnConfig.from_dict(request["label"]) if request.get("label") else None
    inspection = inspect_and_recognise(SourceConfig.from_dict(request["source"]), request["max_rows"], label=label)
    return {"inspection": inspection.to_dict()}


def _inspect_known(request: dict[str, Any]) -> dict[str, Any]:
    return {"inspection": DATASETS[request["known"]].inspect(request["paths"]).to_dict()}


def _fingerprint(request: dict[str, Any]) -> dict[str, Any]:
    return {"fingerprint": read_model_header(request["path"]).schema.fingerprint}


_ACTIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "inspect": _inspect,
    "inspect_known": _inspect_known,
    "fingerprint": _fingerprint,
}


if __name__ == "__main__":
    main()

"""Encodings in processes that are killed. The processes are forked from one that has imported the encoder: an import takes seconds."""

import multiprocessing
import os
import signal
from collections.abc import Mapping

from ctrlab.data.configs import DatasetConfig
from ctrlab.data.encoding import parsing, write_splits
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.data.tables import reader
from tests.support.patience import PATIENCE

_SIZES = {"CHUNK_BYTES": parsing, "BLOCK_ROWS": write_splits, "BLOCK_CELLS": reader}


def exit_code_of_killed_encoding(config: DatasetConfig, folder: str, call: int, step: str = "", **sizes: int) -> int | None:
    """Exit code of a process that encodes and dies by SIGKILL at a report of progress.

    Args:
        call: at the how many-th report, from 1, of those that begin with `step`.
        sizes: CHUNK_BYTES, BLOCK_ROWS and BLOCK_CELLS of the encoder, to have more reports of a small file.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_encode_and_die, args=(config.to_json(), folder, call, step, sizes))
    process.start()
    process.join(PATIENCE)
    return process.exitcode


def _encode_and_die(config: str, folder: str, call: int, step: str, sizes: Mapping[str, int]) -> None:
    for name, size in sizes.items():
        setattr(_SIZES[name], name, size)
    left = call

    def die_at(fraction: float, message: str) -> None:
        nonlocal left
        left -= message.startswith(step)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    encode_dataset(DatasetConfig.from_json(config), folder, on_progress=die_at)

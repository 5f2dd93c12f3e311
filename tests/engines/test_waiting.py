"""engines/waiting.py, in processes of their own: libgomp reads its settings once."""

import json
import os
import subprocess
import sys
import threading

import pytest
import torch

from ctrlab.engines.waiting import short_waits

#: Processor seconds of sleeping after parallel operations: without, inside and after `short_waits`, and the environment.
_MEASURE = """
import json, os, time
before = dict(os.environ)
import torch
import ctrlab
from ctrlab.engines.waiting import short_waits
torch.set_num_threads(2)

def processor_seconds():
    x = torch.ones(1 << 18)
    x.add_(1)
    started = time.process_time()
    for _ in range(30):
        x.add_(1)
        time.sleep(0.008)
    return time.process_time() - started

usual = processor_seconds()
with short_waits():
    inside = processor_seconds()
print(json.dumps([usual, inside, processor_seconds(), dict(os.environ) == before]))
"""


def run(code, policy=None):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": policy} if policy else {}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(
    "OpenMP" not in torch.__config__.parallel_info() or len(os.sched_getaffinity(0)) != 2,
    reason="needs GNU OpenMP and as many processors as threads",
)
def test_waiting_threads_sleep_inside_the_block_and_spin_again_after_it():
    usual, inside, after, unchanged = run(_MEASURE)
    assert inside < usual / 3 and after > 2 * inside
    assert unchanged


@pytest.mark.skipif(os.environ.get("OMP_WAIT_POLICY") != "PASSIVE", reason="the test run was started with another policy")
def test_where_the_environment_says_so_already_nothing_is_started():
    before = threading.active_count()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with short_waits():
            assert threading.active_count() == before
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("imports", "policy"),
    [("import ctrlab, ctrlab.training.loop", "ACTIVE"), ("import torch, ctrlab.training.loop", None)],
)
def test_importing_changes_no_environment_variable_and_warns_of_no_order(imports, policy):
    code = f"""
import json, os, warnings
before = dict(os.environ)
warnings.simplefilter("error", UserWarning)
{imports}
print(json.dumps(dict(os.environ) == before))
"""
    assert run(code, policy) is True

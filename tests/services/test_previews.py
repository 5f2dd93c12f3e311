"""The preview process seen from the page: newest first, remembered, and started again when it dies."""

import json
import os
import signal
import sys
import time

import pytest

from ctrlab.evaluation.delong import Interval
from ctrlab.plans.configs import CompressionSpec
from ctrlab.services import previews
from ctrlab.services.previews import Preview, PreviewError, PreviewProcess, PreviewRequest, Superseded
from ctrlab.services.workspace import open_workspace
from tests.support.patience import PATIENCE

NOTHING = Interval(0.0, 0.0, 0.0, 0.0, 0.95)
PREVIEW = Preview(
    num_rows=10, auc=Interval(0.7, 0.1, 0.6, 0.8, 0.95), auc_change=NOTHING, log_loss=0.5, log_loss_change=NOTHING,
    original_auc=0.7, original_log_loss=0.5, seconds=0.01,
)  # fmt: skip
#: Answers a plan's rank of "a" as its log loss; rank 99 dies, rank 98 is refused, and rank 97 takes a while.
STAND_IN = """
import json, os, sys, time
preview = json.loads(sys.argv[1])
for line in sys.stdin:
    request = json.loads(line)
    rank = sum(entry["rank"] for entry in request["spec"]["plan"]["ranks"])
    if rank == 99:
        os._exit(3)
    if rank == 97:
        time.sleep(0.4)
    answer = {"error": "no such plan"} if rank == 98 else {"preview": preview | {"log_loss": rank, "num_rows": os.getpid()}}
    print(json.dumps(answer), flush=True)
"""


def request(rank):
    return PreviewRequest(model_id="model-1", spectra_id="spectra-1", spec=CompressionSpec.of({"a": rank}))


@pytest.fixture
def start(tmp_path):
    """Starts stand-ins of the process, which are closed at the end."""
    workspace, started = open_workspace(tmp_path), []

    def start_process(**settings):
        command = [sys.executable, "-c", STAND_IN, json.dumps(PREVIEW.to_dict())]
        started.append(PreviewProcess(workspace, command, **settings))
        return started[-1]

    yield start_process
    for process in started:
        process.close()
    workspace.store.close()


@pytest.fixture
def process(start):
    return start()


def test_requests_and_previews_survive_their_journey_as_json():
    assert PreviewRequest.from_dict(request(3).to_dict()) == request(3)
    assert Preview.from_dict(PREVIEW.to_dict()) == PREVIEW


def test_an_answer_is_remembered(process):
    first = process.ask(request(5)).result(PATIENCE)
    assert first.log_loss == 5
    again = process.ask(request(5))
    assert again.done() and again.result() == first


def test_a_newer_question_of_the_same_page_replaces_one_that_was_not_begun(process):
    questions = ((97, "p"), (2, "p"), (3, "q"), (4, "p"))
    running, replaced, other, newest = (process.ask(request(rank), asker) for rank, asker in questions)
    with pytest.raises(Superseded, match="another plan"):
        replaced.result(PATIENCE)
    assert [answer.result(PATIENCE).log_loss for answer in (running, other, newest)] == [97, 3, 4]


def test_the_same_question_twice_is_asked_once(process):
    first, second = process.ask(request(97), "p"), process.ask(request(97), "q")
    assert first is second and first.result(PATIENCE).log_loss == 97


def test_what_goes_wrong_is_a_sentence_and_the_next_question_is_answered(process):
    with pytest.raises(PreviewError, match="no such plan"):
        process.ask(request(98)).result(PATIENCE)
    assert process.ask(request(1)).result(PATIENCE).log_loss == 1


def test_a_process_that_dies_says_so_and_starts_again(process):
    first = process.ask(request(1)).result(PATIENCE)
    with pytest.raises(PreviewError, match="restarts it"):
        process.ask(request(99)).result(PATIENCE)
    second = process.ask(request(2)).result(PATIENCE)
    assert second.num_rows != first.num_rows  # another process id
    os.kill(second.num_rows, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while process._process is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.ask(request(3)).result(PATIENCE).log_loss == 3


def test_only_so_many_answers_are_kept(start):
    process = start(kept_answers=2)
    for rank in (1, 2, 3):
        process.ask(request(rank)).result(PATIENCE)
    assert list(process._answers) == [request(2), request(3)]


def test_a_workspace_has_one_process(tmp_path):
    workspace = open_workspace(tmp_path)
    assert previews.preview_process(workspace) is previews.preview_process(workspace)
    workspace.store.close()

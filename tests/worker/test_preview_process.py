"""The preview process: its figures are those of the compressed model, and it exits when it is not used."""

import subprocess
import sys

import pytest

from ctrlab.compression.surgery import compress_model
from ctrlab.decomposition.spectrum import load_spectra
from ctrlab.evaluation.prediction import evaluate_model
from ctrlab.plans.configs import CompressionSpec
from ctrlab.services.previews import PreviewError, PreviewProcess, PreviewRequest
from ctrlab.services.work.shared import open_model
from tests.support.patience import PATIENCE

RANKS = {"mlp.0": 4, "embedding.site": 2, "embedding.ad": 1}


@pytest.fixture(scope="module")
def lab(small_lab):
    return small_lab.lab


@pytest.fixture(scope="module")
def model(small_lab):
    return small_lab.model.id


def test_the_figures_are_those_of_the_compressed_model(lab, model):
    spectra_id = lab.spectra_of(model).id
    process = PreviewProcess(lab.workspace)
    try:
        preview = process.ask(PreviewRequest(model_id=model, spectra_id=spectra_id, spec=CompressionSpec.of(RANKS))).result(
            PATIENCE
        )
        with pytest.raises(PreviewError, match="no layer is called"):
            process.ask(PreviewRequest(model_id=model, spectra_id=spectra_id, spec=CompressionSpec.of({"x": 1}))).result(PATIENCE)
    finally:
        process.close()
    _, original, dataset = open_model(lab.workspace, model)
    spectra = load_spectra(lab.workspace.store.artifacts.get(spectra_id).path, eigenvectors=True)
    valid = dataset.split("valid")
    built, before = (
        evaluate_model(m, valid) for m in (compress_model(original, CompressionSpec.of(RANKS), spectra).model, original)
    )
    assert (preview.auc.estimate, preview.log_loss) == pytest.approx((built.auc, built.log_loss), abs=1e-6)
    assert preview.auc_change.estimate == pytest.approx(built.auc - before.auc, abs=1e-6)
    assert preview.log_loss_change.estimate == pytest.approx(built.log_loss - before.log_loss, abs=1e-6)
    assert preview.auc_change.low < preview.auc_change.estimate < preview.auc_change.high and preview.num_rows == len(valid)


_TWICE = """
import sys
from ctrlab.worker.preview import main
main(["--idle-seconds", "0.1"])
print("was idle", file=sys.stderr, flush=True)
main(["--idle-seconds", "600"])
"""


def test_it_ends_when_it_is_idle_and_when_its_input_closes(lab):
    """Both in one process, which takes seconds to start."""
    process = subprocess.Popen(
        [sys.executable, "-c", _TWICE],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=lab.workspace.environment(), text=True,
    )  # fmt: skip
    with process:
        while (line := process.stderr.readline()) != "was idle\n":
            assert line, "it ended"
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(PATIENCE) == 0

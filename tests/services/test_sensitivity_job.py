"""The sensitivity job: filed with its lineage, resumed behind the last layer, refused in a sentence."""

import numpy as np
import pandas as pd
import pytest

import ctrlab
from ctrlab.errors import JobCancelled
from ctrlab.measuring import probe
from ctrlab.services import datasets, jobs, sensitivity
from ctrlab.services.models import TrainConfig
from ctrlab.services.runner import run_job
from ctrlab.training.configs import FitConfig


def write_table(path, rows=2000):
    random = np.random.default_rng(0)
    site, ad = random.integers(0, 30, rows), random.zipf(1.5, rows) % 100
    clicked = random.random(rows) < 1 / (1 + np.exp(-np.where(site % 3 == 0, 1.0, -1.0)))
    pd.DataFrame({"click": clicked.astype(int), "site": [f"s{i}" for i in site], "ad": [f"a{i}" for i in ad]}).to_csv(
        path, index=False
    )
    return path


@pytest.fixture(scope="module")
def lab(tmp_path_factory, brief_timings):
    with ctrlab.Lab(tmp_path_factory.mktemp("home")) as lab:
        yield lab


@pytest.fixture(scope="module")
def model(lab, tmp_path_factory):
    path = write_table(tmp_path_factory.mktemp("raw") / "clicks.csv")
    dataset = lab.encode(datasets.draft_config(datasets.inspect_source(ctrlab.SourceConfig(paths=(str(path),))), "clicks"))
    settings = {"embed_dim": 6, "mlp_dims": [16, 12]}
    fit = FitConfig(batch_size=256, learning_rate=3e-3)
    return lab.train(TrainConfig(dataset_id=dataset.id, architecture="deepfm", model=settings, fit=fit))


def test_it_is_filed_under_the_model_and_its_spectra_and_read_back(lab, model):
    artifact = lab.sensitivity_of(model.id)
    assert lab.sensitivity_of(model.id).id == artifact.id == sensitivity.latest_sensitivity(lab.workspace, model.id).id
    assert artifact.parents == (model.id, lab.spectra_of(model.id).id)
    found = sensitivity.load_model_sensitivity(lab.workspace, artifact.id)
    table = sensitivity.sensitivity_table(lab.workspace, artifact.id)
    assert set(table.layer) == set(found.layers) == set(lab.plan(model.id, ranks={"*": 1}).as_dict()) | set(found.layers)
    assert len(table) == sum(len(layer.ranks) for layer in found.layers.values())
    assert artifact.summary["num_rows"] == found.num_rows <= 16_384


def test_a_cancelled_measurement_goes_on_behind_the_last_layer(lab, model, monkeypatch):
    measured, measure = [], probe.Probe.measure

    def watched(self, ranks, **options):
        measured.append(next(iter(ranks)))
        if len(set(measured)) > 2 and not jobs.get_job(lab.workspace, job_id).cancel_requested and jobs_attempt == 1:
            raise JobCancelled("stopped here")
        return measure(self, ranks, **options)

    monkeypatch.setattr(probe.Probe, "measure", watched)
    config = sensitivity.SensitivityConfig(model_id=model.id, spectra_id=lab.spectra_of(model.id).id)
    job_id, jobs_attempt = sensitivity.submit_sensitivity(lab.workspace, config), 1
    assert run_job(lab.workspace, job_id).state == "cancelled"
    finished, jobs_attempt = set(measured[:-1]), 2
    measured.clear()
    jobs.retry_job(lab.workspace, job_id)
    assert run_job(lab.workspace, job_id).state == "succeeded"
    assert finished and not finished & set(measured)

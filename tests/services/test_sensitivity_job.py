"""The sensitivity job: filed with its provenance, resumed after the last layer."""

import pytest

from ctrlab.errors import JobCancelled
from ctrlab.measuring import probe
from ctrlab.services import jobs, sensitivity
from ctrlab.services.runner import run_job


@pytest.fixture(scope="module")
def lab(small_lab):
    return small_lab.lab


@pytest.fixture(scope="module")
def model(small_lab):
    return small_lab.model


def test_it_is_filed_under_the_model_and_its_spectra_and_read_back(lab, model):
    artifact = lab.sensitivity_of(model.id)
    assert lab.sensitivity_of(model.id).id == artifact.id == sensitivity.latest_sensitivity(lab.workspace, model.id).id
    assert artifact.parents == (model.id, lab.spectra_of(model.id).id)
    found = sensitivity.load_model_sensitivity(lab.workspace, artifact.id)
    table = sensitivity.sensitivity_table(lab.workspace, artifact.id)
    assert set(table.layer) == set(found.layers) == set(lab.plan(model.id, ranks={"*": 1}).as_dict()) | set(found.layers)
    assert len(table) == sum(len(layer.ranks) for layer in found.layers.values())
    assert artifact.summary["num_rows"] == found.num_rows <= 16_384


def test_a_cancelled_measurement_resumes_after_the_last_layer(lab, model, monkeypatch):
    measured, measure = [], probe.Probe.measure

    def watched(self, spec, **options):
        measured.append(next(iter(spec.plan.as_dict())))
        if len(set(measured)) > 2 and not jobs.get_job(lab.workspace, job_id).cancel_requested and jobs_attempt == 1:
            raise JobCancelled("stopped here")
        return measure(self, spec, **options)

    monkeypatch.setattr(probe.Probe, "measure", watched)
    config = sensitivity.SensitivityConfig(model_id=model.id, spectra_id=lab.spectra_of(model.id).id)
    job_id, jobs_attempt = sensitivity.submit_sensitivity(lab.workspace, config), 1
    assert run_job(lab.workspace, job_id).state == "cancelled"
    finished, jobs_attempt = set(measured[:-1]), 2
    measured.clear()
    jobs.retry_job(lab.workspace, job_id)
    assert run_job(lab.workspace, job_id).state == "succeeded"
    assert finished and not finished & set(measured)

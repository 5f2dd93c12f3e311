import numpy as np
import pytest
import torch
from torch import nn

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.decomposition.collect import collect_covariances, collect_spectra, table_moments, weight_singular_values
from ctrlab.errors import JobCancelled, SpectrumError, UnknownNameError
from ctrlab.models.inventory import list_layers
from tests.support.small_models import ARCHITECTURES, SCHEMA, MemoryDataset, make_model, perturb_, random_fields, spectra_of


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_linear_layer_and_table_gets_a_spectrum_and_the_rest_a_reason(architecture):
    model = make_model(architecture)
    assert list(spectra_of(model)) == ["embedding.site", "embedding.device", "embedding.ad", "mlp.0", "mlp.2"]
    reasons = {layer.layer_name: layer.skip_reason for layer in list_layers(model) if layer.skip_reason}
    assert reasons["mlp.4"] == "one output unit" and "raw parameter" in reasons["embedding.numeric"]
    if architecture == "deepfm":
        assert reasons["linear.categorical.table"] == "one-dimensional table"
    else:
        assert "raw parameter" in reasons["cross.weights"] and reasons["cross_head"] == "one output unit"


def test_one_dimensional_tables_are_skipped_with_that_reason():
    layers = {layer.layer_name: layer for layer in list_layers(make_model("dcn", embed_dim=1))}
    assert layers["embedding.ad"].skip_reason == "one-dimensional table"


def test_table_spectra_from_counts_equal_those_of_a_forward_pass():
    model, data = make_model("deepfm"), MemoryDataset()
    spectra = spectra_of(model, data)
    with torch.no_grad():
        vectors = model.embedding(data.fields()).double().numpy()
    for number, name in enumerate(SCHEMA.field_names):
        spectrum, seen = spectra[f"embedding.{name}"], vectors[:, number]
        np.testing.assert_allclose(spectrum.mean, seen.mean(0), rtol=1e-10, atol=1e-12)
        rebuilt = (spectrum.eigenvectors * spectrum.eigenvalues) @ spectrum.eigenvectors.T
        np.testing.assert_allclose(rebuilt, np.cov(seen.T, bias=True), atol=1e-10)
        assert spectrum.num_samples == len(seen)


def test_linear_spectra_are_those_of_the_layers_outputs_whatever_the_batch_size():
    model, fields = make_model("dcn"), random_fields(500)
    with torch.no_grad():
        outputs = model.mlp[0](model.embedding(fields).flatten(1)).double()
    for batch in (500, 64, 1):
        batches = (Fields(fields.ids[i : i + batch], fields.values[i : i + batch]) for i in range(0, 500, batch))
        moments = collect_covariances(model, batches, ["mlp.0"])["mlp.0"]
        torch.testing.assert_close(moments.covariance, torch.cov(outputs.T, correction=0), rtol=1e-5, atol=1e-6)


def test_calibration_error_holds_for_a_layer_whose_inputs_have_mean_over_std_1000():
    layer = nn.Linear(20, 12)
    rows = torch.randn(4000, 20) + 1000
    moments = collect_covariances(layer_model := nn.Sequential(layer, nn.ReLU()), rows.split(512), ["0"])["0"]
    outputs = torch.cat([layer(part) for part in rows.split(512)]).detach().double()
    values, vectors = torch.linalg.eigh(moments.covariance)
    for rank in (1, 4, 8):
        basis = vectors[:, -rank:]
        centred = outputs - moments.mean
        error = (centred - centred @ basis @ basis.T).square().sum(1).mean()
        assert float(values[:-rank].sum()) == pytest.approx(float(error), rel=1e-6)
    assert layer_model.training


def test_collecting_leaves_modes_hooks_gradients_and_outputs_as_found():
    model, fields = make_model("deepfm", dropout=0.5), random_fields(50)
    model.train()
    model.mlp[1].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    collect_covariances(model, [fields])
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], p) and p.grad is None for name, p in model.named_parameters())


def test_a_failing_batch_leaves_no_hook_behind():
    model = make_model("deepfm").train()
    with pytest.raises(IndexError):
        collect_covariances(model, [Fields(torch.full((2, 3), 10_000), torch.zeros(2, 2))])
    assert model.training and not any(module._forward_hooks for module in model.modules())


def test_collecting_stops_when_asked_and_reports_on_the_way():
    seen = []
    with pytest.raises(JobCancelled):
        collect_covariances(
            make_model("dcn"), [random_fields(9)] * 5, on_progress=seen.append, should_stop=lambda: len(seen) == 2
        )
    assert seen == [1, 2]
    fractions = []
    collect_spectra(make_model("dcn"), MemoryDataset(), max_rows=500, on_progress=lambda fraction, _: fractions.append(fraction))
    assert fractions == sorted(fractions) and fractions[-1] == 1.0


def test_max_rows_draws_that_many_rows():
    spectra = collect_spectra(make_model("dcn"), MemoryDataset(), max_rows=100)
    assert spectra["mlp.0"].num_samples == 100 and spectra["embedding.ad"].num_samples == 1200


def test_table_moments_need_the_counts_of_their_own_table():
    with pytest.raises(SpectrumError, match="a table of 5 ids was given 4 counts"):
        table_moments(torch.zeros(5, 2), np.ones(4))


def test_unknown_layers_are_refused_by_name():
    with pytest.raises(UnknownNameError, match=r"mlp\.9; there are embedding\.site"):
        collect_spectra(make_model("dcn"), MemoryDataset(), layer_names=["mlp.9"])


def test_tall_and_square_weights_have_their_exact_singular_values():
    for shape in ((500, 6), (10, 7), (5, 9)):
        weight = torch.randn(*shape)
        torch.testing.assert_close(weight_singular_values(weight), torch.linalg.svdvals(weight.double()), rtol=1e-9, atol=1e-9)


def test_a_schema_without_numeric_fields_works():
    schema = FeatureSchema(field_names=("a", "b"), field_dims=(30, 20))
    model = make_model("deepfm", schema=schema)
    perturb_(model, 0.1)
    assert list(spectra_of(model)) == ["embedding.a", "embedding.b", "mlp.0", "mlp.2"]


def test_batches_in_parallel_give_the_same_spectra_as_one_after_the_other():
    model, fields = make_model("deepfm"), random_fields(600)
    batches = [Fields(fields.ids[i : i + 50], fields.values[i : i + 50]) for i in range(0, 600, 50)]
    one, three = (collect_covariances(model, batches, threads=threads) for threads in (1, 3))
    for name in one:
        assert one[name].n == three[name].n == 600
        assert torch.equal(one[name].scatter, three[name].scatter) and torch.equal(one[name].mean, three[name].mean)


def test_a_sampling_error_ends_the_collection_once_enough_rows_were_seen():
    rows = torch.randn(64, 100, 6) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.3, 0.1])
    model, drawn = nn.Sequential(nn.Linear(6, 6)), []
    loose = collect_covariances(model, (drawn.append(i) or rows[i] for i in range(64)), ["0"], tolerance=0.5)["0"]
    assert loose.n == 400 and len(drawn) < 16
    strict = collect_covariances(model, list(rows), ["0"], tolerance=1e-4)["0"]
    assert strict.n == 6400

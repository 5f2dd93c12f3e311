"""Modules that are not ours: what is found in them, what compression keeps, and that they are left as they were."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import ctrlab
from ctrlab.anymodule.module_layers import find_layers, unfused_forms
from ctrlab.anymodule.unfused import unfused
from ctrlab.errors import CompressionError, SpectrumError
from ctrlab.plans.configs import RankPlan


class Sample(nn.Module):
    """A bit of everything: a padded table, a bag, a shared layer, a raw matrix, attention, recurrence, heads of one unit."""

    def __init__(self):
        super().__init__()
        self.item = nn.Embedding(60, 8, padding_idx=0)
        self.tags = nn.EmbeddingBag(40, 6, mode="sum", padding_idx=0)
        self.wide = nn.Embedding(60, 1)
        self.shared = nn.Linear(14, 14)
        self.tower = nn.Sequential(self.shared, nn.ReLU(), nn.Linear(14, 20), nn.ReLU())
        self.kernel = nn.Parameter(torch.randn(20, 20) * 0.1)
        self.head = nn.Linear(20, 1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.memory = nn.GRU(8, 8, batch_first=True)

    def forward(self, item, tags):
        e = self.item(item)
        e = e + self.attention(e, e, e, need_weights=False)[0] + self.memory(e)[0]
        x = torch.cat([e.sum(dim=1), self.tags(tags)], dim=1)
        return (self.head(self.tower(self.shared(x)) @ self.kernel) + self.wide(item).sum(dim=1)).squeeze(1)


@pytest.fixture
def sample():
    torch.manual_seed(0)
    model = Sample()
    with torch.no_grad():
        model.tags.weight.add_(torch.randn(6))
        model.tags.weight[0] = 0
    return model.eval()


def batches(count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randint(0, 60, (64, 5), generator=generator), torch.randint(0, 40, (64, 3), generator=generator))
        for _ in range(count)
    ]


COMPRESSIBLE = {
    "item": 8, "tags": 6, "shared": 14, "tower.2": 20, "memory.ih_l0": 8, "memory.hh_l0": 8,
    "attention.in_proj_q": 8, "attention.in_proj_k": 8, "attention.in_proj_v": 8, "attention.out_proj": 8,
}  # fmt: skip


def test_layers_are_found_once_and_everything_else_has_a_reason(sample):
    with unfused(sample, unfused_forms(sample)) as form:
        layers, skipped = find_layers(form)
    assert {layer.layer_name for layer in layers if layer.skip_reason is None} == set(COMPRESSIBLE)
    reasons = {layer.layer_name: layer.skip_reason for layer in layers} | skipped
    assert reasons["wide"] == "one-dimensional table" and reasons["head"] == "one output unit"
    assert "raw parameter" in reasons["kernel"]
    assert next(layer for layer in layers if layer.layer_name == "shared").slots == ("shared", "tower.0")


def test_spectra_are_the_covariances_of_the_outputs(sample):
    outputs = {"shared": [], "item": []}
    handles = [
        part.register_forward_hook(lambda module, args, output, name=name: outputs[name].append(output.detach()))
        for name, part in (("shared", sample.shared), ("item", sample.item))
    ]
    found = ctrlab.spectra(sample, batches())
    [handle.remove() for handle in handles]
    assert set(found) == set(COMPRESSIBLE)
    rows = torch.cat(outputs["shared"]).double().numpy()
    expected = np.linalg.eigvalsh(np.cov(rows.T, bias=True))[::-1]
    np.testing.assert_allclose(found["shared"].eigenvalues, expected, rtol=1e-6, atol=1e-9)
    looked_up = torch.cat(outputs["item"]).double().flatten(0, 1)
    looked_up = looked_up[looked_up.abs().sum(1) > 0].numpy()  # without padding
    expected = np.linalg.eigvalsh(np.cov(looked_up.T, bias=True))[::-1]
    np.testing.assert_allclose(found["item"].eigenvalues, expected, rtol=1e-6, atol=1e-9)


def test_full_rank_changes_nothing(sample, monkeypatch):
    monkeypatch.setattr("ctrlab.plans.ranks.pays", lambda layer, rank: True)
    result = ctrlab.compress(sample, batches(), ranks=COMPRESSIBLE)
    assert result.plan.as_dict() == COMPRESSIBLE
    for item, tags in batches(seed=1):
        torch.testing.assert_close(result.model(item, tags), sample(item, tags), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("padding", [None, 2])
def test_bags_of_any_size_are_what_they_were(mode, last, padding, monkeypatch):
    monkeypatch.setattr("ctrlab.plans.ranks.pays", lambda layer, rank: True)
    torch.manual_seed(0)
    table = nn.EmbeddingBag(30, 5, mode=mode, include_last_offset=last, padding_idx=padding)
    with torch.no_grad():
        table.weight.add_(1.0)
        if padding is not None:
            table.weight[padding] = 0

    class Bags(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = table

        def forward(self, ids, offsets):
            return self.table(ids, offsets)

    model = Bags()
    ids, offsets = torch.randint(0, 30, (50,)), torch.tensor([0, 7, 7, 20, 49] + ([50] if last else []))
    small = ctrlab.compress(model, [(ids, offsets)], ranks={"table": 5}).model
    assert small.table.rank == 5
    torch.testing.assert_close(small.table(ids, offsets), table(ids, offsets), atol=1e-5, rtol=1e-5)
    square = ids.reshape(10, 5)
    torch.testing.assert_close(small.table(square), table(square), atol=1e-5, rtol=1e-5)


def test_the_error_of_one_layer_is_its_discarded_eigenvalues(sample):
    layer = nn.Sequential(nn.Linear(30, 24))
    rows = torch.randn(500, 30) @ torch.randn(30, 30)
    spectra = ctrlab.spectra(layer, [rows])
    small = ctrlab.compress(layer, None, spectra=spectra, ranks={"0": 5}).model
    with torch.no_grad():
        error = (small(rows) - layer(rows)).double().square().sum(1).mean()
    assert float(error) == pytest.approx(spectra["0"].discarded(5), rel=1e-4)


def test_a_shared_layer_is_one_layer_in_every_slot(sample):
    result = ctrlab.compress(sample, batches(), ranks={"shared": 3})
    assert result.model.shared is result.model.tower[0]
    assert [row.name for row in result.rows if row.rank] == ["shared"]


def test_padding_stays_zero(sample):
    small = ctrlab.compress(sample, batches(), ranks={"item": 3, "tags": 2}).model
    assert not small.item(torch.tensor([0])).any()
    assert not small.tags(torch.zeros(2, 3, dtype=torch.long)).any()


def test_tied_weights_are_left_alone_with_the_reason():
    model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 50, bias=False))
    model[1].weight = model[0].weight
    result = ctrlab.compress(model, [torch.randint(0, 50, (20,))], variance=0.5)
    assert not result.plan.as_dict() and "also that of 1" in result.skipped["0"]


def test_the_original_its_modes_hooks_and_gradients_stay_as_they_were(sample):
    sample.tower[2].train()
    sample.item.weight.requires_grad_(False)
    calls = []
    sample.shared.register_forward_hook(lambda *args: calls.append(1))
    before, random = copy.deepcopy(sample.state_dict()), torch.get_rng_state()
    modes = {name: part.training for name, part in sample.named_modules()}
    result = ctrlab.compress(sample, batches(), variance=0.6)
    assert result.plan.as_dict() and torch.equal(torch.get_rng_state(), random)
    assert {name: part.training for name, part in sample.named_modules()} == modes
    assert len(sample.shared._forward_hooks) == 1 and len(sample.tower[2]._forward_hooks) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in sample.state_dict().items())
    assert all(parameter.grad is None for parameter in sample.parameters())
    assert result.model.tower[2].training
    if "item" in result.plan.as_dict():
        assert not any(parameter.requires_grad for parameter in result.model.item.parameters())


def test_wrappers_are_looked_through(sample):
    plain = ctrlab.compress(sample, batches(), ranks={"shared": 3}).model
    for wrapped in (torch.compile(sample, backend="eager"), nn.DataParallel(sample)):
        found = ctrlab.compress(wrapped, batches(), ranks={"shared": 3}).model
        assert isinstance(found, Sample)
        item, tags = batches(1)[0]
        assert torch.equal(found(item, tags), plain(item, tags))


def test_batches_are_what_the_module_takes(sample):
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = sample

        def forward(self, item, tags):
            return self.inner(item, tags)

    class OneDict(ByName):
        def forward(self, inputs):
            return self.inner(inputs["item"], inputs["tags"])

    expected = ctrlab.spectra(sample, batches())["shared"].eigenvalues
    named = [{"item": item, "tags": tags} for item, tags in batches()]
    for model in (ByName(), OneDict()):
        np.testing.assert_array_equal(ctrlab.spectra(model, named)["inner.shared"].eigenvalues, expected)


def test_filter_fn_selects_layers_by_name_and_module(sample):
    found = ctrlab.spectra(sample, batches(), filter_fn=lambda name, module: isinstance(module, nn.Embedding))
    assert set(found) == {"item"}
    result = ctrlab.compress(sample, batches(), variance=0.5, filter_fn=lambda name, module: name == "item")
    assert set(result.plan.as_dict()) <= {"item"} and result.skipped["shared"] == "left out by filter_fn"


def test_a_layer_that_never_ran_is_skipped_with_the_reason(sample):
    sample.spare = nn.Linear(9, 9)
    result = ctrlab.compress(sample, batches(), variance=0.5)
    assert "did not run" in result.skipped["spare"]


def test_layers_that_would_not_shrink_stay_dense_and_say_so(sample):
    result = ctrlab.compress(sample, batches(), ranks={"shared": 13})
    assert result.plan == RankPlan.of({}) and "break-even" in result.skipped["shared"]


def test_rows_tell_parameters_before_and_after(sample):
    result = ctrlab.compress(sample, batches(), ranks={"shared": 3, "item": 2, "tags": 2}, bottleneck="prelu")
    count = lambda module: sum(parameter.numel() for parameter in module.parameters())  # noqa: E731
    saved = sum(row.parameters_before - row.parameters_after for row in result.rows)
    assert count(sample) - count(result.model) == saved


def test_numbers_that_are_not_finite_name_the_layer(sample):
    with torch.no_grad():
        sample.shared.weight[0, 0] = float("nan")
    with pytest.raises(SpectrumError, match="layer shared"):
        ctrlab.spectra(sample, batches())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one"),
        ({"variance": 0.9, "ranks": {"shared": 2}}, "exactly one"),
        ({"ranks": {"shared": 99}}, "between 1 and 14"),
        ({"ranks": {"nothing": 2}}, "no layer is called nothing"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_in_one_sentence(sample, settings, message):
    with pytest.raises(CompressionError, match=message):
        ctrlab.compress(sample, batches(), **settings)


def test_without_batches_and_spectra_there_is_nothing_to_go_by(sample):
    with pytest.raises(CompressionError, match="give calibration batches"):
        ctrlab.compress(sample, None, variance=0.9)


def test_a_bilinear_layer_is_a_linear_one_of_all_products():
    torch.manual_seed(0)
    layer, batches = nn.Bilinear(4, 5, 12), [(torch.randn(200, 4), torch.randn(200, 5)) for _ in range(5)]
    with torch.no_grad():
        layer.weight.copy_((torch.randn(12, 3) @ torch.randn(3, 20)).view(12, 4, 5))
    found = ctrlab.spectra(layer, batches)[""]
    rows = torch.cat([layer(*batch) for batch in batches]).detach().double().numpy()
    expected = np.linalg.eigvalsh(np.cov(rows.T, bias=True))[::-1]
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-5, atol=1e-9)
    result = ctrlab.compress(layer, batches, ranks={"": 3})
    torch.testing.assert_close(result.model(*batches[0]), layer(*batches[0]), atol=1e-4, rtol=1e-4)
    assert sum(p.numel() for p in result.model.parameters()) == 3 * (20 + 12) + 3 + 12 == result.rows[0].parameters_after

"""Modules that people really write: layers used in other ways than by a call, odd attributes, odd batches, odd files."""

import json
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import ctrlab
from ctrlab.errors import CalibrationWarning, CompressionError, CtrlabError, SpectrumError
from tests.anymodule import cases


def assert_equal(result, module, batch, tolerance=1e-4):
    """The outputs differ by at most `tolerance` of the largest."""
    module.eval()
    args = batch if isinstance(batch, tuple) else (batch,)
    with torch.no_grad():
        before, after = module(*args), result.model.eval()(*args)
    assert before.shape == after.shape
    assert float((before - after).abs().max()) <= tolerance * float(before.abs().max())


@pytest.mark.parametrize(
    ("case", "ranks"),
    [
        (cases.scores_by_its_table, {"emb": 4}),
        (cases.reads_the_dtype_of_a_weight, {"a": 4}),
        (cases.reads_the_norm_of_a_weight, {"a": 4}),
        (cases.forward_hook_that_scales, {"0": 4}),
        (cases.forward_pre_hook_that_scales, {"0": 4}),
        (cases.keeps_its_auxiliary_loss, {"a": 4}),
        (cases.layers_called_by_keyword, {"f": 4}),
        (cases.layers_called_by_keyword, {"e": 4}),
        (cases.bag_called_with_none_by_position, {"b": 4}),
        (cases.bag_called_with_none_by_keyword, {"b": 4}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_layer_of_rank_4_is_compressed_to_rank_4_without_a_difference(case, ranks):
    module, batches = case()
    result = ctrlab.compress(module, batches, ranks=ranks)
    assert result.plan.as_dict() == ranks and not set(ranks) & set(result.skipped)
    assert result.difference < 1e-4
    assert_equal(result, module, batches[1])


def of_rank_4(layer):
    """The layer itself, its weight as a matrix (out, in) made one of rank 4."""
    with torch.no_grad():
        rows, columns = layer.weight.flatten(1).shape
        layer.weight.copy_((torch.randn(rows, 4) @ torch.randn(4, columns) * 0.2).view_as(layer.weight))
    return layer


class Calls(nn.Module):
    """Passes its arguments on to its one layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, *args):
        return self.layer(*args)


def numbers(*shape, count=4):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, generator=generator) for _ in range(count)]


class Odd(nn.Module):
    """A linear layer `a` of rank 4, and a forward pass that is given."""

    def __init__(self, forward, **attributes):
        super().__init__()
        self.a, self.b = of_rank_4(nn.Linear(32, 48)), nn.Linear(48, 8)
        self.run = forward
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.run(self, x)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.b(functional.linear(x, m.a.weight, m.a.bias)) + m.b(m.a(x)),
        lambda m, x: m.b(m.a(x)) * m.a.weight.pow(2).sum(),
        lambda m, x: m.b(m.a(x)) @ m.a.weight[:8, :8].T,
        lambda m, x: m.b(m.a(x)) + m.a.bias.sum() + m.a.weight.shape[0] + m.a.in_features,
    ],
    ids=["functional", "norm", "slice", "attributes"],
)
def test_a_module_that_reads_the_weight_of_a_compressed_layer_gets_the_dense_one(forward):
    torch.manual_seed(0)
    module, batches = Odd(forward), numbers(256, 32)
    result = ctrlab.compress(module, batches, ranks={"a": 4})
    assert result.plan.as_dict() == {"a": 4}
    assert_equal(result, module, batches[0])


def test_a_padded_table_that_is_read_as_a_matrix_is_the_table():
    torch.manual_seed(0)
    module = Calls(of_rank_4(nn.Embedding(300, 16, padding_idx=3)))
    with torch.no_grad():
        module.layer.weight[3] = 0
    small = ctrlab.compress(module, [torch.randint(0, 300, (2000,))], ranks={"layer": 5}).model.layer
    assert small.rank == 5
    torch.testing.assert_close(small.weight, module.layer.weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(small.weight[7], small(torch.tensor([7]))[0])


class Chain(nn.Module):
    """Keeps its layers in a plain list too, or in a list alone that the copy cannot see."""

    def __init__(self, hidden):
        super().__init__()
        self.a, self.b = of_rank_4(nn.Linear(32, 48)), nn.Linear(48, 8)
        layers = [self.a, self.b]
        self.chain = (lambda: layers) if hidden else layers

    def forward(self, x):
        for layer in self.chain() if callable(self.chain) else self.chain:
            x = layer(x)
        return x


def test_a_layer_that_is_reached_through_a_plain_list_is_replaced_there():
    torch.manual_seed(0)
    module, batches = Chain(hidden=False), numbers(256, 32)
    result = ctrlab.compress(module, batches, ranks={"a": 4})
    assert result.model.chain[0] is result.model.a and result.plan.as_dict() == {"a": 4}
    assert_equal(result, module, batches[0])


def test_a_layer_whose_replacement_would_never_run_is_put_back_with_the_reason():
    torch.manual_seed(0)
    module, batches = Chain(hidden=True), numbers(256, 32)
    result = ctrlab.compress(module, batches, ranks={"a": 4})
    assert not result.plan.as_dict() and "ran 0 times where the layer runs 1 times" in result.skipped["a"]
    assert {row.name: row.rank for row in result.rows} == {"a": None, "b": None}
    assert_equal(result, module, batches[0], tolerance=0)


def test_of_two_replacements_the_one_that_cannot_run_is_put_back():
    def forward(module, x):
        if type(module.a) is not nn.Linear:
            raise TypeError("a must be a Linear")
        return module.b(module.a(x))

    torch.manual_seed(0)
    module, batches = Odd(forward), numbers(256, 32)
    module.b = of_rank_4(nn.Linear(48, 40))
    result = ctrlab.compress(module, batches, ranks={"a": 4, "b": 4})
    assert result.plan.as_dict() == {"b": 4} and "a must be a Linear" in result.skipped["a"]
    assert_equal(result, module, batches[0])


def test_the_replacement_of_a_layer_that_computes_otherwise_than_its_weight_says_is_put_back():
    torch.manual_seed(0)
    module, batches = Odd(lambda m, x: m.b(m.a(x))), numbers(256, 32)
    plain = module.a.forward
    module.a.forward = lambda x: plain(x) + x.sum(dim=1, keepdim=True)  # no subclass, so nothing shows it before it runs
    result = ctrlab.compress(module, batches, ranks={"a": 4})
    assert not result.plan.as_dict() and "squared error" in result.skipped["a"]


def test_a_hook_that_is_a_method_works_on_the_copy():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.calls = of_rank_4(nn.Linear(32, 48)), 0
            self.a.register_forward_hook(self.count)

        def count(self, *_):
            self.calls += 1

        def forward(self, x):
            return self.a(x)

    torch.manual_seed(0)
    module, batches = Counts(), numbers(256, 32)
    small = ctrlab.compress(module, batches, ranks={"a": 4}).model
    calls, before = module.calls, small.calls
    small(batches[0])
    assert (module.calls, small.calls) == (calls, before + 1)


@pytest.mark.parametrize(
    "value",
    [
        threading.Lock(), threading.RLock(), threading.Condition(), {"cache": [torch.ones(3, requires_grad=True) * 2]},
        (torch.ones(3, requires_grad=True) * 2,),
    ],
    ids=["lock", "rlock", "condition", "cached activation", "tuple"],
)  # fmt: skip
def test_a_module_with_an_attribute_that_deepcopy_refuses_is_compressed(value):
    torch.manual_seed(0)
    module, batches = Odd(lambda m, x: m.b(m.a(x)), extra=value), numbers(256, 32)
    result = ctrlab.compress(module, batches, ranks={"a": 4})
    assert_equal(result, module, batches[0])
    assert result.model.extra is not value


def test_an_attribute_that_cannot_be_copied_is_named():
    module = Odd(lambda m, x: m.b(m.a(x)))
    module.b.source = (row for row in range(3))
    with pytest.raises(CompressionError, match=r"its attribute b\.source .*generator"):
        ctrlab.compress(module, numbers(256, 32), ranks={"a": 4})


def test_a_feature_that_holds_a_table_does_not_keep_the_dense_one_alive(tmp_path):
    class Feature:
        pass

    torch.manual_seed(0)
    module, feature = Odd(lambda m, x: m.b(m.a(x))), Feature()
    feature.layer = module.a
    module.features = [feature]
    small = ctrlab.compress(module, numbers(256, 32), ranks={"a": 4}).model
    assert small.features[0].layer is small.a and module.features[0].layer is module.a


def test_a_layer_without_weights_yet_is_skipped_and_the_module_stays_without():
    module, batches = cases.lazy_layer_that_never_ran()
    result = ctrlab.compress(module, batches, variance=0.8)
    assert result.skipped["0"] == "it has no weights yet"
    assert nn.parameter.is_lazy(module[0].weight) and "2" in {row.name for row in result.rows}


@pytest.mark.parametrize(("case", "rows"), [(cases.three_calibration_rows, "3 rows"), (cases.one_calibration_row, "1 row of")])
def test_fewer_calibration_rows_than_outputs_are_warned_of(case, rows):
    module, batches = case()
    with pytest.warns(CalibrationWarning, match=f"64 outputs and saw {rows}.*give 640 or more"):
        ctrlab.compress(module, batches, variance=0.95)


def test_enough_calibration_rows_bring_no_warning():
    module, _ = cases.three_calibration_rows()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ctrlab.spectra(module, [cases.other_rows()])


@pytest.mark.parametrize("case", [cases.scripted, cases.traced])
def test_torchscript_is_refused_in_one_sentence(case):
    module, batches = case()
    with pytest.raises(CompressionError, match=r"TorchScript.*as it was before scripting"):
        ctrlab.compress(module, batches, variance=0.8)
    inside = nn.Sequential(module, nn.Linear(32, 16))
    assert "TorchScript" in ctrlab.compress(inside, batches, variance=0.8).skipped["0"]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (
            cases.loader_with_labels,
            r"a list of 2 parts: tensor \(128, 32\), tensor \(128,\), but forward\(input\) cannot take it",
        ),
        (cases.tuples_with_labels, r"a tuple of 2 parts.*without labels"),
        (cases.dictionaries_with_labels, "keys x, label, .*it has no argument label"),
    ],
)
def test_labels_among_the_batches_are_named_with_the_way_on(case, said):
    module, batches = case()
    with pytest.raises(SpectrumError, match=said):
        ctrlab.compress(module, batches, variance=0.8)
    inputs = (lambda model, batch: model(batch["x"])) if isinstance(batches, list) and isinstance(batches[0], dict) else None
    found = ctrlab.spectra(module, batches, forward=inputs or (lambda model, batch: model(batch[0])))
    assert found


def test_batches_of_another_kind_are_run_by_the_callback_for_spectra_and_check_alike():
    torch.manual_seed(0)
    module, batches = Odd(lambda m, x: m.b(m.a(x))), [{"x": rows, "y": 0} for rows in numbers(256, 32)]
    seen = []
    result = ctrlab.compress(
        module, batches, ranks={"a": 4}, forward=lambda model, batch: model(batch["x"]), on_batch=seen.append
    )
    assert seen == [1, 2, 3, 4] and result.difference < 1e-4


def test_a_module_that_fails_on_a_batch_is_one_sentence():
    with pytest.raises(SpectrumError, match=r"failed on a batch \(tensor \(5, 7\)\): RuntimeError"):
        ctrlab.spectra(nn.Sequential(nn.Linear(32, 8)), [torch.randn(5, 7)])


@pytest.mark.parametrize("batches", [[], iter(())])
def test_no_batches_are_an_error(batches):
    with pytest.raises(SpectrumError, match="no calibration batches"):
        ctrlab.compress(nn.Sequential(nn.Linear(32, 8)), batches, variance=0.9)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(12, 24, 1), (64, 12, 9)),
        (nn.Conv1d(6, 24, 3, stride=2, padding=1), (64, 6, 9)),
        (nn.Conv2d(6, 20, 3, dilation=2, padding="same", padding_mode="circular"), (32, 6, 8, 8)),
        (nn.Conv3d(4, 20, 2), (32, 4, 4, 4, 4)),
        (nn.Conv1d(12, 24, 1, bias=False), (64, 12, 9)),
    ],
    ids=["kernel 1", "strided", "2d", "3d", "no bias"],
)
def test_a_convolution_of_rank_4_becomes_two_without_a_difference(layer, shape):
    torch.manual_seed(0)
    module, batches = nn.Sequential(of_rank_4(layer), nn.ReLU()), numbers(*shape)
    result = ctrlab.compress(module, batches, ranks={"0": 4})
    assert result.plan.as_dict() == {"0": 4}
    assert_equal(result, module, batches[1])
    torch.testing.assert_close(result.model[0].weight, layer.weight, atol=1e-4, rtol=1e-3)
    count = lambda part: sum(parameter.numel() for parameter in part.parameters())  # noqa: E731
    assert count(result.model) == result.rows[0].parameters_after and count(module) == result.rows[0].parameters_before


def test_the_error_of_a_convolution_is_its_discarded_eigenvalues():
    torch.manual_seed(0)
    module, batches = nn.Sequential(nn.Conv2d(3, 16, 3)), numbers(64, 3, 8, 8, count=1)
    spectra = ctrlab.spectra(module, batches)
    small = ctrlab.compress(module, batches, spectra=spectra, ranks={"0": 5}).model
    with torch.no_grad():
        error = (small(batches[0]) - module(batches[0])).double().square().sum(1).mean()
    assert float(error) == pytest.approx(spectra["0"].discarded(5), rel=1e-4)


class Conv1D(nn.Module):
    """As in Hugging Face's GPT-2: y = x W + b with W (in, out)."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, 4) @ torch.randn(4, nf)), nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], self.nf)


def test_a_linear_layer_with_a_transposed_weight_is_compressed(tmp_path):
    torch.manual_seed(0)
    module, batches = nn.Sequential(Conv1D(24, 32)), numbers(64, 5, 32)
    result = ctrlab.compress(module, batches, ranks={"0": 4})
    assert_equal(result, module, batches[1])
    torch.testing.assert_close(result.model[0].weight, module[0].weight, atol=1e-3, rtol=1e-3)
    result.save(tmp_path / "small.safetensors")
    fresh = ctrlab.restore(nn.Sequential(Conv1D(24, 32)), tmp_path / "small.safetensors")
    assert torch.equal(fresh(batches[0]), result.model(batches[0]))


@pytest.mark.parametrize(
    ("make", "name", "reason"),
    [
        (lambda: nn.Conv1d(32, 16, 1, groups=4), "0", "a convolution in 4 groups"),
        (lambda: nn.ConvTranspose1d(32, 16, 1), "0.weight", "a transposed convolution"),
        (lambda: nn.utils.weight_norm(nn.Conv1d(32, 16, 1)), "0", "computed from other parameters before every call"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Conv1d(32, 16, 1)), "0", "parametrized"),
    ],
    ids=["groups", "transposed", "weight_norm", "parametrized"],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_what_is_not_compressed_has_its_true_reason(make, name, reason):
    module = nn.Sequential(make(), nn.Flatten(1), nn.Linear(16 * 3, 24))
    result = ctrlab.compress(module, numbers(128, 32, 3), ranks={"2": 4})
    assert reason in result.skipped[name] and result.plan.as_dict() == {"2": 4}


def test_an_old_weight_norm_is_left_alone_with_the_reason():
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        module = nn.Sequential(nn.utils.weight_norm(nn.Linear(32, 16)), nn.Linear(16, 24))
    module(numbers(8, 32)[0]).sum().backward()  # its weight has a graph now, which deepcopy refuses
    result = ctrlab.compress(module, numbers(128, 32), ranks={"1": 4})
    assert "weight_norm" in result.skipped["0"] and result.plan.as_dict() == {"1": 4}


def test_a_parameter_of_the_module_itself_that_is_tied_is_named():
    module = Odd(lambda m, x: m.b(m.a(x)))
    module.kernel = module.a.weight
    assert "also that of the module itself" in ctrlab.compress(module, numbers(128, 32), variance=0.5).skipped["a"]


def test_a_dynamically_quantised_layer_is_listed():
    from torch.ao.nn.quantized.dynamic import Linear

    module = nn.Sequential(nn.Linear(32, 32), Linear(32, 16))
    assert "quantised" in ctrlab.compress(module, numbers(128, 32), variance=0.5).skipped["1"]


def test_a_transformer_with_a_padding_mask_is_compressed():
    torch.manual_seed(0)

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)

        def forward(self, x, mask):
            return self.inner(x, src_key_padding_mask=mask)

    module = Encoder().eval()
    mask = torch.arange(6) >= torch.arange(1, 33).remainder(6).add(1).unsqueeze(1)
    batches = [(x, mask) for x in numbers(32, 6, 16)]
    result = ctrlab.compress(module, batches, ranks={"inner.layers.0.linear1": 8, "inner.layers.1.self_attn.in_proj_q": 4})
    assert len(result.plan.as_dict()) == 2 and result.difference is not None
    assert result.model(*batches[0]).shape[:1] == (32,)
    only = ctrlab.spectra(module, batches, filter_fn=lambda name, part: name.endswith("linear1"))
    assert set(only) == {"inner.layers.0.linear1", "inner.layers.1.linear1"}


@pytest.mark.parametrize("padding", [None, 2])
def test_a_bag_with_weights_of_its_rows_is_what_it_was(padding):
    torch.manual_seed(0)
    bag = of_rank_4(nn.EmbeddingBag(200, 16, mode="sum", padding_idx=padding))
    with torch.no_grad():
        bag.weight.add_(of_rank_4(nn.Embedding(1, 16)).weight)
        if padding is not None:
            bag.weight[padding] = 0
    batch = torch.randint(0, 200, (400,)), torch.arange(0, 400, 8), torch.rand(400)
    result = ctrlab.compress(Calls(bag), [batch], ranks={"layer": 6})
    assert result.plan.as_dict() == {"layer": 6}
    torch.testing.assert_close(result.model.layer(*batch), bag(*batch), atol=1e-4, rtol=1e-4)


def test_sizes_that_are_numpy_integers_are_saved(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(np.int64(500), 16), nn.Linear(16, 8))
    result = ctrlab.compress(module, [torch.randint(0, 500, (300,))], ranks={"0": 4})
    path, description = result.save(tmp_path / "small.safetensors")
    assert json.loads(description.read_text())["ranks"] == {"0": 4}
    assert path.stat().st_mode == description.stat().st_mode


def test_two_steps_of_compression_are_restored_together(tmp_path):
    def fresh():
        torch.manual_seed(0)
        return nn.Sequential(nn.EmbeddingBag(300, 16), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))

    ids = [torch.randint(0, 300, (256, 4))]
    one = ctrlab.compress(fresh(), ids, ranks={"1": 5}, bottleneck="prelu")
    two = ctrlab.compress(one.model, ids, ranks={"0": 4})
    assert two.earlier == {"1": 5} and two.plan.as_dict() == {"0": 4}
    two.save(tmp_path / "small.safetensors")
    assert torch.equal(ctrlab.restore(fresh(), tmp_path / "small.safetensors")(ids[0]), two.model(ids[0]))
    with pytest.raises(CompressionError, match="prelu bottlenecks, none was asked for"):
        ctrlab.compress(ctrlab.compress(Odd(lambda m, x: m.b(m.a(x))), numbers(64, 32), ranks={"a": 4}, bottleneck="prelu").model,
                        numbers(64, 32), ranks={"b": 2})  # fmt: skip


def test_the_name_of_the_description_is_refused_for_the_weights_and_nothing_is_left_half_written(tmp_path):
    module = Odd(lambda m, x: m.b(m.a(x)))
    result = ctrlab.compress(module, numbers(256, 32), ranks={"a": 4})
    with pytest.raises(CompressionError, match=r"x\.safetensors"):
        result.save(tmp_path / "x.json")
    with pytest.raises(CompressionError, match="cannot be saved"):
        result.save("/proc/none/x.safetensors")
    type(module).get_extra_state = lambda self: {"epoch": 3}
    type(module).set_extra_state = lambda self, state: None
    try:
        with pytest.raises(CompressionError, match="tensors alone"):
            result.save(tmp_path / "x.safetensors")
    finally:
        del type(module).get_extra_state, type(module).set_extra_state
    assert not list(tmp_path.iterdir())


def test_a_module_that_could_be_scripted_can_be_scripted_when_it_is_compressed():
    torch.manual_seed(0)
    module = nn.Sequential(nn.EmbeddingBag(300, 16, mode="sum"), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1)).eval()
    ids = torch.randint(0, 300, (256, 4))
    small = ctrlab.compress(module, [ids], ranks={"0": 4, "1": 5}).model
    torch.testing.assert_close(torch.jit.script(small)(ids), small(ids))


def test_frozen_parts_stay_frozen_and_inference_mode_does_not_reach_the_result():
    module, batches = Odd(lambda m, x: m.b(m.a(x))), numbers(256, 32)
    module.a.bias.requires_grad_(False)
    with torch.inference_mode():
        small = ctrlab.compress(module, batches, ranks={"a": 4}).model
    assert not small.a.restore.bias.requires_grad and small.a.restore.weight.requires_grad
    small(batches[0]).sum().backward()
    assert small.a.reduce.weight.grad is not None


def test_every_error_of_these_is_one_of_ctrlab():
    assert issubclass(SpectrumError, CtrlabError) and issubclass(CompressionError, CtrlabError)

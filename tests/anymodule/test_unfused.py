"""Open forms against torch's own modules, over shapes, masks and options; and compression through them."""

import copy
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import ctrlab
from ctrlab.anymodule.unfused import UnfusedAttention, UnfusedRecurrent, unfused_form
from ctrlab.errors import CompressionError

B, L, S, E, HEADS = 3, 4, 5, 8, 2


def attention(**options):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(E, HEADS, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4)
    return module.eval()


def assert_same(one, other):
    for left, right in zip(one, other, strict=True):
        if left is None or right is None:
            assert left is right
        elif isinstance(left, tuple):
            assert_same(left, right)
        else:
            torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


OPTIONS = [
    {}, {"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"add_bias_kv": True, "add_zero_attn": True},
    {"kdim": 6, "vdim": 7}, {"batch_first": True}, {"kdim": 6, "vdim": 7, "batch_first": True, "bias": False},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("mask", ["none", "padding", "bool", "number", "by head", "both"])
def test_open_attention_is_torchs(options, need_weights, mask):
    module = attention(**options)
    shapes = [(L, E), (S, options.get("kdim", E)), (S, options.get("vdim", E))]
    inputs = [torch.randn(B, *shape) if options.get("batch_first") else torch.randn(shape[0], B, shape[1]) for shape in shapes]
    masks = {}
    if mask in ("padding", "both"):
        masks["key_padding_mask"] = torch.arange(S).expand(B, S) > torch.tensor([[4], [2], [3]])
    if mask in ("bool", "both"):
        masks["attn_mask"] = torch.ones(L, S).triu(2).bool()
    if mask == "number":
        masks["attn_mask"] = torch.randn(L, S)
    if mask == "by head":
        masks["attn_mask"] = torch.rand(B * HEADS, L, S) > 0.7
        masks["attn_mask"][..., 0] = False
    expected = module(*inputs, need_weights=need_weights, **masks)
    assert_same(unfused_form(module)(*inputs, need_weights=need_weights, **masks), expected)


def test_open_attention_takes_one_row_and_gives_weights_of_every_head():
    module = attention()
    inputs = torch.randn(L, E), torch.randn(S, E), torch.randn(S, E)
    assert_same(unfused_form(module)(*inputs), module(*inputs))
    assert_same(unfused_form(module)(*inputs, average_attn_weights=False), module(*inputs, average_attn_weights=False))


RECURRENT = list(product([nn.RNN, nn.GRU, nn.LSTM], [1, 2], [False, True], [True, False]))


def recurrent(kind, layers, both, bias, **options):
    torch.manual_seed(1)
    return kind(6, 5, num_layers=layers, bidirectional=both, bias=bias, **options).eval()


@pytest.mark.parametrize(("kind", "layers", "both", "bias"), RECURRENT)
def test_open_recurrence_is_torchs(kind, layers, both, bias):
    module = recurrent(kind, layers, both, bias, batch_first=True)
    x, form = torch.randn(B, L, 6), unfused_form(module)
    assert_same(form(x), module(x))
    state = torch.randn(layers * (1 + both), B, 5)
    hx = (state, torch.randn_like(state)) if kind is nn.LSTM else state
    assert_same(form(x, hx), module(x, hx))


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("in_order", [True, False])
def test_open_recurrence_takes_packed_sequences(kind, in_order):
    module = recurrent(kind, 2, both=True, bias=True)
    lengths = torch.tensor([4, 3, 1] if in_order else [2, 4, 1])
    packed = pack_padded_sequence(torch.randn(B, L, 6), lengths, batch_first=True, enforce_sorted=in_order)
    (out, state), (expected, final) = unfused_form(module)(packed), module(packed)
    assert_same(pad_packed_sequence(out), pad_packed_sequence(expected))
    assert_same(state if isinstance(state, tuple) else (state,), final if isinstance(final, tuple) else (final,))


def test_open_recurrence_takes_one_row_relu_and_time_first():
    module = recurrent(nn.RNN, 1, both=False, bias=True, nonlinearity="relu")
    for x in (torch.randn(L, 6), torch.randn(L, B, 6)):
        assert_same(unfused_form(module)(x), module(x))
    lstm, x = recurrent(nn.LSTM, 2, both=True, bias=True), torch.randn(L, 6)
    hx = torch.randn(4, 5), torch.randn(4, 5)
    assert_same(unfused_form(lstm)(x, hx), lstm(x, hx))


class Reader(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.head = nn.Linear(E, 1)

    def forward(self, x):
        y = self.inner(x, x, x)[0] if isinstance(self.inner, (nn.MultiheadAttention, UnfusedAttention)) else self.inner(x)
        return self.head(y[0] if isinstance(y, tuple) else y).squeeze(-1)


def of_rank(rank, count=6):
    generator = torch.Generator().manual_seed(2)
    basis = torch.randn(rank, E, generator=generator)
    return [torch.randn(64, L, rank, generator=generator) @ basis for _ in range(count)]


MODULES = {
    "attention": lambda: nn.MultiheadAttention(E, HEADS, batch_first=True),
    "gru": lambda: nn.GRU(E, E, batch_first=True),
    "lstm": lambda: nn.LSTM(E, E, num_layers=2, batch_first=True),
    "transformer": lambda: nn.TransformerEncoderLayer(E, HEADS, 16, batch_first=True),
    "encoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(E, HEADS, 16, batch_first=True), 2),
}


@pytest.fixture(params=MODULES)
def reader(request):
    torch.manual_seed(3)
    return Reader(MODULES[request.param]()).eval()


def test_inputs_of_low_rank_are_mapped_without_loss(reader):
    batches = of_rank(2)
    names = [
        name
        for name in ctrlab.spectra(reader, batches)
        if name.endswith(("in_proj_q", "in_proj_k", "ih_l0", "self_attn.in_proj_v"))
    ]
    assert names
    first = [name for name in names if ".1." not in name]
    result = ctrlab.compress(reader, batches, ranks=dict.fromkeys(first, 2))
    assert set(result.plan.as_dict()) == set(first)
    torch.testing.assert_close(result.model(batches[0]), reader(batches[0]), atol=1e-4, rtol=1e-4)
    assert sum(p.numel() for p in result.model.parameters()) < sum(p.numel() for p in reader.parameters())


def test_spectra_leave_the_module_as_it_was(reader):
    before, modules = copy.deepcopy(reader.state_dict()), list(reader.modules())
    reader.train()
    ctrlab.spectra(reader, of_rank(3))
    assert [id(module) for module in reader.modules()] == [id(module) for module in modules]
    assert all(module.training for module in reader.modules())
    assert_same(list(reader.state_dict().values()), list(before.values()))


def test_every_map_is_reached_and_trains(reader):
    batches = of_rank(4)
    spectra = ctrlab.spectra(reader, batches)
    result = ctrlab.compress(reader, batches, spectra=spectra, ranks=dict.fromkeys(spectra, 1))
    assert set(result.plan.as_dict()) == set(spectra)
    result.model.train()(batches[0]).sum().backward()
    assert all(parameter.grad is not None for parameter in result.model.parameters())


def test_what_is_not_compressed_keeps_torchs_form():
    torch.manual_seed(3)
    model = nn.ModuleDict({"gru": nn.GRU(E, E, batch_first=True), "lstm": nn.LSTM(E, E, batch_first=True)})

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = model

        def forward(self, x):
            return self.parts["lstm"](self.parts["gru"](x)[0])[0]

    result = ctrlab.compress(Both().eval(), of_rank(3), ranks={"parts.gru.hh_l0": 2})
    assert isinstance(result.model.parts["gru"], UnfusedRecurrent)
    assert isinstance(result.model.parts["lstm"], nn.LSTM)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.LSTM(E, E, proj_size=3), "an LSTM that projects its state"),
        (nn.utils.parametrizations.weight_norm(nn.GRU(E, E), "weight_hh_l0"), "its weights are parametrized"),
        (nn.GRUCell(E, E), "a recurrent cell"),
    ],
)
def test_what_stays_closed_says_why(module, reason):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.part, self.mix = module, nn.Linear(E, E)

        def forward(self, x):
            return self.mix(x)

    assert reason in ctrlab.compress(Holder(), of_rank(3), variance=0.9).skipped["part"]


def test_a_compressed_module_is_restored_without_the_original(reader, tmp_path):
    batches = of_rank(4)
    spectra = ctrlab.spectra(reader, batches)
    chosen = {name: 2 for number, name in enumerate(spectra) if number % 2 == 0}
    result = ctrlab.compress(reader, batches, spectra=spectra, ranks=chosen, bottleneck="prelu")
    weights, description = result.save(tmp_path / "small.safetensors")
    blank = copy.deepcopy(reader)
    for parameter in blank.parameters():
        nn.init.zeros_(parameter)
    restored = ctrlab.restore(blank, weights).eval()
    torch.testing.assert_close(restored(batches[0]), result.model.eval()(batches[0]), atol=0, rtol=0)
    assert description.name == "small.json"
    assert all(not parameter.any() for parameter in blank.parameters())


def test_files_that_do_not_fit_are_refused_in_a_sentence(tmp_path):
    model = nn.Sequential(nn.Linear(E, 16), nn.ReLU(), nn.Linear(16, E))
    path, description = ctrlab.compress(model, of_rank(3), ranks={"0": 2}).save(tmp_path / "small.safetensors")
    with pytest.raises(CompressionError, match="has a layer 0, this module has not; give the architecture it was made of"):
        ctrlab.restore(nn.ModuleDict({"other": nn.Linear(E, 2)}), path)
    with pytest.raises(CompressionError, match="cannot be loaded into this module"):
        ctrlab.restore(nn.Sequential(nn.Linear(E, 20), nn.ReLU(), nn.Linear(20, E)), path)
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(CompressionError, match="cannot be loaded into this module"):
        ctrlab.restore(model, path)
    description.write_text('{"ranks": 3}')
    with pytest.raises(CompressionError, match="does not describe a compressed module"):
        ctrlab.restore(model, path)

"""engines/optim.py and fast/adam.py against torch's own optimizers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ctrlab.engines.fast.adam import CompiledLazyAdam
from ctrlab.engines.fast.engine import FastEngine
from ctrlab.engines.optim import AdamSettings, LazyAdam, clip_gradients_, table_parameters
from ctrlab.engines.plain import TorchEngine
from ctrlab.engines.settings import EngineSettings
from ctrlab.models.layers import LookupTable
from tests.support.engines import twin
from tests.support.small_models import make_model, random_fields


@pytest.fixture
def engine():
    """Makes engines, which are closed at the end."""
    made = []

    def make(model, *, plain=False, **settings):
        made.append((TorchEngine if plain else FastEngine)(model, EngineSettings(adam=AdamSettings(**settings))))
        return made[-1]

    yield make
    for each in made:
        each.close()


def train(engine, steps, seed=0):
    for step in range(steps):
        engine.zero_grad()
        engine.logits(random_fields(16, seed=seed + step)).square().mean().backward()
        engine.step()


def sparse(table):
    """A table whose gradient is one of the batch's rows."""
    return twin(table, sparse=True)


@pytest.mark.parametrize("own_class", [LazyAdam, CompiledLazyAdam])
def test_lazy_adam_equals_torchs_sparse_adam(own_class):
    torch.manual_seed(0)
    mine, theirs = LookupTable(20, 3), nn.Embedding(20, 3, sparse=True)
    theirs.weight.data.copy_(mine.weight.data)
    ours, oracle = own_class([mine.weight], lr=0.01), torch.optim.SparseAdam(theirs.parameters(), lr=0.01)
    for _ in range(8):
        ids, upstream = torch.randint(0, 20, (9,)), torch.randn(9, 3)
        for table, optimizer in ((sparse(mine), ours), (theirs, oracle)):
            optimizer.zero_grad()
            table(ids).backward(upstream)
        mine.weight.grad = mine.weight.grad.coalesce()
        ours.step()
        oracle.step()
    torch.testing.assert_close(mine.weight, theirs.weight, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("own_class", [LazyAdam, CompiledLazyAdam])
def test_lazy_adam_moves_only_the_rows_of_the_batch_and_their_moments(own_class):
    table = LookupTable(10, 4)
    optimizer = own_class([table.weight], lr=0.1, l2=0.5)
    before = table.weight.detach().clone()
    sparse(table)(torch.tensor([2, 7, 2])).sum().backward()
    table.weight.grad = table.weight.grad.coalesce()
    optimizer.step()
    moved = (table.weight.detach() != before).any(dim=1)
    assert moved.nonzero().flatten().tolist() == [2, 7]
    for moment in ("exp_avg", "exp_avg_sq"):
        touched = optimizer.state[table.weight][moment].any(dim=1)
        assert touched.nonzero().flatten().tolist() == [2, 7]


def test_where_every_row_is_in_every_batch_lazy_and_dense_adam_agree(engine):
    """With L2 too: then all rows are the batch's rows."""
    results = []
    for name in ("lazy_adam", "adam"):
        torch.manual_seed(0)
        model = nn.Sequential(LookupTable(6, 2, init_std=1.0))
        optimizer = engine(model, optimizer=name, learning_rate=0.05, l2_embedding=0.1)
        for step in range(10):
            optimizer.zero_grad()
            (optimizer.logits(torch.arange(6)) * (step - 4)).square().sum().backward()
            optimizer.step()
        results.append(model[0].weight.detach())
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("plain", [False, True])
def test_dense_adam_with_l2_equals_torchs_adam_with_weight_decay(engine, plain):
    model, reference = make_model("deepfm"), make_model("deepfm")
    tables = {name for name, _ in reference.named_parameters() if name.endswith("table.weight")}
    oracle = torch.optim.Adam(
        [
            {"params": [p for n, p in reference.named_parameters() if (n in tables) == of_tables], "weight_decay": decay}
            for of_tables, decay in ((True, 0.2), (False, 0.1))
        ],
        lr=0.01,
    )
    optimizer = engine(model, plain=plain, learning_rate=0.01, l2_embedding=0.2, l2_dense=0.1)
    for step in range(4):
        fields = random_fields(16, seed=step)
        optimizer.zero_grad()
        optimizer.logits(fields).square().mean().backward()
        optimizer.step()
        oracle.zero_grad()
        reference.train()(fields).square().mean().backward()
        oracle.step()
    for (name, mine), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4, msg=name)


def test_only_l2_over_whole_tables_needs_dense_gradients(engine):
    for name, l2, by_rows in (("adam", 0.1, False), ("adam", 0.0, True), ("lazy_adam", 0.1, True)):
        model = make_model("deepfm")
        engine(model, optimizer=name, l2_embedding=l2).logits(random_fields(4)).sum().backward()
        assert model.embedding.categorical.table.weight.grad.is_sparse == by_rows


def test_dense_adam_moves_rows_that_are_not_in_the_batch(engine):
    model = make_model("deepfm")
    before = model.embedding.categorical.table.weight.detach().clone()
    train(engine(model, l2_embedding=0.1), 1)
    assert (model.embedding.categorical.table.weight != before).any(dim=1).all()


@settings(deadline=None, max_examples=30)
@given(
    width=st.sampled_from([1, 2, 8, 11, 16]),
    scale=st.sampled_from([1e-1, 1e-6, 1e-9]),
    steps=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_dense_adam_by_rows_equals_torchs_adam_over_the_whole_table(width, scale, steps, seed):
    """With a step size that changes, gradients as small as epsilon, and rows that are seen once or never."""
    torch.manual_seed(seed)
    model, reference = nn.Sequential(LookupTable(50, width)), nn.Embedding(50, width).double()
    reference.weight.data.copy_(model[0].weight.data)
    optimizer = FastEngine(model, EngineSettings())
    oracle = torch.optim.Adam(reference.parameters())
    for step in range(steps):
        rate = 0.01 / (1 + step // 20)
        optimizer.set_learning_rate(rate)
        oracle.param_groups[0]["lr"] = rate
        ids, upstream = (torch.rand(8) ** 3 * 50).long(), torch.randn(8, width) * scale
        optimizer.zero_grad()
        read = optimizer.logits(ids)
        torch.testing.assert_close(read, reference(ids).float(), atol=1e-6, rtol=1e-4)  # up to date when it is read
        read.backward(upstream)
        optimizer.step()
        oracle.zero_grad()
        reference(ids).backward(upstream.double())
        oracle.step()
    optimizer.settle()
    optimizer.close()
    torch.testing.assert_close(model[0].weight, reference.weight.float(), atol=1e-6, rtol=1e-4)


def test_momentum_that_has_decayed_is_left_out_without_a_trace(engine):
    model, reference = nn.Sequential(LookupTable(2, 12)), nn.Embedding(2, 12).double()
    reference.weight.data.copy_(model[0].weight.data)
    optimizer = engine(model, learning_rate=0.01)
    oracle = torch.optim.Adam(reference.parameters(), lr=0.01)
    for step in range(400):
        row = torch.tensor([0 if step == 0 else 1])
        optimizer.zero_grad()
        optimizer.logits(row).sum().backward()
        optimizer.step()
        oracle.zero_grad()
        reference(row).sum().backward()
        oracle.step()
    optimizer.settle()
    torch.testing.assert_close(model[0].weight, reference.weight.float(), atol=2e-6, rtol=1e-5)


def test_clipping_counts_dense_and_sparse_gradients_together():
    table, dense = LookupTable(5, 1), nn.Parameter(torch.zeros(2))
    sparse(table)(torch.tensor([1, 3])).backward(torch.tensor([[3.0], [0.0]]))
    table.weight.grad = table.weight.grad.coalesce()
    dense.grad = torch.tensor([0.0, 4.0])
    clip_gradients_([table.weight, dense], 10.0)
    assert dense.grad.tolist() == [0, 4]  # a norm of 5 is below 10
    clip_gradients_([table.weight, dense], 1.0)
    assert dense.grad[1].item() == pytest.approx(0.8, rel=1e-5)
    assert table.weight.grad.to_dense()[1].item() == pytest.approx(0.6, rel=1e-5)


@pytest.mark.parametrize(("name", "l2"), [("lazy_adam", 0.01), ("adam", 0.01), ("adam", 0.0)])
def test_restored_state_goes_on_bit_for_bit(engine, name, l2):
    whole, first = make_model("dcn"), make_model("dcn")
    settings = {"optimizer": name, "learning_rate": 0.01, "l2_embedding": l2}
    train(engine(whole, **settings), 5)
    optimizer = engine(first, **settings)
    train(optimizer, 2)
    second = make_model("dcn")
    second.load_state_dict(first.state_dict())
    resumed = engine(second, **settings)
    resumed.load_state_tensors({key: value.clone() for key, value in optimizer.state_tensors().items()})
    train(resumed, 3, seed=2)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def test_frozen_parameters_stay_and_shared_tables_count_once(engine):
    model = make_model("deepfm")
    model.embedding.numeric.requires_grad_(False)
    model.linear.categorical.table.weight.requires_grad_(False)
    assert [id(weight) for weight in table_parameters(model)] == [id(model.embedding.categorical.table.weight)]
    shared = nn.ModuleList([LookupTable(4, 2), LookupTable(4, 2)])
    shared[1].weight = shared[0].weight
    assert len(table_parameters(shared)) == 1
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train(engine(model, clip_norm=10.0), 2)
    for frozen in ("embedding.numeric", "linear.categorical.table.weight"):
        assert torch.equal(model.state_dict()[frozen], before[frozen])
    assert not torch.equal(model.state_dict()["mlp.0.weight"], before["mlp.0.weight"])

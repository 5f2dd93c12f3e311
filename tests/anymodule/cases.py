"""Modules that people really write: one function a case, which returns a module and calibration batches.

Where weights are said to have rank 4, nothing is lost at rank 4 by right mathematics: any difference between the module and its
compressed copy is a fault. "Equal" means max |a - b| <= 1e-4 max |a| on a batch, in evaluation mode.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

Case = tuple[nn.Module, Iterable[Any]]


def scores_by_its_table() -> Case:
    """The table is looked up, and its transposed weight makes the scores of all items, as in SASRec. Use `ranks={"emb": 4}`.

    A person expects: the table is left alone, with the reason (its weight is used elsewhere too) in `result.skipped`; or it is
    compressed and `result.model(batch)` returns (128, 200) scores equal to the module's. Never a model that cannot run, and never
    files of one.
    """

    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.emb = nn.Embedding(200, 16)
            self.fc = nn.Linear(16, 16)

        def forward(self, ids: Tensor) -> Tensor:
            return self.fc(self.emb(ids).mean(1)) @ self.emb.weight.T

    torch.manual_seed(0)
    model = Scores()
    _lower_rank_(model.emb.weight, 4)
    return model, _ids()


def reads_the_dtype_of_a_weight() -> Case:
    """`forward` casts its input to `self.a.weight.dtype`. Use `ranks={"a": 4}`.

    A person expects: `result.model(batch)` runs and equals the module's, or `a` is in `result.skipped` with the reason.
    """

    class Casts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = _linear_of_rank_4(32, 64)
            self.b = nn.Linear(64, 32)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.relu(self.a(x.to(self.a.weight.dtype))))

    torch.manual_seed(0)
    return Casts(), _numbers()


def reads_the_norm_of_a_weight() -> Case:
    """`forward` divides by the norm of a layer's weight. Use `ranks={"a": 4}`.

    A person expects: `result.model(batch)` runs and equals the module's, or `a` is in `result.skipped` with the reason.
    """

    class Normalises(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = _linear_of_rank_4(32, 64)
            self.b = nn.Linear(64, 32)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.relu(self.a(x)) / self.a.weight.norm())

    torch.manual_seed(0)
    return Normalises(), _numbers()


def forward_hook_that_scales() -> Case:
    """A forward hook on layer `0` multiplies its output by 3. Use `ranks={"0": 4}`.

    A person expects: the hook works on the compressed layer too, so `result.model(batch)` equals the module's (the weights have
    rank 4); or `0` is in `result.skipped` with the reason. The module itself keeps its hook.
    """
    torch.manual_seed(0)
    model = nn.Sequential(_linear_of_rank_4(32, 64), nn.ReLU(), nn.Linear(64, 32))
    model[0].register_forward_hook(lambda module, inputs, output: output * 3.0)
    return model, _numbers()


def forward_pre_hook_that_scales() -> Case:
    """A forward pre-hook on layer `0` multiplies its input by 3. Use `ranks={"0": 4}`.

    A person expects the same as for a forward hook.
    """
    torch.manual_seed(0)
    model = nn.Sequential(_linear_of_rank_4(32, 64), nn.ReLU(), nn.Linear(64, 32))
    model[0].register_forward_pre_hook(lambda module, inputs: (inputs[0] * 3.0,))
    return model, _numbers()


def keeps_its_auxiliary_loss() -> Case:
    """A module that was trained keeps `self.aux_loss`, a tensor with a graph behind it. Use `ranks={"a": 4}`.

    A person expects: it is compressed like any other, and `result.model(batch)` equals the module's.
    """

    class Regularised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = _linear_of_rank_4(32, 64)
            self.b = nn.Linear(64, 32)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.relu(self.a(x))
            if self.training:
                self.aux_loss = hidden.pow(2).mean()
            return self.b(hidden)

    torch.manual_seed(0)
    model, batches = Regularised(), _numbers()
    (model(batches[0]).sum() + model.aux_loss).backward()
    return model, batches


def lazy_layer_that_never_ran() -> Case:
    """`nn.LazyLinear` without weights yet. Use `variance=0.8`.

    A person expects: `result.skipped["0"] == "it has no weights yet"` (the reason is written already and never reached), or one
    sentence that says to run the module once. The layers beside it are compressed.
    """
    torch.manual_seed(0)
    return nn.Sequential(nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, 32)), _numbers()


def layers_called_by_keyword() -> Case:
    """`self.e(input=ids)` and `self.f(input=vectors)`. Use `ranks={"f": 4}`; then `ranks={"e": 4}`, which works already.

    A person expects: both are compressed, and `result.model(batch)` equals the module's.
    """

    class ByKeyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.e = nn.Embedding(200, 16)
            self.f = _linear_of_rank_4(16, 32)

        def forward(self, ids: Tensor) -> Tensor:
            return self.f(input=self.e(input=ids)).mean(1)

    torch.manual_seed(0)
    model = ByKeyword()
    _lower_rank_(model.e.weight, 4)
    return model, _ids()


def bag_called_with_none_by_position() -> Case:
    """`self.b(ids, None, None)`: no offsets, no weights. Use `ranks={"b": 4}`.

    A person expects: the bag is compressed (None is no weighting), and `result.model(batch)` equals the module's.
    """

    class ByPosition(_Bag):
        def forward(self, ids: Tensor) -> Tensor:
            return self.f(self.b(ids, None, None))

    torch.manual_seed(0)
    return ByPosition(), _ids()


def bag_called_with_none_by_keyword() -> Case:
    """`self.b(input=ids, offsets=None, per_sample_weights=None)`. Use `ranks={"b": 4}`.

    A person expects the same as by position.
    """

    class ByKeyword(_Bag):
        def forward(self, ids: Tensor) -> Tensor:
            return self.f(self.b(input=ids, offsets=None, per_sample_weights=None))

    torch.manual_seed(0)
    return ByKeyword(), _ids()


def three_calibration_rows() -> Case:
    """One batch of 3 rows for layers of 64 outputs. Use `variance=0.95`, and look at the error on `other_rows()`.

    A person expects: a warning, or an error, that says how many rows there were and how many outputs the widest layer has.
    Never rank 2 everywhere and not a word: three rows span two directions, whatever the layer does.
    """
    torch.manual_seed(0)
    return _mlp(32, 64, 64, 32), [_numbers()[0][:3]]


def one_calibration_row() -> Case:
    """One row. Use `variance=0.95`. A person expects the same as for three."""
    torch.manual_seed(0)
    return _mlp(32, 64, 64, 32), [_numbers()[0][:1]]


def other_rows() -> Tensor:
    """1,024 rows of the same kind as the calibration rows of the two cases above."""
    return torch.cat(_numbers(4))


def convolution_of_one() -> Case:
    """A `Conv1d` of kernel 1 before a linear layer. Use `variance=0.9`.

    A person expects: `result.skipped` names the layer `c` and says that it is a convolution.
    """

    class Convolves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c = nn.Conv1d(32, 64, 1)
            self.l = nn.Linear(64, 32)

        def forward(self, x: Tensor) -> Tensor:
            return self.l(self.c(x.unsqueeze(-1)).squeeze(-1))

    torch.manual_seed(0)
    return Convolves(), _numbers()


def scripted() -> Case:
    """A TorchScript module. Use `variance=0.8`.

    A person expects: one sentence, or a reason in `result.skipped`, that says TorchScript and to use the module as it was before scripting.
    """
    torch.manual_seed(0)
    return torch.jit.script(_mlp(32, 64, 32)), _numbers()


def traced() -> Case:
    """A traced module. Use `variance=0.8`. A person expects the same as for a scripted one."""
    torch.manual_seed(0)
    batches = _numbers()
    return torch.jit.trace(_mlp(32, 64, 32), batches[0]), batches


def loader_with_labels() -> Case:
    """A `DataLoader` that yields [rows, labels], as training loaders do, for a module of one argument. Use `variance=0.9`.

    A person expects: one sentence (a CtrlabError) that says what a batch was (2 parts), what `forward` takes (1 argument), and
    what batches must be; on the command line that sentence and exit 1.
    """
    torch.manual_seed(0)
    rows = torch.cat(_numbers())
    return _mlp(32, 64, 32), DataLoader(TensorDataset(rows, torch.zeros(len(rows))), batch_size=128)


def tuples_with_labels() -> Case:
    """The same with tuples (rows, labels)."""
    torch.manual_seed(0)
    return _mlp(32, 64, 32), [(rows, torch.ones(len(rows))) for rows in _numbers()]


def dictionaries_with_labels() -> Case:
    """Batches {"x": rows, "label": labels} for a `forward(x, mask=None)`. Use `variance=0.8`.

    A person expects: one sentence that names the key `label`, and the arguments that `forward` takes.
    """

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(32, 64)

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return self.a(x)

    torch.manual_seed(0)
    return Masked(), [{"x": rows, "label": rows[:, 0]} for rows in _numbers()]


class _Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.b = nn.EmbeddingBag(200, 16, mode="sum")
        self.f = nn.Linear(16, 32)
        _lower_rank_(self.b.weight, 4)


def _numbers(seed: int = 1) -> list[Tensor]:
    """Four batches (256, 32)."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    return [torch.randn(256, 32, generator=generator) @ mixing for _ in range(4)]


def _ids() -> list[Tensor]:
    """Four batches (128, 5) of ids below 200."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 200, (128, 5), generator=generator) for _ in range(4)]


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inside, outside in pairwise(widths):
        layers += [nn.Linear(inside, outside), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _linear_of_rank_4(inside: int, outside: int) -> nn.Linear:
    layer = nn.Linear(inside, outside)
    _lower_rank_(layer.weight, 4)
    return layer


@torch.no_grad()
def _lower_rank_(weight: Tensor, rank: int) -> None:
    """Make `weight` a product of two factors with `rank` directions."""
    rows, columns = weight.shape
    weight.copy_(torch.randn(rows, rank) @ torch.randn(rank, columns) * 0.2)

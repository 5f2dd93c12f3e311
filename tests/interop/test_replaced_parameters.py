"""Which new parameters replace which old ones, for optimizers and regularizers; needs neither framework."""

import copy

import pytest
import torch
from torch import nn

from ctrlab.errors import CompressionError
from ctrlab.interop.replaced_parameters import check_methods, detached_attributes, optimizer_for, replaced_parameters


def pair():
    """A model and a copy in which the first layer is two factors."""
    before = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1))
    after = copy.deepcopy(before)
    after[0] = nn.Sequential(nn.Linear(6, 2, bias=False), nn.Linear(2, 4))
    return before, after


def ids(parameters):
    return [id(parameter) for parameter in parameters]


def test_parameters_of_a_replaced_layer_map_to_all_of_the_new_layers_and_others_to_their_copies():
    before, after = pair()
    replaced = replaced_parameters(before, after)
    assert ids(replaced[id(before[0].weight)]) == ids(after[0].parameters())
    assert ids(replaced[id(before[0].bias)]) == ids(after[0].parameters())
    assert ids(replaced[id(before[2].weight)]) == [id(after[2].weight)]


def test_a_shared_layers_new_parameters_are_listed_once():
    shared = nn.Linear(3, 3)
    before = nn.ModuleDict({"a": shared, "b": shared})
    after = copy.deepcopy(before)
    after["a"] = after["b"] = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 3))
    assert ids(replaced_parameters(before, after)[id(shared.weight)]) == ids(after["a"].parameters())


def test_the_new_optimizer_holds_every_new_weight_once_in_the_group_of_the_old_with_its_settings():
    before, after = pair()
    groups = [{"params": before[0].parameters(), "lr": 0.5}, {"params": before[2].parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.3)
    new = optimizer_for(optimizer, replaced_parameters(before, after))
    assert type(new) is torch.optim.AdamW
    assert [ids(group["params"]) for group in new.param_groups] == [ids(after[0].parameters()), ids(after[2].parameters())]
    assert [group["lr"] for group in new.param_groups] == [0.5, 0.1]
    assert all(group["weight_decay"] == 0.3 for group in new.param_groups)


@pytest.mark.parametrize(
    "make", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad, torch.optim.RMSprop, torch.optim.Adamax]
)
def test_a_step_of_the_new_optimizer_moves_the_copy_and_not_the_original(make):
    before, after = pair()
    kept = copy.deepcopy(before.state_dict())
    optimizer = optimizer_for(make(before.parameters(), lr=0.1), replaced_parameters(before, after))
    start = [parameter.detach().clone() for parameter in after.parameters()]
    after(torch.randn(32, 6)).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(now, then) for now, then in zip(after.parameters(), start, strict=True))
    assert all(torch.equal(now, kept[name]) for name, now in before.state_dict().items())


def test_detached_attributes_come_back_also_after_an_error():
    model = nn.Linear(2, 2)
    model.optimizer = "theirs"
    with pytest.raises(ValueError, match="stop"), detached_attributes(model, ["optimizer", "never_there"]):
        assert not hasattr(model, "optimizer")
        raise ValueError("stop")
    assert model.optimizer == "theirs" and not hasattr(model, "never_there")


def test_a_module_of_no_framework_is_refused_with_what_to_do():
    with pytest.raises(CompressionError, match=r"Linear is not a FuxiCTR model.*evaluate.*ctrlab\.compress takes any module"):
        check_methods(nn.Linear(1, 1), "FuxiCTR", ("evaluate", "forward"))

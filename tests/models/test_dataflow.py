"""What reads what, against the papers' figures."""

import pytest

from ctrlab.models.configs import MODELS
from ctrlab.models.dataflow import FIELDS, LOGIT, blocks_of, trace
from tests.support.small_models import make_model

#: {model: {block: what it reads}}, as the papers draw them.
FLOWS = {
    "deepfm": {
        "linear": {FIELDS}, "embedding": {FIELDS}, "fm": {"embedding"}, "mlp": {"embedding"}, LOGIT: {"linear", "fm", "mlp"},
    },
    "fibinet": {
        "linear": {FIELDS}, "embedding": {FIELDS}, "interaction": {"embedding"}, "mlp": {"interaction"}, LOGIT: {"linear", "mlp"},
    },
    "nfm": {"linear": {FIELDS}, "embedding": {FIELDS}, "pooling": {"embedding"}, "mlp": {"pooling"}, LOGIT: {"linear", "mlp"}},
}  # fmt: skip


@pytest.mark.parametrize("name", FLOWS)
def test_the_flow_is_the_papers(name):
    assert {block: set(sources) for block, sources in trace(make_model(name)).sources.items()} == FLOWS[name]


@pytest.mark.parametrize("name", MODELS.names())
def test_every_block_that_runs_leads_from_the_fields_to_the_logit(name):
    flow = trace(make_model(name)).sources
    reached, waiting = set(), [LOGIT]
    while waiting:
        block = waiting.pop()
        if block not in reached and block != FIELDS:
            reached.add(block)
            waiting += flow[block]
    assert reached == set(flow)
    assert any(FIELDS in sources for sources in flow.values())


@pytest.mark.parametrize("name", MODELS.names())
def test_tracing_leaves_mode_hooks_and_gradients_as_they_were(name):
    model = make_model(name).train()
    trace(model)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert set(blocks_of(model)) >= set(trace(model).sources) - {LOGIT}

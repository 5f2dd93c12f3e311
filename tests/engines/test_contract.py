"""Every architecture through both engines: the same numbers as the class's own forward, from any number of threads."""

import sys
import threading

import numpy as np
import pytest
import torch

from ctrlab.compression.fold import fold
from ctrlab.compression.quantize import quantize
from ctrlab.engines.choose import predictor_of
from ctrlab.engines.fast.context import is_hooked
from ctrlab.engines.fast.engine import FastEngine
from ctrlab.engines.plain import TorchEngine
from ctrlab.evaluation.prediction import predict_logits
from ctrlab.models.configs import MODELS
from ctrlab.training.configs import FitConfig
from ctrlab.training.loop import fit
from tests.support.engines import twin
from tests.support.small_models import MemoryDataset, make_model, random_fields

ALL = sorted(entry.name for entry in MODELS)


def step(model, fields, run):
    """The logits and every parameter's gradient."""
    model.zero_grad()
    torch.manual_seed(1)
    logits = run(fields)
    logits.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {"logits": logits.detach()} | {name: gradient.to_dense().clone() for name, gradient in gradients.items()}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    greatest = max(float(theirs.abs().max()) for theirs in expected.values() if theirs.numel())
    for name, theirs in expected.items():
        # A gradient that batch normalisation makes 0 is mere rounding: it is compared with the others.
        scale = max(0.01 * greatest, float(theirs.abs().max())) if theirs.numel() else 1.0
        torch.testing.assert_close(found[name] / scale, theirs / scale, atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_logits_and_gradients_of_the_twin_are_the_models(name, sparse):
    model, fields = make_model(name).train(), random_fields(60)
    assert_close(step(model, fields, twin(model, sparse=sparse)), step(model, fields, model))


@pytest.mark.parametrize("name", ALL)
def test_a_quantised_model_is_predicted_as_its_own_forward_does(name):
    """Its tables and layers are no longer those that the twin's classes stand for; every other architecture is folded first."""
    form = make_model(name).eval()
    model, fields = quantize(fold(form) if ALL.index(name) % 2 else form, "int8"), random_fields(60)
    with torch.no_grad():
        torch.testing.assert_close(predictor_of(model)(fields), model(fields), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_both_engines_train_to_the_same_model(name):
    data, config = MemoryDataset(num_train=300), FitConfig(epochs=1, batch_size=100, learning_rate=1e-3)
    fast, plain = (fit(make_model(name), data, config, engine=engine) for engine in (FastEngine, TorchEngine))
    found, expected = (predict_logits(result.model, data.split("valid")) for result in (fast, plain))
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert fast.best_step == plain.best_step


@pytest.mark.parametrize("name", ["deepfm", "fm", "nfm", "afn", "fibinet", "pnn", "dcn"])
def test_a_hook_in_a_fit_gets_the_whole_gradient_of_the_vectors(name):
    """Whoever asks for it gets it: a model with hooks runs layer by layer, on plain tensors."""
    gradients = {}
    for engine in (FastEngine, TorchEngine):
        seen = []

        def keep(module, inputs, output, seen=seen):
            if output.requires_grad:  # a training step, not an evaluation
                output.retain_grad()
                seen.append(output)

        model = make_model(name)
        model.embedding.register_forward_hook(keep)
        fit(model, MemoryDataset(num_train=100), FitConfig(epochs=1, batch_size=100, evaluations_per_epoch=1), engine=engine)
        gradients[engine] = seen[0].grad
    torch.testing.assert_close(*gradients.values(), atol=1e-7, rtol=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_preparing_and_running_leaves_the_model_as_it_was(name):
    model, fields = make_model(name).train(), random_fields(20)
    modules = [(module, type(module), module.training, dict(vars(module))) for module in model.modules()]
    with torch.no_grad():
        predictor_of(model)(fields)
    for module, own_class, training, state in modules:
        assert (type(module), module.training) == (own_class, training)
        assert vars(module).keys() == state.keys() and not is_hooked(module)


@pytest.mark.parametrize(("name", "times"), [("deepfm", 250), ("afn_plus", 25), ("fibinet", 25)])
def test_eight_threads_that_predict_with_one_model_get_the_logits_of_one(name, times):
    """The main path 2,000 times; the same with two fused layers that keep more between their operations."""
    model, split = make_model(name), MemoryDataset(num_train=10, num_valid=40).split("valid")
    model.train()
    alone = predict_logits(model, split)
    wrong, interval = [], sys.getswitchinterval()

    def predict():
        for _ in range(times):
            if not np.array_equal(predict_logits(model, split), alone):
                wrong.append(1)

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=predict) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong and model.training

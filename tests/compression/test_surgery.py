import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlab.compression.embedding import FactoredEmbedding
from ctrlab.compression.fold import fold
from ctrlab.compression.linear import FactoredLinear
from ctrlab.compression.surgery import compress_model
from ctrlab.data.schema import FeatureSchema
from ctrlab.decomposition.collect import look_up_counts
from ctrlab.errors import CompressionError
from ctrlab.models.checkpoint import load_model, save_model
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressionSpec, RankPlan
from ctrlab.plans.methods import METHODS
from tests.support.small_models import (
    ARCHITECTURES,
    SCHEMA,
    MemoryDataset,
    logits,
    make_model,
    perturb_,
    random_fields,
    spectra_of,
)

PLAN = RankPlan.of({"embedding.site": 2, "embedding.ad": 3, "mlp.0": 6, "mlp.2": 4})


def _full_rank(model):
    return RankPlan.of({layer.layer_name: layer.out_features for layer in profile_model(model).compressible})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("bottleneck", ["none", "prelu"])
def test_full_rank_is_the_identity(architecture, bottleneck):
    model, fields = make_model(architecture, batch_norm=True), random_fields(1000)
    result = compress_model(
        model, CompressionSpec(plan=_full_rank(model), bottleneck=bottleneck), spectra_of(model), respect_break_even=False
    )
    assert len(result.plan) == 5 and all(row.rank for row in result.rows)
    torch.testing.assert_close(logits(result.model, fields), logits(model, fields), rtol=1e-5, atol=1e-5)


@given(
    st.sampled_from(ARCHITECTURES), st.lists(st.integers(3, 60), min_size=1, max_size=5), st.integers(0, 3), st.integers(2, 9),
    st.lists(st.integers(2, 20), max_size=2), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_full_rank_is_the_identity_for_any_shape(architecture, field_dims, num_values, embed_dim, mlp_dims, seed):
    schema = FeatureSchema(
        field_names=tuple(f"f{i}" for i in range(len(field_dims))), field_dims=tuple(field_dims),
        value_names=tuple(f"v{i}" for i in range(num_values)),
    )  # fmt: skip
    model = make_model(architecture, seed, schema, embed_dim=embed_dim, mlp_dims=tuple(mlp_dims))
    data = MemoryDataset(schema, num_train=60, seed=seed)
    result = compress_model(model, CompressionSpec(plan=_full_rank(model)), spectra_of(model, data), respect_break_even=False)
    expected, fields = logits(model, data.fields()), data.fields()
    torch.testing.assert_close(logits(result.model, fields), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits(fold(result.model), fields), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_the_compressed_layers_error_is_the_sum_of_the_discarded_eigenvalues(offset):
    model, data = make_model("dcn", mlp_dims=(48, 40)).double(), MemoryDataset()
    with torch.no_grad():
        model.mlp[0].bias += offset  # mean / std of the outputs
    for part in data.parts.values():
        object.__setattr__(part, "values", part.values.astype(np.float64))
    spectra = spectra_of(model, data)
    compressed = compress_model(model, CompressionSpec.of({"mlp.0": 5, "embedding.ad": 3}), spectra).model
    with torch.no_grad():
        e = model.embedding(data.fields())
        error = (compressed.mlp[0](e.flatten(1)) - model.mlp[0](e.flatten(1))).square().sum(1).mean()
        table_error = (compressed.embedding(data.fields())[:, 2] - e[:, 2]).square().sum(1).mean()
    assert spectra["mlp.0"].discarded(5) == pytest.approx(float(error), rel=1e-6)
    assert spectra["embedding.ad"].discarded(3) == pytest.approx(float(table_error), rel=1e-6)


@pytest.mark.parametrize("method", METHODS.names())
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_method_builds_what_the_plan_says_and_leaves_the_original_alone(method, architecture):
    model, fields = make_model(architecture), random_fields(200)
    before, expected = {name: t.clone() for name, t in model.state_dict().items()}, logits(model, fields)
    random = torch.get_rng_state()
    spectra, counts = spectra_of(model, loss_gradients=True), look_up_counts(model, MemoryDataset())
    first = compress_model(model, CompressionSpec(plan=PLAN, method=method), spectra, counts=counts)
    second = compress_model(model, CompressionSpec(plan=PLAN, method=method), spectra, counts=counts)
    assert torch.equal(torch.get_rng_state(), random)
    assert first.plan == PLAN and isinstance(first.model.mlp[0], FactoredLinear) and first.model.mlp[0].rank == 6
    assert isinstance(first.model.embedding, FactoredEmbedding) and first.model.embedding.ranks == (2, None, 3)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))
    perturb_(first.model, 1.0)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert torch.equal(logits(model, fields), expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_svd_of_the_weights_at_full_rank_is_the_identity_too(architecture):
    model, fields = make_model(architecture), random_fields(200)
    result = compress_model(model, CompressionSpec(plan=_full_rank(model), method="svd"), respect_break_even=False)
    torch.testing.assert_close(logits(result.model, fields), logits(model, fields), rtol=1e-5, atol=1e-5)


def test_afm_serves_frequent_ids_better_than_svd_of_the_table():
    model, data = make_model("deepfm"), MemoryDataset()
    errors = {}
    for method in ("afm", "svd"):
        compressed = compress_model(model, CompressionSpec.of({"embedding.ad": 2}, method=method), spectra_of(model, data)).model
        with torch.no_grad():
            errors[method] = float((compressed.embedding(data.fields()) - model.embedding(data.fields())).square().sum())
    assert errors["afm"] < errors["svd"]


def test_ids_that_training_never_saw_are_projected_and_not_dropped():
    model, data = make_model("deepfm"), MemoryDataset()
    unseen = int(np.flatnonzero(data.counts(2) == 0)[0])
    spectra = spectra_of(model, data)
    compressed = compress_model(model, CompressionSpec.of({"embedding.ad": 3}), spectra).model
    basis, mean = spectra["embedding.ad"].eigenvectors[:, :3], spectra["embedding.ad"].mean
    row = model.embedding.categorical.table.weight[model.embedding.categorical.rows_of(2)][unseen].detach().double().numpy()
    fields = random_fields(1)
    fields.ids[0, 2] = unseen
    with torch.no_grad():
        served = compressed.embedding(fields)[0, 2].numpy()
    np.testing.assert_allclose(served, mean + basis @ basis.T @ (row - mean), atol=1e-6)


def test_prelu_slopes_belong_to_the_directions_of_the_bottleneck():
    layer = FactoredLinear(5, 3, 4, "prelu")
    with torch.no_grad():
        layer.activation.weight.copy_(torch.tensor([0.0, 0.5, 2.0]))
    x = torch.randn(2, 3, 5)  # as many places as directions, so that a mix-up would go unseen by shapes
    torch.testing.assert_close(layer(x), torch.stack([layer(rows) for rows in x]))


def test_a_relu_bottleneck_bends_the_output_and_prelu_does_not_before_training():
    model, fields = make_model("dcn"), random_fields(100)
    plain, relu, prelu = (
        compress_model(model, CompressionSpec(plan=PLAN, bottleneck=kind), spectra_of(model)).model
        for kind in ("none", "relu", "prelu")
    )
    torch.testing.assert_close(logits(prelu, fields), logits(plain, fields), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(logits(relu, fields), logits(plain, fields), atol=1e-3)


def test_layers_at_or_above_break_even_stay_dense_with_that_reason():
    model = make_model("dcn")
    result = compress_model(model, CompressionSpec.of({"mlp.0": 20, "embedding.ad": 2}), spectra_of(model))
    assert result.plan.as_dict() == {"embedding.ad": 2}
    assert "at or above break-even (17.8)" in result.skipped["mlp.0"] and "raw parameter" in result.skipped["cross.weights"]


def test_what_does_not_fit_is_refused_before_anything_is_built():
    model = make_model("dcn")
    spectra = spectra_of(model)
    with pytest.raises(CompressionError, match=r"rank 9 for layer embedding\.ad must be between 1 and 8"):
        compress_model(model, CompressionSpec.of({"embedding.ad": 9}), spectra)
    with pytest.raises(CompressionError, match=r"mlp\.0 has no spectrum; .*mlp\.2 has no spectrum"):
        compress_model(
            model, CompressionSpec(plan=PLAN), {name: s for name, s in spectra.items() if name.startswith("embedding")}
        )
    other = spectra_of(make_model("dcn", embed_dim=4))
    with pytest.raises(CompressionError, match=r"the spectrum of layer embedding\.site is 4 wide and the layer 8"):
        compress_model(model, CompressionSpec(plan=PLAN), other)
    done = compress_model(model, CompressionSpec(plan=PLAN), spectra).model
    with pytest.raises(CompressionError, match=r"mlp\.0 cannot be compressed \(factored to rank 6 already\)"):
        compress_model(done, CompressionSpec.of({"mlp.0": 2}), spectra)
    with pytest.raises(CompressionError, match="folded for serving"):
        compress_model(fold(done), CompressionSpec(), spectra)


def test_stages_add_up_to_the_joint_result_when_nothing_is_trained_between():
    model, fields = make_model("deepfm"), random_fields(100)
    spectra = spectra_of(model)
    ranks = PLAN.as_dict()
    tables = RankPlan.of({name: rank for name, rank in ranks.items() if name.startswith("embedding")})
    linear = RankPlan.of({name: rank for name, rank in ranks.items() if not name.startswith("embedding")})
    staged = compress_model(
        compress_model(model, CompressionSpec(plan=linear), spectra).model, CompressionSpec(plan=tables), spectra
    ).model
    joint = compress_model(model, CompressionSpec(plan=PLAN), spectra).model
    assert torch.equal(logits(staged, fields), logits(joint, fields)) and staged.structure.ranks == joint.structure.ranks


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("bottleneck", ["none", "relu", "prelu"])
@pytest.mark.parametrize("folded", [False, True])
def test_a_compressed_model_is_saved_and_loads_without_its_original(tmp_path, architecture, bottleneck, folded):
    model, fields = make_model(architecture, batch_norm=True), random_fields(50)
    plan = RankPlan.of({"mlp.0": 6, "mlp.3": 4, "embedding.ad": 2})
    compressed = compress_model(model, CompressionSpec(plan=plan, bottleneck=bottleneck), spectra_of(model)).model
    perturb_(compressed, 0.1)
    compressed = fold(compressed) if folded else compressed
    save_model(compressed, tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors", SCHEMA)
    assert torch.equal(logits(loaded, fields), logits(compressed, fields))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_serving_form_of_an_uncompressed_model_is_saved_too(tmp_path, architecture):
    serving, fields = fold(make_model(architecture, batch_norm=True)), random_fields(50)
    save_model(serving, tmp_path / "m.safetensors")
    assert torch.equal(logits(load_model(tmp_path / "m.safetensors", SCHEMA), fields), logits(serving, fields))


def test_gradients_reach_every_part_of_a_compressed_model():
    model = compress_model(
        make_model("deepfm"), CompressionSpec(plan=PLAN, bottleneck="prelu"), spectra_of(make_model("deepfm"))
    ).model.train()
    model(random_fields(64)).square().sum().backward()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad.coalesce().values() if parameter.grad.is_sparse else parameter.grad
        assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0, name


def test_a_result_is_saved_as_a_checkpoint_of_the_compressed_model(tmp_path):
    model, fields = make_model("deepfm"), random_fields(50)
    result = compress_model(model, CompressionSpec(plan=PLAN, method="svd"))
    assert result.plan == result.spec.plan and set(result.plan.as_dict()) == set(PLAN.as_dict())
    (path,) = result.save(tmp_path / "folder" / "small.safetensors")
    torch.testing.assert_close(logits(load_model(path), fields), logits(result.model, fields), rtol=0, atol=0)

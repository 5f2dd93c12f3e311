import numpy as np
import pytest

from ctrlab.compression.fold import fold
from ctrlab.data.schema import FeatureSchema
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError, ConfigError
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressConfig, CompressionSpec, RankPlan
from ctrlab.plans.cost_prediction import predict
from ctrlab.plans.ranks import PRESETS, plan_ranks, preset_plan, validate_plan
from ctrlab.training.configs import FitConfig
from tests.support.small_models import make_model, spectra_of

MODEL = make_model("deepfm")
PROFILE, SPECTRA = profile_model(MODEL), spectra_of(MODEL)


def _wide():
    """Paper-sized Criteo DeepFM: 26 tables, 400x3."""
    schema = FeatureSchema(
        field_names=tuple(f"C{i}" for i in range(1, 27)),
        field_dims=(1000,) * 26,
        value_names=tuple(f"I{i}" for i in range(1, 14)),
    )
    return profile_model(make_model("deepfm", schema=schema, embed_dim=16, mlp_dims=(400, 400, 400)))


WIDE = _wide()


def _spectrum_for(layer):
    width = layer.out_features
    return LayerSpectrum(
        layer_name=layer.layer_name, kind=layer.kind, eigenvalues=0.8 ** np.arange(width), eigenvectors=None,
        mean=np.zeros(width), num_samples=9,
    )  # fmt: skip


def test_variance_gives_each_layer_its_own_rank_and_leaves_out_what_would_not_shrink():
    plan = plan_ranks(PROFILE, SPECTRA, variance=0.9).as_dict()
    for layer in PROFILE.compressible:
        rank = SPECTRA[layer.layer_name].rank_for(0.9)
        assert plan.get(layer.layer_name) == (rank if rank < layer.break_even else None)


def test_more_variance_never_lowers_a_rank_or_the_variance_kept():
    lost = [
        predict(PROFILE, SPECTRA, CompressionSpec(plan=preset_plan(f"variance-{e}", PROFILE, SPECTRA))).variance_lost_total
        for e in (90, 95, 99)
    ]
    assert lost == sorted(lost, reverse=True) and lost[0] > 0


def test_patterns_name_groups_and_exact_names_win():
    plan = plan_ranks(PROFILE, ranks={"embedding.ad": 3, "embedding.*": 2, "mlp.2": 5})
    assert plan.as_dict() == {"embedding.site": 2, "embedding.device": 2, "embedding.ad": 3, "mlp.2": 5}


def test_the_papers_criteo_preset_is_its_table():
    plan = preset_plan("paper-criteo", WIDE).as_dict()
    assert plan == {f"embedding.C{i}": 2 for i in range(1, 27)} | {"mlp.2": 64, "mlp.4": 64}


def test_the_papers_avazu_preset_is_its_table():
    schema = FeatureSchema(field_names=("a", "b"), field_dims=(2000, 3000))
    profile = profile_model(make_model("dcn", schema=schema, embed_dim=50, mlp_dims=(2000, 2000, 2000)))
    assert preset_plan("paper-avazu", profile).as_dict() == {"embedding.a": 8, "embedding.b": 8, "mlp.2": 320, "mlp.4": 320}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_fits_small_and_wide_models(name):
    spectra = {layer.layer_name: _spectrum_for(layer) for layer in WIDE.compressible}
    for profile, own in ((PROFILE, SPECTRA), (WIDE, spectra)):
        validate_plan(profile, preset_plan(name, profile, own))


def test_keep_first_dense_leaves_out_the_layer_that_reads_the_embedding():
    assert "mlp.0" not in plan_ranks(PROFILE, ranks={"mlp.*": 4}, keep_first_dense=True).as_dict()


def test_every_fault_of_a_plan_is_listed_at_once_with_its_bounds():
    with pytest.raises(CompressionError) as caught:
        plan_ranks(PROFILE, ranks={"mlp.0": 96, "mlp.4": 1, "mlp.7": 3, "embedding.ad": 0})
    message = str(caught.value)
    assert "rank 96 for layer mlp.0 must be between 1 and 32" in message
    assert "layer mlp.4 cannot be compressed (one output unit)" in message
    assert "no layer is called mlp.7; nearest are mlp." in message
    assert "rank 0 for layer embedding.ad must be between 1 and 8" in message


def test_a_rank_of_zero_is_refused_by_the_plan_itself():
    with pytest.raises(ConfigError, match="rank must be at least 1, got 0"):
        RankPlan.of({"mlp.0": 0})
    with pytest.raises(ConfigError, match=r"mlp\.0 has more than one rank"):
        RankPlan(ranks=(*RankPlan.of({"mlp.0": 1}).ranks, *RankPlan.of({"mlp.0": 2}).ranks))


def test_variance_or_ranks_not_both_not_neither():
    for arguments in ({}, {"variance": 0.9, "ranks": {}}):
        with pytest.raises(CompressionError, match="exactly one"):
            plan_ranks(PROFILE, SPECTRA, **arguments)
    with pytest.raises(CompressionError, match="variance 95"):
        plan_ranks(PROFILE, SPECTRA, variance=95)


def test_missing_spectra_are_named_all_at_once():
    with pytest.raises(CompressionError, match=r"embedding\.site has no spectrum; .*mlp\.2 has no spectrum"):
        plan_ranks(PROFILE, {}, variance=0.9)
    with pytest.raises(CompressionError, match=r"no preset is called 'x'"):
        preset_plan("x", PROFILE)


@pytest.mark.parametrize("method", ["svd", "svd_corrected", "whitened_svd"])
def test_no_variance_lost_is_predicted_for_methods_that_do_not_project_outputs(method):
    prediction = predict(PROFILE, SPECTRA, CompressionSpec.of({"mlp.2": 5, "mlp.0": 30}, method=method))
    assert prediction.variance_lost == {} and prediction.ranks


def test_variance_lost_is_the_share_of_the_discarded_eigenvalues():
    prediction = predict(PROFILE, SPECTRA, CompressionSpec.of({"mlp.2": 5, "mlp.0": 30}))
    spectrum = SPECTRA["mlp.2"]
    share = spectrum.discarded(5) / spectrum.total_variance
    assert prediction.variance_lost["mlp.2"] == pytest.approx(share, rel=1e-9)
    assert prediction.kept_dense == ("mlp.0",) and prediction.variance_lost["mlp.0"] == 0
    assert prediction.variance_lost_total == pytest.approx(share / len(PROFILE.compressible))


def test_a_compressed_model_is_predicted_from_its_original_only():
    with pytest.raises(CompressionError, match="predict from its original"):
        predict(profile_model(fold(make_model("dcn"))), None, CompressionSpec())


def test_a_compression_config_survives_json_and_knows_its_methods():
    config = CompressConfig(plan=RankPlan.of({"mlp.0": 3, "embedding.a": 1}), bottleneck="prelu", finetune=FitConfig(epochs=2))
    assert CompressConfig.from_json(config.to_json()) == config
    with pytest.raises(ConfigError, match="method must be one of afm, weighted_afm, svd"):
        CompressConfig(plan=RankPlan(), method="magic")

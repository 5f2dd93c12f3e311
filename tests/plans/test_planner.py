"""Plans against every choice of ranks there is, on small models, and what is said where there is none."""

import functools
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from ctrlab.data.schema import FeatureSchema
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError
from ctrlab.models.configs import MODELS
from ctrlab.models.profiling import profile_model
from ctrlab.plans import serving_forms
from ctrlab.plans.baselines import uniform_rank_plan, uniform_variance_plan
from ctrlab.plans.budgets import BUDGET_KINDS, COUNTED_KINDS, Budget, BudgetError
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.cost_prediction import predict, serving_cost
from ctrlab.plans.planner import plan_for_budget, plan_for_loss, planned_front
from ctrlab.plans.rank_problem import Picked, PlanOptions, RankProblem
from ctrlab.plans.ranks import plan_ranks
from ctrlab.plans.sensitivity import LayerSensitivity, Sensitivity
from ctrlab.plans.serving_forms import ServingForms
from ctrlab.plans.sizes import LayerOption
from tests.support.profiles import every_plan, profile_of, sensitivity_of
from tests.support.small_models import make_model, spectra_of

TINY = FeatureSchema(field_names=("site", "ad"), field_dims=(30, 90), value_names=("age",), fingerprint="tiny")


def tiny_profile(name="deepfm"):
    if name == "autoint":
        return profile_of(name, TINY, embed_dim=3, attention_dim=4, num_heads=2, num_layers=1, numeric_fields="raw")
    return profile_of(name, TINY, embed_dim=4, mlp_dims=(6, 5))


def amount(profile, ranks, kind):
    return BUDGET_KINDS[kind].amount(serving_cost(profile, ranks))


@functools.cache
def every_amount(name, kind):
    """[(ranks, amount)] of every plan of `tiny_profile(name)`: the same for all seeds."""
    profile = tiny_profile(name)
    return [(ranks, amount(profile, ranks, kind)) for ranks in every_plan(profile)]


#: Folded, with one first layer; not folded; and folded with four first layers, the projections of self-attention.
SEVERAL = ("deepfm", "dcn", "wide_deep", "nfm", "autoint")


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("kind", COUNTED_KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_no_choice_of_ranks_within_the_budget_is_predicted_better(name, kind, seed):
    profile = tiny_profile(name)
    sensitivity = sensitivity_of(profile, seed)
    known = [(cost, sensitivity.predicted_log_loss(ranks)) for ranks, cost in every_amount(name, kind)]
    costs, losses = np.array(known).T
    for limit in np.quantile(costs, [0.02, 0.2, 0.5, 0.9]):
        found = plan_for_budget(profile, sensitivity, Budget(kind=kind, limit=limit))
        assert amount(profile, found.plan.as_dict(), kind) <= limit
        assert found.log_loss == pytest.approx(sensitivity.predicted_log_loss(found.plan.as_dict()))
        least = losses[costs <= limit].min()
        assert found.log_loss == pytest.approx(least, abs=1e-12)


def test_a_plan_made_for_auc_loses_least_of_it_and_its_front_rises_with_size():
    profile = tiny_profile()
    measured, other = sensitivity_of(profile), sensitivity_of(profile, 7)
    layers = {name: replace(own, auc_losses=other.layers[name].auc_losses) for name, own in measured.layers.items()}
    sensitivity, options = replace(measured, layers=layers), PlanOptions(aim="auc")
    costs, aucs = np.array([(cost, sensitivity.predicted_auc(ranks)) for ranks, cost in every_amount("deepfm", "bytes")]).T
    for limit in np.quantile(costs, [0.1, 0.5]):
        found = plan_for_budget(profile, sensitivity, Budget(kind="bytes", limit=limit), options)
        assert found.auc == pytest.approx(aucs[costs <= limit].max(), abs=1e-12)
    front = [plan.auc for plan in planned_front(profile, sensitivity, "bytes", options)]
    assert front == sorted(front) and len(set(front)) == len(front) > 3
    assert [plan.auc for plan in planned_front(profile, sensitivity, "bytes")] != front


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_quantised_model_is_planned_by_its_own_bytes(precision):
    profile = profile_of("deepfm", embed_dim=16, mlp_dims=(64, 48))
    sensitivity = sensitivity_of(profile)
    whole = serving_cost(profile, {}, CompressionSpec(precision=precision)).size_bytes
    for share in (0.4, 0.7):
        budget = Budget(kind="bytes", limit=share * whole)
        found = plan_for_budget(profile, sensitivity, budget, PlanOptions(spec=CompressionSpec(precision=precision)))
        assert found.cost == serving_cost(profile, found.plan.as_dict(), CompressionSpec(precision=precision))
        assert 0.85 * budget.limit < found.cost.size_bytes <= budget.limit
        naive = uniform_rank_plan(profile, budget, CompressionSpec(precision=precision))
        assert found.log_loss <= sensitivity.predicted_log_loss(naive.as_dict()) + 1e-9


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("kind", COUNTED_KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_no_choice_of_ranks_that_loses_as_little_costs_less(name, kind, seed):
    profile = tiny_profile(name)
    sensitivity = sensitivity_of(profile, seed)
    known = [(cost, 0.8 - sensitivity.predicted_auc(ranks)) for ranks, cost in every_amount(name, kind)]
    costs, losses = np.array(known).T
    for allowed in np.quantile(losses, [0.1, 0.5, 0.9]):
        found = plan_for_loss(profile, sensitivity, float(allowed), kind=kind)
        assert 0.8 - found.auc <= allowed + 1e-9
        assert amount(profile, found.plan.as_dict(), kind) == costs[losses <= allowed + 1e-12].min()


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("bottleneck", ["none", "prelu"])
def test_no_choice_is_better_at_another_precision_or_with_a_bend_in_the_bottleneck(precision, bottleneck, monkeypatch):
    """Whatever their size, layers become integers: where a narrow one does not, its cost bends."""
    monkeypatch.setattr(serving_forms, "MIN_QUANTIZED_WEIGHTS", 1)
    profile = tiny_profile("deepfm")
    sensitivity = sensitivity_of(profile)
    plans = list(every_plan(profile))
    costs = np.array(
        [serving_cost(profile, ranks, CompressionSpec(bottleneck=bottleneck, precision=precision)).size_bytes for ranks in plans]
    )
    losses = np.array([sensitivity.predicted_log_loss(ranks) for ranks in plans])
    for limit in np.quantile(costs, [0.02, 0.2, 0.5, 0.9]):
        budget = Budget(kind="bytes", limit=limit)
        found = plan_for_budget(
            profile, sensitivity, budget, PlanOptions(spec=CompressionSpec(precision=precision, bottleneck=bottleneck))
        )
        assert found.cost.size_bytes <= limit
        least = losses[costs <= limit].min()
        # In 4 bits so small a model is served folded at more bytes than as it stands: some plans are made twice.
        assert found.log_loss - 0.5 <= (1.6 if precision == "int4" else 1.0) * (least - 0.5) + 1e-9


@pytest.mark.parametrize("name", ["deepfm", "autoint"])
@pytest.mark.parametrize("kind", COUNTED_KINDS)
def test_both_forms_are_sums_once_the_first_layers_are_fixed(name, kind):
    """The folded sum counts two factors where the exact cost may merge them: never below it, and equal where it does not."""
    profile = tiny_profile(name)
    problem = RankProblem(profile, sensitivity_of(profile), kind, PlanOptions(spec=CompressionSpec(bottleneck="prelu")))
    plans = list(every_plan(profile))
    for ranks in plans[:: max(1, len(plans) // 40)]:
        forms = ServingForms(profile=profile, ranks=ranks, bottleneck="prelu", basis="per_field")
        picks = [
            own.index(LayerOption(ranks.get(layer.layer_name), "float32"))
            for layer, own in zip(problem.layers, problem.options, strict=True)
        ]
        for summed, cost in zip(problem.forms, (forms.explicit(), forms.folded()), strict=True):
            narrower = sum(width[pick] for width, pick in zip(summed.widths, picks, strict=True))
            slope = summed.base_slopes[0] + sum(own[picks[layer], 0] for layer, own in summed.slopes.items())
            total = summed.fixed + sum(own[pick] for own, pick in zip(summed.costs, picks, strict=True)) + slope * narrower
            assert total == pytest.approx(BUDGET_KINDS[kind].amount(cost), abs=1e-6)


def test_nothing_is_lost_where_no_loss_is_allowed():
    profile = tiny_profile()
    sensitivity = sensitivity_of(profile)
    assert plan_for_loss(profile, sensitivity, 0.0).auc == pytest.approx(0.8)
    with pytest.raises(BudgetError, match="allow 0 or more"):
        plan_for_loss(profile, sensitivity, -0.1)


@pytest.mark.parametrize("kind", COUNTED_KINDS)
def test_a_budget_that_cannot_be_met_names_the_smallest_that_can(kind):
    profile = tiny_profile()
    sensitivity = sensitivity_of(profile)
    smallest = min(amount(profile, ranks, kind) for ranks in every_plan(profile))
    with pytest.raises(BudgetError, match=f"the smallest there is has {smallest:,.0f}: ask for that or more"):
        plan_for_budget(profile, sensitivity, Budget(kind=kind, limit=smallest - 1))
    found = plan_for_budget(profile, sensitivity, Budget(kind=kind, limit=smallest))
    assert amount(profile, found.plan.as_dict(), kind) == smallest


@pytest.mark.parametrize("name", MODELS.names())
def test_every_model_is_planned_for_half_its_size_within_the_exact_cost(name):
    profile = profile_of(name)
    sensitivity = sensitivity_of(profile)
    if not sensitivity.layers:
        return
    whole = predict(profile, None, CompressionSpec()).serving_original.parameters
    smallest = RankProblem(profile, sensitivity, "parameters", PlanOptions()).smallest().ranks
    limit = max(0.5 * whole, amount(profile, smallest, "parameters"))
    found = plan_for_budget(profile, sensitivity, Budget(kind="parameters", limit=limit))
    assert predict(profile, None, CompressionSpec(plan=found.plan)).serving == found.cost and found.cost.parameters <= limit
    naive = uniform_rank_plan(profile, Budget(kind="parameters", limit=limit))
    assert serving_cost(profile, naive.as_dict()).parameters <= limit
    assert found.log_loss <= sensitivity.predicted_log_loss(naive.as_dict()) + 1e-9


def test_the_front_rises_in_cost_falls_in_loss_and_ends_dense():
    profile = profile_of("deepfm")
    sensitivity = sensitivity_of(profile)
    plans = planned_front(profile, sensitivity)
    costs, losses = ([getattr(plan, key) for plan in plans] for key in ("cost", "log_loss"))
    sizes = [cost.parameters for cost in costs]
    assert sizes == sorted(set(sizes)) and losses == sorted(set(losses), reverse=True) and len(plans) > 10
    assert plans[-1].log_loss == pytest.approx(0.5)
    for plan in plans[:-1:5]:
        found = plan_for_budget(profile, sensitivity, Budget(kind="parameters", limit=plan.cost.parameters))
        assert found.cost.parameters <= plan.cost.parameters and found.log_loss <= plan.log_loss + 1e-12


def test_linear_layers_get_only_multiples_where_they_are_asked_for():
    profile = profile_of("deepfm", embed_dim=16, mlp_dims=(64, 48))
    found = plan_for_budget(
        profile, sensitivity_of(profile), Budget(kind="macs", limit=0.5 * profile.cost.macs), PlanOptions(multiple_of=8)
    )
    ranks = {name: rank for name, rank in found.plan.as_dict().items() if profile.by_name[name].kind == "linear"}
    assert ranks and all(rank % 8 == 0 for rank in ranks.values())


def test_among_ranks_that_were_measured_alike_the_one_with_more_variance_is_taken():
    model = make_model("deepfm")
    profile, spectra = profile_model(model), spectra_of(model)
    sensitivity = sensitivity_of(profile)
    flat = {
        name: LayerSensitivity(
            layer_name=name, width=layer.width, auc_dense=0.8, ranks=(1,), log_losses=(0.5,), aucs=(0.8,),
            log_loss_increases=(0.0,), auc_losses=(0.0,),
        )
        for name, layer in sensitivity.layers.items()
    }  # fmt: skip
    free = Sensitivity(log_loss=0.5, auc=0.8, split="valid", num_rows=100, layers=flat)
    budget = Budget(kind="parameters", limit=0.6 * serving_cost(profile, {}).parameters)
    careless, careful = (
        plan_for_budget(profile, free, budget),
        plan_for_budget(profile, free, budget, PlanOptions(spectra=spectra)),
    )
    lost = [predict(profile, spectra, CompressionSpec(plan=plan.plan)).variance_lost_total for plan in (careless, careful)]
    assert lost[1] < 0.5 * lost[0] and careful.cost.parameters > careless.cost.parameters


@pytest.mark.parametrize("limit", [0, -5, float("nan")])
def test_a_budget_of_nothing_is_none(limit):
    with pytest.raises(BudgetError, match="above 0"):
        Budget(kind="parameters", limit=limit)


def test_ranks_cannot_be_multiples_of_nothing():
    profile = tiny_profile()
    with pytest.raises(BudgetError, match="multiples of 0"):
        plan_for_budget(profile, sensitivity_of(profile), Budget(kind="macs", limit=1e6), PlanOptions(multiple_of=0))


def test_no_larger_common_share_of_variance_meets_the_budget():
    model = make_model("deepfm")
    profile, spectra = profile_model(model), spectra_of(model)
    for share in (0.3, 0.6):
        limit = share * serving_cost(profile, {}).parameters
        plan = uniform_variance_plan(profile, spectra, Budget(kind="parameters", limit=limit))
        fitting = [
            variance for variance in np.linspace(0.01, 1, 2000)
            if serving_cost(profile, plan_ranks(profile, spectra, variance=variance).as_dict()).parameters <= limit
        ]  # fmt: skip
        best = plan_ranks(profile, spectra, variance=max(fitting))
        assert serving_cost(profile, plan.as_dict()).parameters >= serving_cost(profile, best.as_dict()).parameters


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_the_naive_plans_take_the_largest_common_share_that_meets_the_budget(share):
    model = make_model("deepfm")
    profile, spectra = profile_model(model), spectra_of(model)
    budget = Budget(kind="parameters", limit=share * serving_cost(profile, {}).parameters)
    by_variance, by_rank = uniform_variance_plan(profile, spectra, budget), uniform_rank_plan(profile, budget)
    for plan in (by_variance, by_rank):
        assert serving_cost(profile, plan.as_dict()).parameters <= budget.limit
    shares = {name: rank / profile.by_name[name].out_features for name, rank in by_rank.as_dict().items()}
    assert max(shares.values()) - min(shares.values()) <= 1 / 8 + 1e-9
    with pytest.raises(BudgetError, match="ask for that or more"):
        uniform_rank_plan(profile, Budget(kind="parameters", limit=10))


def with_gradients(profile, seed=0):
    """Spectra with losses of directions, as the estimate of rounding reads them, and no eigenvectors."""
    random = np.random.default_rng(seed)
    return {
        layer.layer_name: LayerSpectrum(
            layer_name=layer.layer_name, kind=layer.kind, mean=np.zeros(layer.out_features), num_samples=100,
            eigenvalues=np.ones(layer.out_features), eigenvectors=None,
            direction_losses=(own := np.sort(random.exponential(size=layer.out_features))[::-1]), loss_eigenvalues=own,
        )
        for layer in profile.compressible
    }  # fmt: skip


@pytest.mark.parametrize("name", ["deepfm", "nfm"])
def test_no_choice_of_ranks_and_bits_within_the_bytes_is_predicted_better(name, monkeypatch):
    monkeypatch.setattr(serving_forms, "MIN_QUANTIZED_WEIGHTS", 1)
    schema = FeatureSchema(field_names=("site", "ad"), field_dims=(60, 150), value_names=(), fingerprint="bits")
    profile = profile_of(name, schema, embed_dim=3, mlp_dims=(4,))
    sensitivity, spectra = sensitivity_of(profile), with_gradients(profile)
    options = PlanOptions(spec=CompressionSpec(precision="int8"), spectra=spectra, precisions=("float32", "int8", "int4"))
    problem = RankProblem(profile, sensitivity, "bytes", options)
    every = [problem._picked(picks) for picks in product(*(range(len(own)) for own in problem.options))]
    costs, losses = np.array([(problem.amount(picked), problem.loss(picked)) for picked in every]).T
    for limit in np.quantile(costs, [0.05, 0.3, 0.7]):
        found = plan_for_budget(profile, sensitivity, Budget(kind="bytes", limit=limit), options)
        assert found.cost.size_bytes <= limit
        least = losses[costs <= limit].min()
        assert problem.loss(Picked(found.plan.as_dict(), dict(found.precisions))) == pytest.approx(least, rel=1e-9)
    assert len({bits for picked in every for bits in picked.precisions.values()}) == 2


def test_bits_by_layer_need_gradients_in_the_spectra():
    profile = tiny_profile()
    bare = {name: replace(own, direction_losses=None) for name, own in with_gradients(profile).items()}
    options = PlanOptions(spectra=bare, precisions=("int8",))
    with pytest.raises(CompressionError, match="collect the spectra again"):
        plan_for_budget(profile, sensitivity_of(profile), Budget(kind="bytes", limit=1e6), options)

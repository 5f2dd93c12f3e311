"""The choice of all ranks and bits as one knapsack: groups are layers, options are a rank and bits; loads without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.models.profile import Cost, LayerProfile, ModelProfile
from ctrlab.models.structure import Precision
from ctrlab.plans.budgets import BUDGET_KINDS, BudgetError
from ctrlab.plans.configs import UNCOMPRESSED, Aim, CompressionSpec, LayerPrecision, RankPlan
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.plans.estimates import rounding_loss
from ctrlab.plans.form_search import FormSearch, FormSums
from ctrlab.plans.methods import METHODS
from ctrlab.plans.ranks import Spectra, pays
from ctrlab.plans.sensitivity import Sensitivity
from ctrlab.plans.sizes import LayerOption, size_forms
from ctrlab.plans.speed import SpeedModel

#: Added to a layer's loss, in nats or AUC, for losing all its variance: breaks ties towards keeping more variance.
CAUTION = 1e-5
#: Attempts with a smaller target for plans that are served in the more expensive form.
ROUNDS = 16
#: Ratio of neighbouring ranks of a linear layer that are considered.
_GRID_FACTOR = 1.22

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PlannedRanks:
    """A plan with its predicted cost and accuracy.

    precisions: {layer_name: precision} where bits were planned; empty where all layers have those of the options' spec.
    cost: exact, of the serving form. log_loss, auc: on the rows of the sensitivity. latency_ms: where a speed model was given.
    """

    plan: RankPlan
    precisions: Mapping[str, Precision] = field(default_factory=dict)
    cost: Cost
    log_loss: float
    auc: float
    latency_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Options of the planner.

    spec: method, bottleneck and precision of the planned compression. Its own ranks are ignored, and the basis is per
        field. The method determines the cost of ranks of tables; their loss is AFM's in any case.
    spectra: break ties between ranks of equal measured loss, towards more variance.
    precisions: that each layer may have by itself; empty for that of the spec, which other modules have in any case. Needs
        spectra with gradients.
    aim: what a plan loses least of: log loss, or AUC where the sensitivity was measured; an estimate says nothing of AUC.
    multiple_of: linear layers get only ranks that it divides; 8 suits most hardware.
    speed: of this model at the budget's batch size, for a budget of milliseconds, which is one of float32 models; the rest
        ignore it. That plan is optimal up to the error of adding up times, a few per cent.
    """

    spec: CompressionSpec = UNCOMPRESSED
    spectra: Spectra | None = None
    precisions: tuple[Precision, ...] = ()
    aim: Aim = "log_loss"
    multiple_of: int = 1
    speed: SpeedModel | None = None


class Picked(NamedTuple):
    """A plan: {layer: rank}, dense layers left out, and {layer: precision} where bits are planned."""

    ranks: dict[str, int]
    precisions: dict[str, Precision]


DENSE = Picked({}, {})


class RankProblem:
    """The layers of one model as groups of a knapsack: each group's options are ranks that pay, and dense, with bits."""

    def __init__(
        self,
        profile: ModelProfile,
        sensitivity: Sensitivity,
        kind: str,
        options: PlanOptions,
        speed: SpeedModel | None = None,
    ) -> None:
        if options.multiple_of < 1:
            raise BudgetError(f"ranks cannot be multiples of {options.multiple_of}; give 1 for any rank, or 8")
        # The problem that is solved: tables as latents, each with its own basis.
        self.spec = options.spec.replace(plan=RankPlan(), layer_precisions=(), method="afm", basis="per_field")
        self.whole_spec = options.spec.replace(plan=RankPlan(), layer_precisions=(), basis="per_field")
        # Other forms of tables cost at most what latents cost that do not fold, and little less.
        self.profile = profile if METHODS[options.spec.method].keeps_latents else profile.unfolded()
        self.whole_profile = profile
        self.sensitivity, self.kind, self.speed = sensitivity, kind, speed
        self.layers = [layer for layer in profile.compressible if layer.layer_name in sensitivity.layers]
        self.plans_bits = bool(options.precisions)
        self.by_auc = options.aim == "auc" and not sensitivity.estimated
        self.weighted = METHODS[options.spec.method].needs_gradients
        self.options = [self._options(layer, options) for layer in self.layers]
        self.losses = [self._losses(layer, own, options.spectra) for layer, own in zip(self.layers, self.options, strict=True)]
        self.auc_losses = [self._auc_losses(layer, own) for layer, own in zip(self.layers, self.options, strict=True)]
        self.forms: Sequence[FormSums] = (
            speed.sums(profile, self.layers, [[option.rank for option in own] for own in self.options])
            if speed
            else size_forms(profile, self.layers, self.options, BUDGET_KINDS[kind].amount, self.spec)
        )

    def _options(self, layer: LayerProfile, options: PlanOptions) -> list[LayerOption]:
        ranks = _ranks_that_pay(layer, options.multiple_of)
        bits = options.precisions or (self.spec.precision,)
        if layer.kind == "linear":  # 4 bits are 8 there
            bits = tuple(precision for precision in bits if precision != "int4") or ("int8",)
        return [LayerOption(rank, precision) for rank in ranks for precision in bits]

    def _losses(self, layer: LayerProfile, options: Sequence[LayerOption], spectra: Spectra | None) -> FloatArray:
        spectrum = spectra[layer.layer_name] if spectra else None
        return np.array([self._loss(layer.layer_name, option, spectrum) for option in options])

    def _loss(self, name: str, option: LayerOption, spectrum: LayerSpectrum | None) -> float:
        loss = 0.0
        if option.rank is not None:
            measured = self.sensitivity.layers[name]
            loss = measured.auc_loss(option.rank) if self.by_auc else measured.log_loss_increase(option.rank)
            loss += CAUTION * spectrum.variance_lost(option.rank) if spectrum else 0.0
        if self.plans_bits:
            if spectrum is None:
                raise BudgetError("bits by layer are planned with spectra; give those of the model")
            loss += rounding_loss(spectrum, option.rank, option.precision, weighted=self.weighted)
        return loss

    def _auc_losses(self, layer: LayerProfile, options: Sequence[LayerOption]) -> FloatArray:
        measured = self.sensitivity.layers[layer.layer_name]
        return np.array([0.0 if option.rank is None else measured.auc_loss(option.rank) for option in options])

    def amount(self, picked: Picked) -> float:
        """The amount of `kind` that a plan has, exact; for latency its predicted milliseconds."""
        if self.speed:
            return self.speed.predict_ms(self.profile, picked.ranks)
        return BUDGET_KINDS[self.kind].amount(serving_cost(self.profile, picked.ranks, with_bits(self.spec, picked.precisions)))

    def whole_amount(self, planned: PlannedRanks) -> float:
        """The amount of `kind` with tables in the form of the method."""
        return planned.latency_ms if planned.latency_ms is not None else BUDGET_KINDS[self.kind].amount(planned.cost)

    def planned(self, picked: Picked) -> PlannedRanks:
        """The plan with its predictions."""
        ranks = picked.ranks
        return PlannedRanks(
            plan=RankPlan.of(ranks), precisions=picked.precisions,
            cost=serving_cost(self.whole_profile, ranks, with_bits(self.whole_spec, picked.precisions)),
            log_loss=self.sensitivity.predicted_log_loss(ranks), auc=self.sensitivity.predicted_auc(ranks),
            latency_ms=self.speed.predict_ms(self.profile, ranks) if self.speed else None,
        )  # fmt: skip

    def within(self, limit: float) -> Picked | None:
        """The plan of least loss whose exact cost is at most `limit`; None where there is none."""
        best: Picked | None = None
        least = np.inf
        if self.amount(smallest := self.smallest()) <= limit:
            best, least = smallest, self.loss(smallest)
        for form in self.forms:
            search, target = FormSearch(form, self.losses), limit
            for number in range(ROUNDS):
                found = search.least_loss(target, least)
                if found is None:
                    break
                picked = self._picked(found.picks)
                if (excess := self.amount(picked) - limit) <= 0:
                    best, least = picked, found.loss
                    break
                # The plan is served in the other form, which has more of this kind: lower the target, in later rounds by more.
                # Times only roughly add up: lower the target by the error of the sum.
                careful = self.speed is None and number < ROUNDS // 2
                target = found.cost - (1e-9 * limit if careful else excess)
        return best

    def cheapest(self, max_auc_loss: float) -> Picked:
        """The plan of least cost whose predicted AUC loss is at most `max_auc_loss`."""
        plans = [DENSE]
        for form in self.forms:
            found = FormSearch(form, self.auc_losses).least_cost(max_auc_loss + 1e-12)
            assert found is not None  # dense loses nothing
            plans.append(self._picked(found.picks))
        return min(plans, key=self.amount)

    def smallest(self) -> Picked:
        """The plan of least cost."""
        found = [self._picked(FormSearch(form, self.losses).smallest().picks) for form in self.forms]
        return min([DENSE, *found], key=self.amount)

    def front(self) -> list[Picked]:
        """The vertices of both forms' fronts."""
        vertices = [vertex for form in self.forms for vertex in FormSearch(form, self.losses).front()]
        return [*([] if self.plans_bits else [DENSE]), *(self._picked(vertex.picks) for vertex in vertices)]

    def loss(self, picked: Picked) -> float:
        """The loss of a plan in the knapsack: its layers' losses with the tie-breaking term."""
        total = 0.0
        for layer, options, losses in zip(self.layers, self.options, self.losses, strict=True):
            name = layer.layer_name
            bits = picked.precisions.get(name, self.spec.precision if self.plans_bits else options[0].precision)
            total += float(losses[options.index(LayerOption(picked.ranks.get(name), bits))])
        return total

    def _picked(self, picks: Sequence[int]) -> Picked:
        chosen = {layer.layer_name: own[pick] for layer, own, pick in zip(self.layers, self.options, picks, strict=True)}
        ranks = {name: option.rank for name, option in chosen.items() if option.rank is not None}
        bits = {name: option.precision for name, option in chosen.items() if option.precision != self.spec.precision}
        return Picked(ranks, bits if self.plans_bits else {})


def with_bits(spec: CompressionSpec, precisions: Mapping[str, Precision]) -> CompressionSpec:
    """`spec` with these bits of single layers."""
    if not precisions:
        return spec
    return spec.replace(
        layer_precisions=tuple(LayerPrecision(layer_name=name, precision=own) for name, own in precisions.items())
    )


def _ranks_that_pay(layer: LayerProfile, multiple_of: int) -> list[int | None]:
    """Ranks that pay, ascending, then None for dense."""
    last = ceil(layer.break_even) - 1
    if layer.kind == "embedding" and layer.out_features <= 32:
        ranks = list(range(1, last + 1))
    else:
        grid, rank = set(), 1.0
        while rank <= last:
            grid.add(int(rank))
            rank = max(rank + 1, rank * _GRID_FACTOR)
        grid |= set(range(8, last + 1, 8)) if last <= 256 else set()
        ranks = sorted(grid)
    if layer.kind == "linear" and multiple_of > 1:
        ranks = sorted({multiple_of * ceil(rank / multiple_of) for rank in ranks})
    return [*(rank for rank in ranks if pays(layer, rank)), None]

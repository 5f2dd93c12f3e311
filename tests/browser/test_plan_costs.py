import random
from pathlib import Path

import numpy as np
from playwright.sync_api import Page

from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.models.configs import MODELS
from ctrlab.plans.configs import BASES, BOTTLENECKS, PRECISIONS, CompressionSpec
from ctrlab.plans.cost_prediction import predict
from ctrlab.plans.cost_terms import as_list, cost_terms, loss_terms
from ctrlab.plans.methods import METHODS
from ctrlab.plans.ranks import pays
from tests.support.profiles import profile_of, sensitivity_of

ASSETS = Path(__file__).parents[2] / "ctrlab" / "ui" / "assets"
DRAWS = 6


def spectra_of(profile, seed: int) -> dict[str, LayerSpectrum]:
    random = np.random.default_rng(seed)
    return {
        layer.layer_name: LayerSpectrum(
            layer_name=layer.layer_name, kind=layer.kind, eigenvalues=np.sort(random.exponential(size=layer.out_features))[::-1],
            eigenvectors=np.linalg.qr(random.normal(size=(layer.out_features, layer.out_features)))[0],
            mean=random.normal(size=layer.out_features), num_samples=10, weight_singular_values=np.ones(1),
        )
        for layer in profile.compressible
    }  # fmt: skip


def drawn_spec(draw: random.Random) -> dict[str, str]:
    method = draw.choice([method.name for method in METHODS])
    basis = draw.choice(BASES) if METHODS[method].keeps_latents else "per_field"
    return {"method": method, "bottleneck": draw.choice(BOTTLENECKS), "basis": basis, "precision": draw.choice(PRECISIONS)}


def test_the_browser_adds_up_the_costs_and_losses_that_predict_has_for_every_architecture_and_drawn_plans(page: Page) -> None:
    draw, cases, expected = random.Random(0), [], []
    for number, name in enumerate(MODELS.names()):
        profile = profile_of(name)
        spectra, sensitivity = spectra_of(profile, number), sensitivity_of(profile)
        for _ in range(DRAWS):
            chosen = [draw.randint(1, layer.out_features) for layer in profile.compressible]
            pairs = zip(profile.compressible, chosen, strict=True)
            spec = CompressionSpec.of({layer.layer_name: rank for layer, rank in pairs if pays(layer, rank)}, **drawn_spec(draw))
            found = predict(profile, spectra, spec)
            predicts = found.method.projects_outputs and found.method.keeps_latents
            expected.append((
                [as_list(cost) for cost in (found.serving, found.served_explicit, found.served_folded, found.serving_original)],
                [found.variance_lost_total, sensitivity.predicted_auc(found.ranks) if predicts else 0.0],
            ))  # fmt: skip
            terms = cost_terms(profile, spec) | loss_terms(profile, spectra, sensitivity, spec)
            cases.append({"terms": terms, "chosen": chosen, "name": name, "spec": spec.to_dict()})
    page.add_script_tag(path=ASSETS / "plan_costs.js")
    computed = page.evaluate(
        """cases => cases.map(({terms, chosen}) => {
            const found = predictPlan(terms, chosen);
            return [[found.serving, found.explicit, found.folded, terms.original], [found.lostTotal, found.auc ?? 0]];
        })""",
        cases,
    )
    assert len(cases) > 100
    for case, (costs, losses), (own_costs, own_losses) in zip(cases, expected, computed, strict=True):
        assert own_costs == costs, (case["name"], case["spec"], case["chosen"])
        np.testing.assert_allclose(own_losses, losses, atol=1e-6, err_msg=f"{case['name']} {case['spec']} {case['chosen']}")

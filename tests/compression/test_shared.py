"""One basis for all fields: what it keeps, what it loses, and what it costs to serve."""

import numpy as np
import pytest
import torch

from ctrlab.compression.fold import fold
from ctrlab.compression.shared import Restored, SharedLatents
from ctrlab.compression.surgery import compress_model
from ctrlab.errors import CompressionError
from ctrlab.models.layers import InnerProductFM
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressionSpec, RankPlan
from ctrlab.plans.cost_prediction import predict
from ctrlab.plans.shared_basis import principal_basis, second_moment, shared_variance_lost
from tests.support.small_models import MemoryDataset, logits, make_model, random_fields, spectra_of

PLAN = RankPlan.of({"embedding.site": 2, "embedding.ad": 3})


def vectors(model, data):
    with torch.no_grad():
        return model.embedding(data.fields()).double().numpy()


def test_the_basis_spans_the_principal_directions_of_all_rows_together():
    model, data = make_model("deepfm", numeric_fields="raw"), MemoryDataset()
    rows = vectors(model, data).reshape(-1, 8)
    _, _, right = np.linalg.svd(rows, full_matrices=False)
    basis = principal_basis([second_moment(spectrum) for name, spectrum in spectra_of(model).items() if "embed" in name], 3)
    np.testing.assert_allclose(basis @ basis.T, right[:3].T @ right[:3], atol=1e-6)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_predicted_variance_lost_is_what_the_vectors_lose(rank):
    model, data = make_model("deepfm"), MemoryDataset()
    spectra = spectra_of(model)
    plan = RankPlan.of({"embedding.ad": rank})
    small = compress_model(model, CompressionSpec(plan=plan, basis="shared"), spectra, respect_break_even=False).model
    error = np.square(vectors(small, data) - vectors(model, data)).sum(axis=2).mean(axis=0)
    own = [spectra[f"embedding.{name}"] for name in ("site", "device", "ad")]
    lost = shared_variance_lost(own, rank)
    for number, spectrum in enumerate(own):
        assert lost[spectrum.layer_name] * spectrum.total_variance == pytest.approx(error[number], rel=1e-4, abs=1e-9)


def test_a_prediction_with_a_shared_basis_states_the_loss_of_every_table():
    model = make_model("deepfm")
    prediction = predict(profile_model(model), spectra_of(model), CompressionSpec(plan=PLAN, basis="shared"))
    assert prediction.ranks == {"embedding.site": 3, "embedding.device": 3, "embedding.ad": 3}
    assert all(prediction.variance_lost[name] > 0 for name in prediction.ranks)


def test_every_table_gets_the_largest_rank_of_the_plan():
    model = make_model("dcn")
    result = compress_model(model, CompressionSpec(plan=PLAN, basis="shared"), spectra_of(model))
    assert result.plan.as_dict() == {"embedding.site": 3, "embedding.device": 3, "embedding.ad": 3}
    assert {row.name: row.parameters_after for row in result.rows if row.kind == "embedding"} == {
        "embedding.site": 150, "embedding.device": 120, "embedding.ad": 900,
    }  # fmt: skip


def test_inner_products_read_the_latents_as_they_are():
    model = make_model("deepfm")
    small = compress_model(model, CompressionSpec(plan=PLAN, basis="shared"), spectra_of(model)).model
    served = fold(small)
    assert isinstance(served.embedding, SharedLatents) and isinstance(served.fm, InnerProductFM)
    assert not any(isinstance(module, Restored) for module in served.modules())
    fields = random_fields(16)
    torch.testing.assert_close(logits(served, fields), logits(small, fields), atol=1e-5, rtol=1e-5)


def test_svd_takes_the_right_singular_vectors_of_all_tables_stacked():
    model = make_model("deepfm")
    small = compress_model(model, CompressionSpec(plan=PLAN, method="svd", basis="shared")).model
    rows = model.embedding.categorical.table.weight.detach().double().numpy()
    _, _, right = np.linalg.svd(rows, full_matrices=False)
    basis = small.embedding.restore.detach().double().numpy()
    np.testing.assert_allclose(basis @ basis.T, right[:3].T @ right[:3], atol=1e-5)


def test_one_model_has_one_kind_of_basis():
    model = make_model("dcn")
    small = compress_model(model, CompressionSpec(plan=PLAN, basis="shared"), spectra_of(model)).model
    with pytest.raises(CompressionError, match="shared basis"):
        compress_model(small, CompressionSpec.of({"mlp.0": 4}), spectra_of(small))

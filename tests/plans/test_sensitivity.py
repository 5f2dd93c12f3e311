import pytest

from ctrlab.errors import CompressionError
from ctrlab.plans.sensitivity import LayerSensitivity, Sensitivity, load_sensitivity, save_sensitivity

LAYER = LayerSensitivity(
    layer_name="mlp.0", width=10, auc_dense=0.8, ranks=(1, 4), log_losses=(0.61, 0.52), aucs=(0.7, 0.78), log_loss_increases=(0.11, 0.02),
    auc_losses=(0.1, 0.02),
)  # fmt: skip
SENSITIVITY = Sensitivity(log_loss=0.5, auc=0.8, split="valid", num_rows=100, layers={"mlp.0": LAYER})


def test_losses_are_interpolated_between_ranks_and_are_nothing_at_full_rank():
    assert [LAYER.log_loss_increase(rank) for rank in (1, 4, 10, 99)] == pytest.approx([0.11, 0.02, 0, 0])
    assert LAYER.log_loss_increase(2) == pytest.approx(0.08) and LAYER.auc_loss(7) == pytest.approx(0.01)


def test_a_plan_is_predicted_by_the_sum_of_its_layers():
    other = Sensitivity(log_loss=0.5, auc=0.8, split="valid", num_rows=100, layers={"a": LAYER, "b": LAYER})
    assert other.predicted_log_loss({"a": 4, "b": 1}) == pytest.approx(0.63)
    assert other.predicted_auc({"a": 4}) == pytest.approx(0.78) and other.predicted_auc({}) == 0.8


def test_a_layer_without_a_rank_that_pays_loses_nothing():
    none = LayerSensitivity(
        layer_name="x", width=1, auc_dense=0.8, ranks=(), log_losses=(), aucs=(), log_loss_increases=(), auc_losses=()
    )  # fmt: skip
    assert none.log_loss_increase(1) == 0


@pytest.mark.parametrize("damage", ["{", '{"version": 99}', "[]"])
def test_a_damaged_file_is_refused_with_a_sentence(tmp_path, damage):
    save_sensitivity(tmp_path, SENSITIVITY)
    assert load_sensitivity(tmp_path) == SENSITIVITY
    (tmp_path / "sensitivity.json").write_text(damage)
    with pytest.raises(CompressionError, match="measure it again"):
        load_sensitivity(tmp_path)

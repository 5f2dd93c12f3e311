import dataclasses
import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import UnknownNameError
from ctrlab.figures import theme
from ctrlab.figures.gallery import FIGURES, cumulative_variance, describe_cumulative_variance, spectrum
from ctrlab.figures.layer_map import strengths
from ctrlab.figures.model_map import model_map
from ctrlab.figures.text import count, percent, size, times
from ctrlab.figures.theme import DARK, ORIGINAL, on_dark
from ctrlab.models.profile import Cost, ModelProfile
from ctrlab.models.profiling import profile_model
from ctrlab.plans.sensitivity import LayerSensitivity
from tests.support.small_models import make_model


def layer_spectrum(eigenvalues, name="mlp.2", weights=400) -> LayerSpectrum:
    eigenvalues = np.asarray(eigenvalues, dtype=np.float64)
    return LayerSpectrum(
        layer_name=name, kind="linear", eigenvalues=eigenvalues, eigenvectors=None, mean=np.zeros(len(eigenvalues)),
        num_samples=20_000, weight_singular_values=np.linspace(2.0, 1.0, weights),
    )  # fmt: skip


def low_rank_layer(width=400) -> LayerSpectrum:
    """98.5 % of the variance in one direction, 1 % in the second, the rest spread thin."""
    eigenvalues = np.full(width, 0.005 / (width - 2))
    eigenvalues[:2] = 0.985, 0.01
    return layer_spectrum(eigenvalues)


def overview() -> pd.DataFrame:
    return pd.DataFrame(
        {"layer": ["mlp.0", "mlp.2"], "kind": ["linear", "linear"], "width": [400, 2000], "k90": [20, 2], "k95": [40, 2], "k99": [80, 4],
         "break_even": [200.0, 333.0]}
    )  # fmt: skip


def curves() -> pd.DataFrame:
    steps = np.arange(5000)
    losses = pd.DataFrame({"step": steps, "name": "train_loss", "value": 0.6 / (1 + steps)})
    aucs = pd.DataFrame({"step": [1000, 2000, 3000], "name": "valid_auc", "value": [0.71, 0.76, 0.75]})
    return pd.concat([losses, aucs, pd.DataFrame({"step": [1], "name": "rows_per_second", "value": [6e4]})])


def fields() -> pd.DataFrame:
    return pd.DataFrame(
        {"name": ["C1", "C2", "price"], "kind": ["categorical", "categorical", "numeric"], "cardinality": [900_000, 100_000, 0],
         "head_share": [0.9, 0.5, 0.0]}
    )  # fmt: skip


def sensitive_layer() -> LayerSensitivity:
    return LayerSensitivity(
        layer_name="mlp.2", width=2000, auc_dense=0.8, ranks=(1, 2, 4, 8), log_losses=(0.5, 0.5, 0.5, 0.5),
        aucs=(0.79, 0.7999, 0.80005, 0.8), log_loss_increases=(0.01, 0.001, 0.0, 0.0), auc_losses=(0.01, 0.0001, 0.00005, 0.0),
    )  # fmt: skip


def plans() -> pd.DataFrame:
    return pd.DataFrame({"cost": [100_000, 400_000, 900_000], "auc": [0.79, 0.7996, 0.8]})


def importance() -> pd.DataFrame:
    return pd.DataFrame(
        {"layer": ["mlp.0", "mlp.2", "embedding.C1"], "kind": ["linear", "linear", "embedding"], "rank": [100, 100, 4],
         "variance_lost": [0.001, 0.2, 0.3], "auc_loss": [0.002, 0.0, 0.00005]}
    )  # fmt: skip


def segments() -> pd.DataFrame:
    changes = pd.DataFrame(
        {"segment": ["site is news", "ad not in training"], "auc_reference": 0.76, "auc": [0.75, 0.76], "share": [0.4, np.nan]}
    )
    return changes.assign(log_loss_change=[0.01, 0.0], log_loss_change_low=[0.005, -0.01], log_loss_change_high=[0.015, 0.01])


def deepfm_profile() -> ModelProfile:
    return profile_model(make_model("deepfm"))


ARGUMENTS = {
    "segment_changes": (segments(),),
    "variance_against_accuracy": (importance(),),
    "sensitivity_curve": (sensitive_layer(), low_rank_layer(2000)),
    "planned_front": (plans(), (1_600_000, 0.8)),
    "spectrum": (low_rank_layer(2000),),
    "cumulative_variance": (low_rank_layer(2000),),
    "model_map": (deepfm_profile(), {"mlp.0": 0.25, "mlp.2": 0.5}),
    "layer_map": (overview(), {"mlp.0": low_rank_layer(), "mlp.2": low_rank_layer(2000)}),
    "log_loss_rise": (low_rank_layer(2000), sensitive_layer()),
    "cost_bars": (
        Cost(parameters_tables=1_000_000, parameters_dense=600_000),
        Cost(parameters_tables=250_000, parameters_dense=150_000),
    ),
    "training_curves": (curves(),),
    "cardinalities": (fields(),),
    "head_shares": (fields(),),
}
SENTENCES = {
    "segment_changes": "Log loss rises with certainty in 1 of 2 segments, first where site is news (+0.0100, 40 % of the whole rise); "
    "the intervals hold for all of them together.",
    "variance_against_accuracy": "At an eighth of their width, 2 of 3 layers lost at least 5 % of the variance and no AUC; "
    "1 lost less variance and at least 0.0005 of AUC.",
    "sensitivity_curve": "At rank 4 of 2000, truncating mlp.2 alone loses less than 0.0001 of AUC and 0.50 % of its variance.",
    "planned_front": "The smallest plan predicted to lose at most 0.0005 of AUC has 400 k parameters, 4.0x fewer than the original.",
    "spectrum": "Of the 2000 output directions of mlp.2, 2 reach 1 % of the strongest one; of its 400 weight directions 400 do.",
    "cumulative_variance": "99 % of the variance of mlp.2 lies in 2 of 2000 directions.",
    "model_map": "Training form: 55 % of 5.66 k parameters in 3 blocks are in embedding (field embedding). Least rank needed: mlp.0, "
    "25 % of its directions for 95 % of the variance.",
    "layer_map": "95 % of the variance of 2 layers takes 42 of 2,400 directions; the largest share takes mlp.0, 40 of 400.",
    "log_loss_rise": "At rank 1 (95 % of the variance) of mlp.2 alone, AFM was measured to cost +0.0100 of log loss.",
    "cost_bars": "1.60 M parameters become 400 k, 4.0x smaller; 62 % of those are in tables.",
    "training_curves": "Training loss 0.0001 at step 5.00 k; best validation AUC 0.7600 at step 2.00 k.",
    "cardinalities": "1.00 M ids in 2 fields; C1 has 900 k of them (90 %).",
    "head_shares": "The most frequent 1 % of ids appear in 70 % of the rows in the median field, in 90 % in C1.",
}


@pytest.mark.parametrize("name", FIGURES.names())
def test_every_figure_is_light_transparent_and_keeps_its_zoom(name):
    figure = FIGURES[name].draw(*ARGUMENTS[name])
    assert figure.layout.uirevision and figure.layout.margin.t == 30
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
    for trace in figure.data:
        sideways = trace.type == "bar" and trace.orientation == "h"
        values = np.asarray(trace.z[0] if trace.type == "heatmap" else trace.x if sideways else trace.y)
        assert len(values) <= theme.MAX_POINTS
        assert trace.type != "scattergl"
    json.loads(figure.to_json())


@pytest.mark.parametrize("name", FIGURES.names())
def test_every_figure_is_described_by_its_own_numbers(name):
    assert FIGURES[name].describe(*ARGUMENTS[name]) == SENTENCES[name]


def test_an_unknown_figure_names_those_that_exist():
    with pytest.raises(UnknownNameError, match="cumulative_variance"):
        FIGURES["pie"]


def test_a_spectrum_starts_at_one_and_leaves_out_rounding_noise():
    figure = spectrum(layer_spectrum([4.0, 1.0, 1e-30], weights=2))
    features, weights = figure.data
    np.testing.assert_allclose(features.y, [1.0, 0.5, np.nan])
    np.testing.assert_allclose(weights.y, [1.0, 0.5])


def test_a_constant_layer_is_described_as_such_and_still_drawn():
    dead = layer_spectrum(np.zeros(8))
    assert "is constant" in describe_cumulative_variance(dead)
    assert spectrum(dead).layout.yaxis.type == "log"


def test_cumulative_variance_marks_each_variance_at_its_rank():
    layer = layer_spectrum([90.0, 5.0, 4.0, 1.0])
    marks = cumulative_variance(layer).data[1]
    assert dict(zip(marks.x, marks.text, strict=True)) == {1: "90 %: k = 1", 2: "95 %: k = 2", 3: "99 %: k = 3"}


def test_equal_ranks_share_one_mark():
    marks = cumulative_variance(layer_spectrum([999.0, 0.5, 0.5])).data[1]
    assert list(marks.text) == ["90/95/99 %: k = 1"]


def test_break_even_and_the_chosen_rank_are_drawn_where_they_are():
    figure = cumulative_variance(low_rank_layer(), break_even=200.0, chosen_rank=64)
    assert [shape.x0 for shape in figure.layout.shapes] == [200.0, 200.0, 64]
    assert [note.text for note in figure.layout.annotations] == ["stays dense from 200", "chosen rank 64"]
    assert "rank 64 keeps 99.6 %" in describe_cumulative_variance(low_rank_layer(), chosen_rank=64)


def test_thinning_keeps_the_head_the_last_and_the_marks():
    index = theme.thin(100_000, keep=[54_321])
    assert len(index) <= theme.MAX_POINTS and set(range(96)) <= set(index) and {54_321, 99_999} <= set(index)


def test_the_outlined_strip_is_the_selected_layer_and_every_strip_can_be_clicked():
    figure = FIGURES["layer_map"].draw(*ARGUMENTS["layer_map"], selected="mlp.2")
    (shape,) = figure.layout.shapes
    assert (shape.y0, shape.y1) == (0.5, 1.5) and figure.layout.yaxis.ticktext[1] == "mlp.2"
    assert figure.data[-1].type == "bar" and list(figure.data[-1].customdata) == ["mlp.0", "mlp.2"]


def test_a_cell_of_a_strip_shows_the_direction_at_its_share_of_the_width():
    narrow, constant = np.array([4.0, 1.0, 0.04, 0.0]), np.zeros(4)
    shades = [strengths(layer_of(values)) for values in (narrow, constant)]
    assert shades[0][[0, 24, 25, 50, 75]].tolist() == [0, 0, -6, -20, -60]
    assert set(shades[1]) == {-60}


@pytest.mark.parametrize("name", ["deepfm", "masknet"])
def test_a_block_lies_below_all_that_it_reads_and_its_layers_share_its_width_by_parameters(name):
    profile = profile_model(make_model(name))
    edges, grey, shaded = model_map(profile, {layer.layer_name: 0.5 for layer in profile.compressible}).data
    starts, ends = edges.y[0::3], edges.y[1::3]
    assert len(starts) == sum(len(block.sources) for block in profile.blocks)
    assert all(start < end for start, end in zip(starts, ends, strict=True))
    assert all(left >= 0 and left + width <= 1 for left, width in zip(shaded.base, shaded.x, strict=True))
    width = dict(zip(shaded.customdata, shaded.x, strict=True)) | dict(zip(grey.customdata, grey.x, strict=True))
    block = next(block for block in profile.blocks if len(profile.layers_of(block.name)) > 1)
    a, b, *_ = profile.layers_of(block.name)
    assert width[a.layer_name] / width[b.layer_name] == pytest.approx(a.parameters / b.parameters)


def layer_of(eigenvalues: np.ndarray) -> LayerSpectrum:
    width = len(eigenvalues)
    return LayerSpectrum(
        layer_name="mlp.0",
        kind="linear",
        eigenvalues=eigenvalues,
        eigenvectors=np.eye(width),
        mean=np.zeros(width),
        num_samples=9,
    )


def test_the_predicted_loss_is_half_the_discarded_eigenvalues():
    layer = dataclasses.replace(layer_of(np.array([1.0, 0.5])), loss_eigenvalues=np.array([0.02, 0.01]))
    (predicted,) = FIGURES["log_loss_rise"].draw(layer).data
    assert predicted.x.tolist() == [1, 2] and predicted.y.tolist() == pytest.approx([5.0, 0.0])


def luminance(color: np.ndarray) -> float:
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def rgb(color: str) -> np.ndarray:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255


@pytest.mark.parametrize("role", theme.ROLES.values(), ids=lambda role: role.name)
@pytest.mark.parametrize("background", ["#fcfcfb", "#14191b"], ids=["light", "dark"])
def test_colours_reach_contrast_three_in_both_themes(role, background):
    low, high = sorted((luminance(rgb(role.color)), luminance(rgb(background))))
    assert (high + 0.05) / (low + 0.05) >= 3.0


#: Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
DICHROMACIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("matrix", DICHROMACIES.values(), ids=DICHROMACIES)
def test_roles_differ_in_colour_for_the_colour_blind_or_else_in_shape(matrix):
    seen = {}
    for role in theme.ROLES.values():
        linear = np.clip(np.asarray(matrix) @ np.power(rgb(role.color), 2.2), 0, 1)
        seen[role.name] = np.power(linear, 1 / 2.2)
    for (a, color_a), (b, color_b) in combinations(seen.items(), 2):
        assert np.linalg.norm(color_a - color_b) > 0.12 or theme.ROLES[a].dash != theme.ROLES[b].dash
    assert len({role.symbol for role in theme.ROLES.values()}) == len(theme.ROLES)
    assert np.linalg.norm(seen["original"] - seen["AFM"]) > 0.3


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (count(1_700_000), "1.70 M"), (count(61_234), "61.2 k"), (count(842), "842"), (count(999_600), "1.00 M"), (count(0), "0"),
        (size(6_800_000), "6.80 MB"), (size(12), "12 B"),
        (times(2.94), "2.9x"), (times(12.3), "12x"),
        (percent(0.0), "0 %"), (percent(1.0), "100 %"),
        (percent(0.999999), "99.99 %"), (percent(0.00001), "< 0.01 %"), (percent(0.012), "1.2 %"),
    ],
)  # fmt: skip
def test_numbers_have_three_significant_digits_and_a_unit(written, text):
    assert written == text


def test_every_colour_of_a_figure_is_brighter_on_a_dark_page():
    for name in FIGURES.names():
        figure = on_dark(FIGURES[name].draw(*ARGUMENTS[name]).to_plotly_json())
        text = json.dumps(figure, default=str)
        assert not [color for color in DARK if color in text], name
    assert on_dark({"a": [ORIGINAL.color, 3], "b": "text"}) == {"a": [DARK[ORIGINAL.color], 3], "b": "text"}


def test_marks_of_variance_lie_on_the_curve_where_the_first_direction_holds_more():
    layer = layer_spectrum([1.0, 1e-4, 1e-5], weights=3)
    marks = FIGURES["cumulative_variance"].draw(layer).data[1]
    assert list(marks.x) == [1] and marks.y[0] == pytest.approx(100 * layer.cumulative[0], rel=1e-6)


def test_long_names_of_layers_are_cut():
    table = pd.DataFrame(
        {"layer": ["x" * 60], "kind": ["linear"], "width": [8], "k90": [1], "k95": [1], "k99": [2], "break_even": [4]}
    )
    drawn = FIGURES["layer_map"].draw(table, {"x" * 60: low_rank_layer()})
    assert len(drawn.layout.yaxis.ticktext[0]) <= 22

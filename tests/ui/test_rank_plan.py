import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from ctrlab.models.profile import LayerProfile
from ctrlab.ui.components.rank_plan import decode, encode


def layers(widths) -> list[LayerProfile]:
    return [
        LayerProfile(layer_name=f"mlp.{number}", kind="linear", in_features=10, out_features=width, parameters=10 * width)
        for number, width in enumerate(widths)
    ]


@settings(suppress_health_check=[HealthCheck.too_slow])  # a loaded machine draws slowly
@given(
    st.lists(st.integers(1, 40).flatmap(lambda width: st.tuples(st.just(width), st.integers(1, width))), min_size=1, max_size=40)
)
def test_a_plan_survives_its_link(pairs):
    some = layers([width for width, _ in pairs])
    ranks = {layer.layer_name: rank for layer, (_, rank) in zip(some, pairs, strict=True)}
    assert decode(encode(ranks, some), some) == ranks


def test_equal_ranks_are_written_once():
    assert encode({"mlp.0": 64, "mlp.1": 2, "mlp.2": 2}, layers([400, 16, 16])) == "64.2x2"


@pytest.mark.parametrize("text", ["", "64", "64.2x3", "401.2x2", "0.2x2", "a.2x2", "64.2xb", "64.2x99999999999", "-1.2x2"])
def test_a_link_that_does_not_fit_is_ignored(text):
    assert decode(text, layers([400, 16, 16])) is None


def test_undo_reverts_a_whole_change_and_redo_restores_it():
    def script() -> None:
        import streamlit as st

        from ctrlab.models.profile import LayerProfile
        from ctrlab.ui.components import rank_plan

        some = [LayerProfile(layer_name=name, kind="linear", in_features=9, out_features=8, parameters=80) for name in ("a", "b")]
        ranks = rank_plan.current("s", some, lambda: {"a": 3})
        seen = [dict(ranks)]
        for step in (lambda: rank_plan.change("s", {"a": 2, "b": 1}), lambda: rank_plan.undo("s"), lambda: rank_plan.redo("s")):
            step()
            seen.append(dict(rank_plan.current("s", some, dict)))
        rank_plan.change("s", {"a": 2})
        st.session_state["seen"] = seen
        st.session_state["can"] = (rank_plan.can_undo("s"), rank_plan.can_redo("s"))

    test = AppTest.from_function(script).run()
    assert test.session_state["seen"] == [{"a": 3, "b": 8}, {"a": 2, "b": 1}, {"a": 3, "b": 8}, {"a": 2, "b": 1}]
    assert test.session_state["can"] == (True, False)  # giving a layer the rank it has is no change
    assert test.query_params["plan"] == "2.1"

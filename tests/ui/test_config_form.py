import pytest
from streamlit.testing.v1 import AppTest


def form() -> None:
    from dataclasses import dataclass
    from typing import Literal

    import streamlit as st

    from ctrlab.config import Config, option
    from ctrlab.ui.components.config_form import config_form

    @dataclass(frozen=True, kw_only=True)
    class Inner(Config):
        epochs: int = option(1, minimum=1, maximum=10, help="Passes.")
        rate: float = option(1e-3, minimum=0.0, maximum=1.0, unit="1/s")
        widths: tuple[int, ...] = option((4, 2), minimum=1, label="Layer widths")
        limit: int | None = option(None, minimum=1)
        kind: Literal["a", "b"] = option("a")
        order: str = option("up", choices=("up", "down"))
        flag: bool = option(False)
        maybe: bool | None = option(None, advanced=True)
        hidden: str = option("kept")

        def faults(self) -> list[str]:
            return ["limit must be below 100 when flag is on"] if self.flag and (self.limit or 0) >= 100 else []

    config = config_form(Inner, key="f", fixed={"hidden": "fixed"})
    st.session_state["result"] = None if config is None else config.to_dict()


@pytest.fixture
def app() -> AppTest:
    return AppTest.from_function(form).run()


def errors(app: AppTest) -> list[str]:
    return [error.value for error in app.error]


def test_untouched_it_gives_the_defaults_and_what_is_fixed(app: AppTest) -> None:
    assert app.session_state["result"] == {
        "version": 1, "epochs": 1, "rate": 1e-3, "widths": [4, 2], "limit": None, "kind": "a", "order": "up", "flag": False,
        "maybe": None, "hidden": "fixed",
    }  # fmt: skip


def test_every_kind_of_setting_comes_back_as_typed(app: AppTest) -> None:
    app.number_input(key="f-epochs").set_value(3)
    app.number_input(key="f-rate").set_value(0.25)
    app.text_input(key="f-widths").set_value("64 32;16")
    app.number_input(key="f-limit").set_value(7)
    app.selectbox(key="f-kind").set_value("b")
    app.selectbox(key="f-order").set_value("down")
    app.toggle(key="f-flag").set_value(True)
    app.selectbox(key="f-maybe").set_value(True)
    app.run()
    result = app.session_state["result"]
    assert {name: result[name] for name in ("epochs", "rate", "widths", "limit", "kind", "order", "flag", "maybe")} == {
        "epochs": 3, "rate": 0.25, "widths": [64, 32, 16], "limit": 7, "kind": "b", "order": "down", "flag": True, "maybe": True,
    }  # fmt: skip


def test_all_faults_show_at_once_by_their_labels_and_what_was_typed_stays(app: AppTest) -> None:
    app.number_input(key="f-epochs").set_value(99)
    app.text_input(key="f-widths").set_value("0, 8")
    app.run()
    assert app.session_state["result"] is None
    assert len(errors(app)) == 1
    assert "Epochs must be between 1 and 10, got 99." in errors(app)[0]
    assert "Layer widths must be at least 1, got 0." in errors(app)[0]
    assert app.number_input(key="f-epochs").value == 99
    assert app.text_input(key="f-widths").value == "0, 8"


def test_text_that_is_no_list_of_numbers_is_a_sentence(app: AppTest) -> None:
    app.text_input(key="f-widths").set_value("many").run()
    assert errors(app) == ["Layer widths must be whole numbers separated by commas, got 'many'."]


def test_faults_across_settings_show_too(app: AppTest) -> None:
    app.number_input(key="f-limit").set_value(100)
    app.toggle(key="f-flag").set_value(True).run()
    assert errors(app) == ["Limit must be below 100 when flag is on."]


def test_a_required_number_that_is_empty_is_a_fault() -> None:
    def required() -> None:
        from dataclasses import dataclass

        from ctrlab.config import Config, option
        from ctrlab.ui.components.config_form import config_form

        @dataclass(frozen=True, kw_only=True)
        class Needed(Config):
            rank: int = option(minimum=1)

        config_form(Needed, key="g")

    app = AppTest.from_function(required).run()
    assert errors(app) == ["Rank is empty; type a number."]
    assert not app.number_input(key="g-rank").set_value(4).run().error


def test_labels_have_units_and_help_has_bounds(app: AppTest) -> None:
    assert app.number_input(key="f-rate").label == "Rate (1/s)"
    assert app.number_input(key="f-epochs").help == "Passes. From 1 to 10."


def locking_form() -> None:
    from dataclasses import dataclass

    import streamlit as st

    from ctrlab.config import Config, option
    from ctrlab.ui.components.config_form import config_form

    @dataclass(frozen=True, kw_only=True)
    class Inner(Config):
        kind: str = option("a", choices=("a", "b"))
        order: str = option("up", choices={"up": "Upwards", "down": "Downwards"})
        other: int = option(3)

    def locked(values):
        return {"order": "down"} if values.get("kind") == "b" else {}

    config = config_form(Inner, key="f", only=("kind", "order"), locked=locked)
    st.session_state["result"] = None if config is None else (config.kind, config.order, config.other)


def test_settings_decided_by_others_are_shown_disabled_and_the_rest_is_left_out() -> None:
    app = AppTest.from_function(locking_form).run()
    assert app.session_state["result"] == ("a", "up", 3) and not app.number_input
    app.selectbox(key="f-kind").set_value("b").run()
    assert app.selectbox(key="f-order").disabled and app.session_state["result"] == ("b", "down", 3)
    app.selectbox(key="f-kind").set_value("a").run()
    assert not app.selectbox(key="f-order").disabled and app.session_state["result"] == ("a", "up", 3)

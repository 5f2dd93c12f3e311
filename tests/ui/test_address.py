"""What decides a result is in the address: another browser with it, and a return to the page, show the same settings."""

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.support.compress_page import open_compress, run_button

SETTINGS: dict[str, Any] = {
    "compress-method": "svd", "compress-bottleneck": "prelu", "compress-basis": "shared", "compress-order": "joint",
    "compress-precision": "int8", "compress-max_rows": 500, "finetune-epochs": 2, "finetune-learning_rate": 0.005, "controls": True,
    "seeds": 3,
}  # fmt: skip


def settings(page: AppTest) -> dict[str, Any]:
    widgets = [*page.selectbox, *page.number_input, *page.toggle, *page.checkbox]
    return {widget.key: widget.value for widget in widgets if widget.key}


def changed(page: AppTest) -> AppTest:
    """The page with every setting of a run set to something that is no default."""
    for name, value in SETTINGS.items():
        widgets = [*page.selectbox, *page.number_input, *page.toggle, *page.checkbox]
        next(widget for widget in widgets if widget.key == name).set_value(value).run()
    assert not page.exception and not page.error
    return page


def test_another_browser_with_the_address_has_the_same_settings(ids) -> None:
    page = changed(open_compress(model=ids["model"]))
    other = open_compress(
        **{name: values if isinstance(values, str) else values[0] for name, values in page.query_params.items()}
    )
    assert settings(other) == settings(page) and settings(other).items() >= SETTINGS.items()
    assert run_button(other).label == run_button(page).label


def test_settings_survive_leaving_the_page_by_a_link_without_them(ids) -> None:
    page = changed(open_compress(model=ids["model"]))
    before, link = settings(page), dict(page.query_params)
    for name in set(link) - {"dataset", "model", "spectra"}:
        del page.query_params[name]
    page.switch_page("pages/Spectra.py").run()
    page.switch_page("pages/Compress.py").run()
    assert not page.exception
    assert settings(page) == before
    assert dict(page.query_params).items() >= link.items()


def test_settings_at_their_defaults_are_not_in_the_address(ids) -> None:
    page = open_compress(model=ids["model"])
    assert set(page.query_params) == {"dataset", "model", "spectra", "plan"}
    page.selectbox(key="compress-method").set_value("svd").run()
    page.selectbox(key="compress-method").set_value("afm").run()
    assert set(page.query_params) == {"dataset", "model", "spectra", "plan"}


@pytest.mark.parametrize("text", ["method:nonsense", "max_rows:-4", "plan:3", "x", ";;:", "method:[1]"])
def test_an_address_that_is_no_setting_changes_nothing(ids, text: str) -> None:
    page = open_compress(model=ids["model"], settings=text, controls="999", goal="speed of light", limit="nan")
    assert not page.exception and not page.error
    assert settings(page) == settings(open_compress(model=ids["model"]))


def test_truncation_alone_is_in_the_address(ids) -> None:
    page = open_compress(model=ids["model"])
    page.toggle(key="finetune-wanted").set_value(False).run()
    assert page.query_params["finetune"] == "no"
    assert open_compress(model=ids["model"], finetune="no").toggle(key="finetune-wanted").value is False

"""The Compress page under test, without a browser."""

from pathlib import Path

from streamlit.testing.v1 import AppTest

from tests.support.patience import PATIENCE

APP = Path(__file__).parents[2] / "app.py"


def open_compress(**query: str) -> AppTest:
    page = AppTest.from_file(str(APP), default_timeout=PATIENCE)
    for key, value in query.items():
        page.query_params[key] = value
    page.switch_page("pages/Compress.py").run()
    assert not page.exception
    return page


def run_button(page: AppTest):
    return next(button for button in page.button if button.key == "run-compress")


def slider(page: AppTest, label: str):
    return next(slider for slider in page.slider if slider.label == label)


def html(page: AppTest) -> str:
    return " ".join(element.proto.body for element in page.get("html"))

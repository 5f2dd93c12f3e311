"""The Compress page under test, without a browser."""

import json
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from ctrlab.ui import cache
from ctrlab.ui.components import rank_plan
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


def editors(page: AppTest) -> list[Any]:
    """The elements of the plan editor on the page: one, or none."""
    return [element for element in page.get("bidi_component") if element.proto.component_name == "ctrlab.plan_editor"]


def editor(page: AppTest) -> dict[str, Any]:
    """The data that the plan editor was drawn with."""
    (element,) = editors(page)
    return json.loads(element.proto.json)


def settings(page: AppTest) -> dict[str, Any]:
    """What the plan editor computes with."""
    return json.loads(editor(page)["settings"])


def _layers(page: AppTest) -> list[Any]:
    """In the order of a plan: linear layers, then tables."""
    model = page.query_params["model"]
    profile = cache.model_profile(cache.workspace(), model if isinstance(model, str) else model[0])
    return sorted(profile.compressible, key=lambda layer: layer.kind == "embedding")


def ranks(page: AppTest) -> dict[str, int]:
    """{layer: rank} as the plan editor was drawn with."""
    found = rank_plan.decode(editor(page)["plan"], _layers(page))
    assert found is not None
    return found


def move(page: AppTest, changes: dict[str, int], **message: Any) -> AppTest:
    """The plan editor reports these ranks beside the others, and the page has run; `message` replaces parts of its message."""
    data = editor(page)
    serial = 1 + (data["seen"][1] if data["seen"] else 0)
    plan = rank_plan.encode({**ranks(page), **changes}, _layers(page))
    return send(page, {"base": data["others"], "client": "browser", "serial": serial, "plan": plan} | message)


def send(page: AppTest, message: Any) -> AppTest:
    """The page after a message of the plan editor that its plan was moved."""
    (element,) = editors(page)
    states = page._tree.get_widget_states()
    state = states.widgets.add()
    state.id = f"$$STREAMLIT_INTERNAL_KEY_{element.proto.id}__events"
    state.json_trigger_value = json.dumps([{"event": "moved", "value": message}])
    page._run(states)
    assert not page.exception
    return page


def html(page: AppTest) -> str:
    return " ".join(element.proto.body for element in page.get("html"))

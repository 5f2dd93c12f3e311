"""Paths on the server's machine: offered at a loopback address only, and opened in a child process."""

from pathlib import Path

import pytest
from streamlit import config

from ctrlab.services import datasets
from ctrlab.ui.path_sources import refusal


@pytest.mark.parametrize(
    ("server", "browser", "host"),
    [
        ("127.0.0.1", None, None),
        ("127.0.0.2", None, "127.0.0.2:8501"),
        ("localhost", None, "localhost:8501"),
        ("::1", "localhost", "[::1]:8501"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
    ],
)
def test_paths_are_offered_at_loopback_addresses(server, browser, host):
    assert refusal(server, browser, host) is None


@pytest.mark.parametrize(
    ("server", "browser", "host", "words"),
    [
        ("0.0.0.0", None, "localhost:8501", "listens at 0.0.0.0"),
        (None, None, None, "listens at every address"),
        ("::", None, None, "listens at ::"),
        ("192.168.1.4", None, None, "192.168.1.4"),
        ("unix:///tmp/socket", None, None, "unix:///tmp/socket"),
        ("127.0.0.1", "ctr.example.org", None, "public address is ctr.example.org"),
        ("127.0.0.1", None, "ctr.example.org", "opened at ctr.example.org"),
        ("127.0.0.1", None, "127.0.0.1.example.org:8501", "opened at"),
    ],
)
def test_paths_are_not_offered_where_others_can_reach_the_dashboard(server, browser, host, words):
    assert words in (refusal(server, browser, host) or "")


@pytest.fixture
def reachable():
    """The server listens on every network."""
    before = config.get_option("server.address")
    config.set_option("server.address", "0.0.0.0")
    yield
    config.set_option("server.address", before)


@pytest.mark.parametrize("way", ["Your table", "Known format"])
def test_a_dashboard_that_others_reach_offers_uploads_only(open_page, reachable, way):
    app = open_page("Data")
    app.button_group(key="data-way").set_value(way).run()
    assert not app.exception
    assert not [field for field in app.text_input if "path" in (field.key or "")]
    assert any("only at a loopback address, and the server listens at 0.0.0.0" in note.value for note in app.caption)
    assert app.get("file_uploader")


def test_a_reachable_dashboard_takes_no_path_of_a_checkpoint(open_page, dataset, reachable):
    app = open_page("Model", dataset=dataset)
    assert not [field for field in app.text_input if field.key == "checkpoint-path"]


def test_a_typed_table_is_not_opened_by_the_dashboards_process(open_page, tmp_path: Path, monkeypatch):
    def never(*args, **options):
        raise AssertionError("opened here")

    monkeypatch.setattr(datasets, "inspect_and_recognise", never)
    (tmp_path / "ads.csv").write_text("click,site\n" + "1,a\n0,b\n" * 40)
    app = open_page("Data")
    app.button_group(key="data-way").set_value("Your table").run()
    app.text_input(key="data-path").set_value(str(tmp_path / "ads.csv"))
    app.button(key="inspect").click().run()
    assert not app.exception and not app.error
    assert app.text_input(key="name-1").value == "ads"


def test_a_known_format_shows_no_cell_of_another_file(open_page, tmp_path: Path):
    secret = tmp_path / "passwd"
    secret.write_text("root:x:0:0:root:/root:/bin/bash\n" + "alice:SECRET:1000:1000::/home/alice:/bin/sh\n" * 50)
    app = open_page("Data")
    app.button_group(key="data-way").set_value("Known format").run()
    for name in ("avazu", "criteo"):
        app.selectbox(key="known-format").set_value(name).run()
        app.text_input(key=f"known-path-{name}").set_value(str(secret))
        app.button(key="inspect-known").click().run()
        assert len(app.error) == 1
        shown = str([(element.type, getattr(element, "value", "")) for element in app.main])
        assert "SECRET" not in shown and "alice" not in shown and "/root" not in shown
        assert "draft" not in app.session_state

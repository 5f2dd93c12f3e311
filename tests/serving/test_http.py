"""`serve-model`: right scores in every form, limits and faults as sentences, another version without a lost request."""

import http.client
import json
import random
import shutil
import threading
import time
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest
import uvicorn

import ctrlab
from ctrlab.services import bundles
from ctrlab.serving.http.app import ServerSettings, create_app
from ctrlab.serving.http.bodies import ARROW, Limits
from ctrlab.serving.http.versions import Versions
from tests.support.browser import free_port

ROW = {"site": "s3", "ad": "a2", "price": 1.5}


@pytest.fixture(scope="module")
def made(small_lab):
    """Two bundles of one model whose scores differ."""
    plain, moved = (small_lab.lab.bundle(small_lab.model.id, calibrate=calibrate) for calibrate in (False, True))
    return plain.path / bundles.BUNDLE_FOLDER, moved.path / bundles.BUNDLE_FOLDER


@contextmanager
def serving(path, **settings):
    """A real server at a free port, ended as SIGTERM ends it."""
    versions = Versions(path)
    server = uvicorn.Server(
        uvicorn.Config(create_app(versions, ServerSettings(**settings)), port=free_port(), log_level="error", lifespan="on")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Client(server.config.port)
    finally:
        server.should_exit = True
        thread.join(20)


class Client:
    def __init__(self, port):
        self.port = port

    def call(self, method, path, body=None, content_type="application/json", **headers):
        """(status, body) of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, body, {"content-type": content_type, **headers})
        response = connection.getresponse()
        found = response.read()
        connection.close()
        return response.status, found

    def score(self, value):
        status, found = self.call("POST", "/v1/score", value if isinstance(value, bytes) else json.dumps(value))
        return status, json.loads(found)


@pytest.fixture(scope="module")
def client(made):
    with serving(made[0]) as client:
        yield client


@pytest.fixture(scope="module")
def bundle(made):
    return ctrlab.load_bundle(made[0])


def test_rows_columns_and_candidates_of_a_user_get_the_bundles_probabilities(client, bundle):
    rows = [ROW, {"site": None, "ad": "never seen", "price": None}, {"site": " s4 ", "ad": "a1", "price": "2.5", "more": [1]}]
    columns = {name: [row[name] for row in rows] for name in ROW}
    expected = bundle.predict({**columns, "price": [1.5, None, 2.5]})
    status, found = client.score({"rows": rows})
    assert status == 200 and found["version"] == bundle.version
    np.testing.assert_allclose(found["probability"], expected, atol=1e-6)
    assert client.score({"columns": columns})[1] == found
    ads = [{"ad": f"a{number}", "price": 1.0} for number in range(300)]
    _, candidates = client.score({"user": {"site": "s3", "price": 9.0}, "candidates": ads})
    alone = bundle.predict({"site": ["s3"] * 300, "ad": [one["ad"] for one in ads], "price": [1.0] * 300})
    np.testing.assert_allclose(candidates["probability"], alone, atol=1e-6)
    assert client.score({"rows": []})[1]["probability"] == []


def test_arrow_streams_are_read_and_written(client, bundle):
    table = pa.table({"ad": ["a1", None], "site": ["s1", "s2"], "price": [0.5, 2.0]})
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    status, body = client.call("POST", "/v1/score", out.getvalue().to_pybytes(), ARROW, accept=ARROW)
    assert status == 200
    np.testing.assert_allclose(pa.ipc.open_stream(body).read_all()["probability"], bundle.predict(table), atol=1e-6)


FAULTS = [
    (b"no json", "no JSON"),
    (b"[" * 100_000, "no JSON"),
    ([1], "no JSON object"),
    ({}, "must have one of rows, columns and candidates"),
    ({"rows": [ROW], "columns": {}}, "must have one of"),
    ({"rows": 5}, "must be a list of objects"),
    ({"rows": [ROW, 5]}, "number 1 is none"),
    ({"rows": [ROW, {"site": "s"}]}, "row 1 has no ad"),
    ({"rows": [{**ROW, "price": "much"}]}, "row 0: price is 'much'"),
    ({"rows": [{**ROW, "price": True}]}, "row 0: price is True"),
    ({"rows": [{**ROW, "site": {"$ne": 1}}]}, "row 0: site is"),
    ({"rows": [{**ROW, "price": 10**400}]}, "row 0: price is"),
    ({"columns": {"site": ["s"], "ad": [], "price": [1]}}, "of one length"),
    ({"columns": {"site": "s", "ad": [], "price": [1]}}, "must be a list of cells"),
    ({"columns": {"site": ["s"]}}, "has no ad, price"),
    ({"user": 3, "candidates": [{}]}, "user must be an object"),
    ({"rows": [{**ROW, "site": "x" * 70_000}]}, "70,000 characters"),
    ({"rows": [ROW] * 10_001}, "10,001 rows"),
]


@pytest.mark.parametrize(("body", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_what_cannot_be_scored_is_one_sentence_with_status_422(client, body, message):
    status, found = client.score(body)
    assert status == 422 and message in found["error"] and "Traceback" not in found["error"]


def test_a_body_larger_than_allowed_is_refused_before_it_is_read(made):
    with serving(made[0], limits=Limits(max_bytes=1000)) as client:
        assert client.score({"rows": [ROW] * 200})[0] == 413
        assert client.score({"rows": [ROW]})[0] == 200


def test_mutated_requests_are_answered_or_refused_and_the_server_goes_on(client):
    draw = random.Random(0)
    whole = json.dumps({"rows": [ROW, {"site": None, "ad": "a", "price": 3}]}).encode()
    for number in range(300):
        body = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            place = draw.randrange(len(body))
            if number % 3 == 0:
                body[place] ^= 1 << draw.randrange(8)
            elif number % 3 == 1:
                del body[place : place + draw.randint(1, 9)]
            else:
                body[place:place] = draw.choice([b'"', b"{", b"null", b"1e999", b"NaN", b"-Infinity", b"\xff", b"\\ud800"])
            if not body:
                break
        status, found = client.call("POST", "/v1/score", bytes(body), draw.choice(["application/json", ARROW, "", "text/plain"]))
        assert status in (200, 422) and b"Traceback" not in found
    assert client.score({"rows": [ROW]})[0] == 200


def test_another_version_takes_over_and_goes_back_while_requests_run(made, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(made[0])
    first, second = (ctrlab.load_bundle(path) for path in made)
    expected = {one.version: float(one.predict({name: [cell] for name, cell in ROW.items()})[0]) for one in (first, second)}
    with serving(link) as client:
        seen, stop = [], threading.Event()

        def ask():
            while not stop.is_set():
                status, found = client.score({"rows": [ROW]})
                seen.append((status, found["version"], found["probability"][0]))

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        link.unlink()
        link.symlink_to(made[1])
        status, changed = client.call("POST", "/v1/reload")
        assert status == 200 and json.loads(changed) == {"version": second.version, "previous": first.version}
        assert client.score({"rows": [ROW]})[1]["version"] == second.version
        assert json.loads(client.call("POST", "/v1/back")[1])["version"] == first.version
        time.sleep(0.2)
        stop.set()
        for asker in askers:
            asker.join()
    assert {version for _, version, _ in seen} >= {first.version}
    for status, version, probability in seen:
        assert status == 200 and probability == pytest.approx(expected[version], abs=1e-6)


def test_a_version_that_cannot_be_served_leaves_the_present_one(made, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(made[0], folder)
    with serving(folder) as client:
        (folder / "model.onnx").write_bytes(b"rubbish")
        status, found = client.call("POST", "/v1/reload")
        assert status == 409 and b"model.onnx of the bundle" in found
        assert client.call("POST", "/v1/back")[0] == 409
        assert client.score({"rows": [ROW]})[0] == 200


def test_when_too_many_wait_the_next_one_is_told_to_come_again(made):
    with serving(made[0], threads=1, max_waiting=2) as client:
        statuses = []

        def ask():
            statuses.append(client.score({"rows": [ROW] * 4000})[0])

        askers = [threading.Thread(target=ask) for _ in range(24)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
    assert set(statuses) == {200, 429}


def test_health_model_metrics_and_openapi(client, bundle):
    assert client.call("GET", "/healthz") == (200, b"ok") and client.call("GET", "/readyz")[1].decode() == bundle.version
    model = json.loads(client.call("GET", "/v1/model")[1])
    assert [column["name"] for column in model["columns"]] == list(bundle.columns) and model["previous"] is None
    client.score({"rows": [ROW, ROW]})
    metrics = client.call("GET", "/metrics")[1].decode()
    assert 'ctrlab_requests_total{status="200"}' in metrics and bundle.version in metrics
    assert "/v1/score" in json.loads(client.call("GET", "/openapi.json")[1])["paths"]


def test_serving_loads_no_torch(made, tmp_path):
    import subprocess
    import sys

    script = (
        "import sys; from pathlib import Path; from ctrlab.serving.http.app import create_app;"
        "from ctrlab.serving.http.versions import Versions; create_app(Versions(Path(sys.argv[1]))); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, made[0]], check=True)

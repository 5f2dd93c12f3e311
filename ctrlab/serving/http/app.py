"""The web application: scores, health, metrics, and another version in place of the present one."""

import asyncio
import ipaddress
import math
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

import ctrlab
from ctrlab.errors import CtrlabError, DataError
from ctrlab.serving.http.batching import Batcher, TooManyRequests
from ctrlab.serving.http.bodies import ARROW, Limits, cells_of_body
from ctrlab.serving.http.versions import Versions

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


@dataclass(frozen=True)
class ServerSettings:
    """limits: of one request. threads: calls of ONNX Runtime at once. max_waiting: requests that wait at most.

    batch_rows: rows of waiting requests that one call takes.
    """

    limits: Limits = field(default_factory=Limits)
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    max_waiting: int = 512
    batch_rows: int = 4096


class _Metrics:
    """Counts of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("ctrlab_requests", "Requests for scores by status", ["status"], registry=self.registry)
        self.rows = Counter("ctrlab_rows", "Rows scored", registry=self.registry)
        self.seconds = Histogram("ctrlab_request_seconds", "Time of a request", buckets=_BUCKETS, registry=self.registry)
        self.in_flight = Gauge("ctrlab_requests_in_flight", "Requests being answered", registry=self.registry)
        self.version = Gauge("ctrlab_version_info", "The version that is served", ["name", "version"], registry=self.registry)


def create_app(versions: Versions, settings: ServerSettings | None = None) -> FastAPI:
    """The application that serves a bundle; OpenAPI at /docs and /openapi.json."""
    settings = settings or ServerSettings()
    batcher = Batcher(settings.threads, settings.batch_rows, settings.max_waiting)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close)

    app = FastAPI(title="ctrlab", version=ctrlab.__version__, lifespan=lifespan, description=_DESCRIPTION)
    metrics = _Metrics()
    _add_scores(app, versions, settings, batcher, metrics)
    _add_operations(app, versions, metrics)
    return app


def _add_scores(app: FastAPI, versions: Versions, settings: ServerSettings, batcher: Batcher, metrics: _Metrics) -> None:
    @app.post("/v1/score", openapi_extra={"requestBody": _BODY}, response_model=None)
    async def score(request: Request) -> Response:
        """Probabilities of a click: of rows, of columns, or of the candidates of one user."""
        started = time.perf_counter()
        with metrics.in_flight.track_inprogress():
            response = await answered(request)
        metrics.requests.labels(status=str(response.status_code)).inc()
        metrics.seconds.observe(time.perf_counter() - started)
        return response

    async def answered(request: Request) -> Response:
        bundle = versions.served.bundle  # of this request from here to its end
        try:
            body = await _body(request, settings.limits.max_bytes)
            if body is None:
                return _error(413, f"the body is larger than {settings.limits.max_bytes:,} bytes; divide the request")
            content_type = request.headers.get("content-type", "")
            cells, rows = cells_of_body(body, content_type, bundle.columns, settings.limits)
            scores: Iterable[Any] = await batcher.score(bundle, cells, rows) if rows else ()
        except TooManyRequests as error:
            return _error(429, str(error), {"retry-after": "1"})
        except DataError as error:
            return _error(422, str(error))
        metrics.rows.inc(rows)
        found = [score if math.isfinite(score) else None for score in map(float, scores)]
        if ARROW in request.headers.get("accept", ""):
            return Response(_arrow(found), media_type=ARROW, headers={"x-version": bundle.version})
        return JSONResponse({"probability": found, "version": bundle.version})


def _add_operations(app: FastAPI, versions: Versions, metrics: _Metrics) -> None:
    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        """The process answers."""
        return "ok"

    @app.get("/readyz", response_class=PlainTextResponse)
    async def readyz() -> str:
        """A checked bundle is served: the server starts with one, and takes no other."""
        return versions.served.bundle.version

    @app.get("/metrics", response_model=None)
    async def scraped() -> Response:
        """Prometheus metrics."""
        metrics.version.clear()
        bundle = versions.served.bundle
        metrics.version.labels(name=bundle.name, version=bundle.version).set(1)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/model", response_model=None)
    async def model() -> Response:
        """Name, version, columns and AUC of the bundle, and the version before it."""
        served = versions.served
        manifest = served.bundle.manifest
        names = ("name", "version", "columns", "form", "calibration", "auc", "ctrlab")
        previous = served.previous.version if served.previous else None
        return JSONResponse({name: manifest.get(name) for name in names} | {"previous": previous})

    @app.post("/v1/reload", response_model=None)
    async def reload(request: Request) -> Response:
        """Serve what is at the path now. From this machine only."""
        return await _changed(request, versions.reload)

    @app.post("/v1/back", response_model=None)
    async def back(request: Request) -> Response:
        """Serve the version before. From this machine only."""
        return await _changed(request, versions.back)


async def _changed(request: Request, change: Any) -> Response:
    client = request.client.host if request.client else ""
    if not _is_loopback(client):
        return _error(403, "versions are changed from the server's own machine only")
    try:
        served = await asyncio.to_thread(change)
    except CtrlabError as error:
        return _error(409, str(error))
    return JSONResponse({"version": served.bundle.version, "previous": served.previous.version if served.previous else None})


async def _body(request: Request, most: int) -> bytes | None:
    """The body; None where it is larger, of which no more is read."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            return None
    return bytes(body)


def _arrow(scores: list[float | None]) -> bytes:
    batch = pa.record_batch({"probability": pa.array(scores, pa.float32())})
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, batch.schema) as stream:
        stream.write_batch(batch)
    return out.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status, headers=headers)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_DESCRIPTION = (
    "Scores raw rows by a bundle. Cells are raw values; null is missing; values that training did not have are allowed."
)
_ROW = {"type": "object", "additionalProperties": True}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "oneOf": [
                    {"type": "object", "required": ["rows"], "properties": {"rows": {"type": "array", "items": _ROW}}},
                    {"type": "object", "required": ["columns"], "properties": {"columns": _ROW}},
                    {
                        "type": "object", "required": ["candidates"],
                        "properties": {"user": _ROW, "candidates": {"type": "array", "items": _ROW}},
                    },
                ]
            }
        },
        ARROW: {"schema": {"type": "string", "format": "binary"}},
    },
}  # fmt: skip

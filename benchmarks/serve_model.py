"""A bundle behind HTTP: latency by candidates, many clients with a new version in the middle, a kill and mutated requests.

    python benchmarks/serve_model.py [--seconds 60] [--clients 200] [--quick]

Server and clients are processes of one machine and share its cores. Every answer is compared with the probability that the bundle
itself gives; after the kill the server is started again and goes on.
"""

import argparse
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from common import PROJECT, Table, Target, write_json
from predict import bundles_of, write_unlabelled

CANDIDATES = (1, 100, 300, 700)
#: Columns of the user: their cells stand for all candidates of a request.
USER = 20


class Server:
    """`ctrlab serve-model` in a process of its own."""

    def __init__(self, path: Path) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.path = path
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "ctrlab", "serve-model", str(self.path), "--port", str(self.port)]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        self.process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL)
        while self.process.poll() is None:
            try:
                if Connection(self.port).call("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("the server did not start")

    def stop(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait(60)


class Connection:
    """One client, which keeps its connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        self._connection.request(method, path, body, {"content-type": "application/json"})
        response = self._connection.getresponse()
        return response.status, response.read()


def request_of(frame: pl.DataFrame) -> bytes:
    """One user with the candidates of some rows; the user's columns are those of the first row."""
    rows = frame.to_dicts()
    names = frame.columns
    user = {name: rows[0][name] for name in names[:USER]}
    candidates = [{name: row[name] for name in names[USER:]} for row in rows]
    return json.dumps({"user": user, "candidates": candidates}).encode()


def latencies(server: Server, frame: pl.DataFrame, seconds: float) -> list[dict[str, float]]:
    """One client, one request after another."""
    client, found = Connection(server.port), []
    for count in CANDIDATES:
        bodies = [request_of(frame[start : start + count]) for start in range(0, 8 * count, count)]
        times: list[float] = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            began = time.perf_counter()
            status, _ = client.call("POST", "/v1/score", bodies[len(times) % len(bodies)])
            assert status == 200
            times.append(1e3 * (time.perf_counter() - began))
        p50, p99 = np.percentile(times[len(times) // 10 :], [50, 99])
        found.append({"candidates": count, "p50": float(p50), "p99": float(p99), "requests": len(times)})
    return found


def crowd(server: Server, link: Path, other: Path, bundles: dict[str, Any], frame: pl.DataFrame, args: Any) -> dict[str, Any]:
    """Many clients for a while; the link is set to another version in the middle."""
    requests = [request_of(frame[start : start + 10]) for start in range(0, 640, 10)]
    truth = {
        version: [bundle.predict_cells(_cells(frame[start : start + 10])) for start in range(0, 640, 10)]
        for version, bundle in bundles.items()
    }
    counts = {"right": 0, "wrong": 0, "refused": 0, "lost": 0}
    versions: set[str] = set()
    lock, until = threading.Lock(), time.monotonic() + args.seconds

    def ask(seed: int) -> None:
        draw, client = random.Random(seed), Connection(server.port)
        while time.monotonic() < until:
            number = draw.randrange(len(requests))
            try:
                status, body = client.call("POST", "/v1/score", requests[number])
                kind = {429: "refused"}.get(status, "lost")
                if status == 200:
                    found = json.loads(body)
                    same = np.allclose(found["probability"], truth[found["version"]][number], atol=1e-5)
                    kind = "right" if same else "wrong"
                    versions.add(found["version"])
            except (OSError, http.client.HTTPException):
                kind, client = "lost", Connection(server.port)
            with lock:
                counts[kind] += 1

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(args.clients)]
    for thread in threads:
        thread.start()
    time.sleep(args.seconds / 2)
    fresh = link.with_suffix(".new")
    fresh.symlink_to(other)
    fresh.replace(link)
    server.process.send_signal(signal.SIGHUP)
    for thread in threads:
        thread.join()
    return counts | {"versions": len(versions), "per_second": sum(counts.values()) / args.seconds}


def mutated(server: Server, frame: pl.DataFrame, count: int) -> dict[str, int]:
    """Statuses of requests with changed bytes."""
    draw, whole, found = random.Random(1), request_of(frame[:3]), dict[str, int]()
    for _ in range(count):
        body = bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            place = draw.randrange(len(body))
            if draw.random() < 0.5:
                body[place] ^= 1 << draw.randrange(8)
            else:
                body[place : place + draw.randint(0, 9)] = draw.randbytes(draw.randint(0, 4))
        status, answer = Connection(server.port).call("POST", "/v1/score", bytes(body))
        assert b"Traceback" not in answer
        found[str(status)] = found.get(str(status), 0) + 1
    return found


def _cells(frame: pl.DataFrame) -> dict[str, list[Any]]:
    """The cells that `request_of` gives."""
    cells = frame.to_dict(as_series=False)
    return {name: [own[0]] * len(own) if place < USER else own for place, (name, own) in enumerate(cells.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="a few seconds, only to see that it runs")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.clients = 3.0, 10
    from ctrlab.data.configs import SourceConfig
    from ctrlab.serving.bundle.read import load_bundle
    from ctrlab.serving.bundle.score import open_for

    with tempfile.TemporaryDirectory() as own:
        folder = Path(own)
        first = 20_000 if args.quick else 200_000
        paths = bundles_of(folder, first)
        write_unlabelled(folder, first, 6_000)
        original, compressed = (load_bundle(path, threads=1) for path in paths.values())
        table = open_for(compressed, SourceConfig(paths=(str(folder / "rows.txt"),)))
        frame = next(iter(table.blocks(list(compressed.columns))))
        link = folder / "current"
        link.symlink_to(compressed.path)
        server = Server(link)
        try:
            times = latencies(server, frame, 0.3 if args.quick else 5.0)
            known = {one.version: one for one in (original, compressed)}
            many = crowd(server, link, original.path, known, frame, args)
            server.stop(signal.SIGKILL)
            server.start()
            status, _ = Connection(server.port).call("POST", "/v1/score", request_of(frame[:10]))
            statuses = mutated(server, frame, 100 if args.quick else 2000)
        finally:
            server.stop(signal.SIGTERM)
    tables = [
        Table(
            "One client, JSON, one user with candidates; DeepFM at the paper's ranks", ["candidates", "p50, ms", "p99, ms"],
            [[str(one["candidates"]), f"{one['p50']:.2f}", f"{one['p99']:.2f}"] for one in times],
            "From sending the request to its answer, the client's time included.",
        ),
        Table(
            f"{args.clients} clients for {args.seconds:.0f} s, ten candidates a request, a new version in the middle",
            ["right", "wrong", "refused with 429", "lost", "versions seen", "requests a second"],
            [[*(f"{many[kind]:,}" for kind in ("right", "wrong", "refused", "lost")), str(many["versions"]),
              f"{many['per_second']:.0f}"]],
        ),
        Table(
            "Mutated requests by status, after a kill -9 and a new start", ["status", "requests"],
            [[name, f"{count:,}"] for name, count in sorted(statuses.items())],
        ),
    ]  # fmt: skip
    targets = [
        Target("wrong scores and lost requests of the crowd", "none", f"{many['wrong']} and {many['lost']}",
               many["wrong"] == many["lost"] == 0),
        Target("mutated requests answered with a status of 500", "none", str(statuses.get("500", 0)), "500" not in statuses),
        Target("the first request after kill -9 and a new start", "right", str(status), status == 200),
    ]  # fmt: skip
    print(*tables, sep="\n")
    found = {"latencies": times, "crowd": many, "mutated": statuses}
    write_json("serve_model", found, tables=tables, targets=targets, quick=args.quick)


if __name__ == "__main__":
    main()

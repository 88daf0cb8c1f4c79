"""The gateway's speed: CPU a request and requests/s against floors and against peers.

One worker and everything else of kedge on one CPU, the load on the other, 32 connections, each
asking again as soon as it is answered. Rounds are interleaved: kedge, each floor, kedge, ...
"""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from common import BENCH, SERVER_CPU, Bench, Others, interval, on, spread, talk, tree
from kedge_site import Site, environment, post, until
from loadgen import closed_loop

from kedge.demo.processes import free_port

SETTLE_S = 0.3
EVERY = 1000
"""All of its processes count."""


class Target(NamedTuple):
    """A server that answers the same question."""

    name: str
    port: int
    path: str
    body: bytes
    pids: Callable[[], list[int]]
    """First the ones whose CPU is a request's, by definition of the figure; then the rest."""
    own: int
    """How many of them count."""

    def wait(self) -> None:
        """Wait until it answers."""
        until(lambda: post(self.port, self.path, self.body) == 200, self.name)


def has(module: str) -> bool:
    """Whether it is installed."""
    return importlib.util.find_spec(module) is not None


FLOORS: dict[str, tuple[str, list[str]]] = {
    "uvicorn_asgi": (
        "uvicorn",
        [
            "uvicorn",
            "floor_app:asgi",
            "--factory",
            "--loop",
            "uvloop",
            "--http",
            "httptools",
            "--ws",
            "none",
            "--lifespan",
            "off",
            "--no-access-log",
            "--log-level",
            "warning",
            "--no-server-header",
            "--no-date-header",
            "--port",
        ],
    ),
    "granian_rsgi": (
        "granian",
        [
            "granian",
            "floor_app:rsgi",
            "--factory",
            "--interface",
            "rsgi",
            "--loop",
            "uvloop",
            "--http",
            "1",
            "--no-ws",
            "--workers",
            "1",
            "--runtime-threads",
            "1",
            "--log-level",
            "warning",
            "--port",
        ],
    ),
    "granian_asgi": (
        "granian",
        [
            "granian",
            "floor_app:asgi",
            "--factory",
            "--interface",
            "asginl",
            "--loop",
            "uvloop",
            "--http",
            "1",
            "--no-ws",
            "--workers",
            "1",
            "--runtime-threads",
            "1",
            "--log-level",
            "warning",
            "--port",
        ],
    ),
}
"""Module that must be there, and how it is started."""
JUDGES = ("uvicorn_asgi", "granian_rsgi")
"""The leaner of these is what kedge is measured against."""


@contextmanager
def floor(name: str, model: Path, path: str, body: bytes) -> Iterator[Target]:
    """A floor that runs."""
    port = free_port()
    command = [sys.executable, "-m", *FLOORS[name][1], str(port)]
    with tempfile.TemporaryFile() as log, on({SERVER_CPU}):
        server = subprocess.Popen(
            command,
            cwd=BENCH,
            env=environment(FLOOR_MODEL=str(model)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield Target(name, port, path, body, lambda: tree(server.pid), own=EVERY)
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def kedge_target(site: Site, endpoint: str, body: bytes) -> Target:
    """kedge as `up` runs it: the worker first, then all the rest of it."""

    def pids() -> list[int]:
        assert site.up is not None
        workers = site.workers()
        return workers + [pid for pid in tree(site.up.pid) if pid not in workers]

    path = f"/v2/models/{endpoint}/infer"
    return Target("kedge", site.port, path, body, pids, len(site.workers()))


def rounds(bench: Bench, targets: list[Target], *, count: int) -> dict[str, list[dict[str, Any]]]:
    """Ask each in turn, again and again; the first turn only warms them up."""
    found: dict[str, list[dict[str, Any]]] = {target.name: [] for target in targets}
    for number in range(1 if bench.quick else 0, count + 1):
        seconds = bench.seconds(2.0, 0.3) if number else SETTLE_S
        for target in targets:
            others = Others()
            row = closed_loop(
                target.port, target.path, target.body, seconds=seconds, pids=target.pids()
            )
            row["others"] = others.share()[0]
            row["own_us"] = sum(row.pop("cpu_us_each")[: target.own])
            if row["errors"]:
                raise RuntimeError(f"{target.name} failed {row['errors']} of {row['requests']}")
            if number:
                found[target.name].append(row)
    return found


def digest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rounds of one server, in short."""
    return {
        "own_us": spread([row["own_us"] for row in rows], 1),
        "tree_us": spread([row["cpu_us"] for row in rows], 1),
        "rps": spread([row["rps"] for row in rows], 0),
        "ms_p50": spread([row["ms"]["p50"] for row in rows]),
        "ms_p99": spread([row["ms"]["p99"] for row in rows]),
        "generator_cpu": spread([row["generator_cpu"] for row in rows], 2),
        "others": spread([row["others"] for row in rows], 2),
    }


def column(rows: list[dict[str, Any]], name: str) -> list[float]:
    """One number of each round."""
    return [row[name] for row in rows]


def ratios(
    above: list[dict[str, Any]], below: list[dict[str, Any]], name: str
) -> tuple[float, dict[str, Any]]:
    """The median ratio of rounds that lay side by side, with its interval."""
    each = [x / y for x, y in zip(column(above, name), column(below, name), strict=True)]
    return statistics.median(each), {"interval": interval(each), "each": spread(each)}


def measure_onnx(bench: Bench, site: Site, endpoint: str, model: Path, body: bytes) -> None:
    """CPU a request against the floors; requests/s; and which server costs least."""
    ours = kedge_target(site, endpoint, body)
    with ExitStack() as stack:
        floors = [
            stack.enter_context(floor(name, model, ours.path, body))
            for name, (module, _) in FLOORS.items()
            if has(module) and (name in JUDGES or not bench.quick)
        ]
        for target in floors:
            target.wait()
        with bench.phase("cpu a request, onnx"):
            found = rounds(bench, [ours, *floors], count=bench.rounds(6, 1))
    costs = {name: statistics.median(column(rows, "own_us")) for name, rows in found.items()}
    leaner = min((name for name in JUDGES if name in costs), key=costs.__getitem__)
    ratio, how = ratios(found["kedge"], found[leaner], "own_us")
    bench.note("gateway_cpu_vs_floor", ratio)
    bench.note("gateway_rps_onnx", statistics.median(column(found["kedge"], "rps")), 0)
    bench.detail["onnx"] = {
        **{name: digest(rows) for name, rows in found.items()},
        "floor": leaner,
        "cpu_vs_floor": {
            **how,
            "whole_tree": ratios(found["kedge"], found[leaner], "cpu_us")[0],
            **{
                f"against_{name}": ratios(found["kedge"], found[name], "own_us")[0]
                for name in found
                if name != "kedge"
            },
        },
    }
    bench.detail["server_choice"] = server_choice(costs, found)


def server_choice(
    costs: dict[str, float], found: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """uvicorn or granian: the same app, the same model, microseconds of CPU a request."""
    floors = {name: round(cost, 1) for name, cost in costs.items() if name != "kedge"}
    return {
        "cpu_us": floors,
        "rps": {name: round(statistics.median(column(found[name], "rps"))) for name in floors},
        "leanest": min(floors, key=floors.__getitem__),
        "missing": [name for name, (module, _) in FLOORS.items() if not has(module)],
    }


def measure_sklearn(
    bench: Bench,
    site: Site,
    endpoint: str,
    body: bytes,
    peers: list[Callable[[], Any]],
    absent: dict[str, str],
) -> None:
    """Requests/s of the same scikit-learn model; then beside each peer that is installed.

    One peer runs at a time: even an idle one would take from the CPU that they share.
    """
    ours = kedge_target(site, endpoint, body)
    with bench.phase("requests/s, scikit-learn"):
        alone = rounds(bench, [ours], count=bench.rounds(5, 1))["kedge"]
    bench.note("gateway_rps_sklearn", statistics.median(column(alone, "rps")), 0)
    detail: dict[str, Any] = {"kedge": digest(alone), "left_out": absent}
    for start in peers:
        try:
            with start() as peer, bench.phase(f"requests/s against {peer.name}"):
                warm_up = bench.seconds(3.0, 1.0)
                closed_loop(peer.port, peer.path, peer.body, seconds=warm_up, pids=[])
                found = rounds(bench, [ours, peer], count=bench.rounds(5, 1))
        except (OSError, TimeoutError, subprocess.SubprocessError) as error:
            absent[start.__name__] = f"did not start: {error}"
            talk(f"  {start.__name__} did not start: {error}")
            continue
        ratio, how = ratios(found["kedge"], found[peer.name], "rps")
        bench.note(f"gateway_rps_vs_{peer.name}", ratio, 2)
        detail[peer.name] = {**digest(found[peer.name]), "kedge_beside_it": digest(found["kedge"])}
        detail[f"vs_{peer.name}"] = how
    bench.detail["sklearn"] = detail

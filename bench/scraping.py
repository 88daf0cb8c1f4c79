"""The cost of a scrape: 5 endpoints in a canary with 200 segments each, while counts change.

A process of its own serves the page that control serves. Meanwhile counts and evidence change each
second, as they do under traffic, so that the page is renewed and scrapes meet renewals.
"""

from __future__ import annotations

import http.client
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from common import SERVER_CPU, Bench, spread

from kedge.adapters.sql.sqlite.create import create
from kedge.core import codec
from kedge.core.access import Access, AccessKind
from kedge.core.evidence.rules import METHOD
from kedge.core.evidence.windows import METRICS, BadUnit, Window
from kedge.core.metrics.samples import MetricFamily
from kedge.core.release.commands import AnyCommand, Canary, Configure, Promote
from kedge.core.release.machine import decide
from kedge.core.stored.roster import Tally
from kedge.core.values import (
    Bundle,
    Field,
    ModelVersion,
    Placement,
    Policy,
    Refusal,
    Signature,
    State,
)
from kedge.engine.loop import Duty
from kedge.engine.process_faults import ProcessFaults
from kedge.engine.recording.recorder import latency_bin
from kedge.engine.watch import Watch, comparison_of
from kedge.operations.metrics import MetricsReader
from kedge.runtime.metrics import MetricsLoop
from kedge.web import server as web
from kedge.web.api import Admin
from kedge.web.app import Front
from kedge.web.metrics import PATH, make_routes
from kedge.workspace import Workplace

ENDPOINTS, SEGMENTS = 5, 200
WARM_S = 300
"""Seconds of windows before the measurement."""
ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
"""What Prometheus 2.42 sends, without the weights."""
SIGNATURE = Signature(inputs=(Field("x", "float32"),), outputs=(Field("y", "float32"),))
AT = "2026-11-23T12:00:00.000000Z"


# ---------------------------------------------------------------- the state


def submit(place: Workplace, endpoint: str, command: AnyCommand) -> None:
    """Append what a command does."""
    row = place.ledger.read().states.get(endpoint, State(endpoint=endpoint))
    events = decide(row, command, AT)
    assert not isinstance(events, Refusal), events.message
    place.ledger.append(endpoint, events, expect=row.epoch, by="bench", reason="a bench", at=AT)


def make(place: Workplace, endpoint: str, *, is_canary: bool = True) -> None:
    """Make an endpoint whose first release is production; its second may be a canary at 50 %."""
    policy = Policy(audience="internal", fields=SIGNATURE.inputs)
    submit(place, endpoint, Configure(policy=policy, digest=codec.fingerprint(policy)))
    for number in (1, 2):
        version = place.registry.add(
            ModelVersion(
                model=endpoint,
                number=0,
                digest=f"sha256:{endpoint}-{number}",
                flavour="onnx",
                signature=SIGNATURE,
                size=10,
                files=(),
                source="bench",
            )
        )
        place.registry.release(
            Bundle(
                endpoint=endpoint,
                model=endpoint,
                version=version.number,
                model_digest=version.digest,
                placement=Placement.INLINE,
                schema=version.schema,
            )
        )
    submit(place, endpoint, Promote(release=1))
    if is_canary:
        submit(place, endpoint, Canary(release=2, weight=5_000))


class Traffic:
    """Counts and evidence of one endpoint, as workers and the patrol store them."""

    def __init__(self, place: Workplace, endpoint: str, seed: int) -> None:
        self.row = place.ledger.read().states[endpoint]
        self._place = place
        self._watch = Watch(self.row)
        self._rng = np.random.default_rng(seed)
        self._names = [f"origin={number}" for number in range(SEGMENTS)]
        self._answered = 0
        self._at = 1_000

    def second(self) -> None:
        """Fold one second of traffic."""
        rng, row = self._rng, self.row
        self._at += 1
        met = rng.poisson(5, (SEGMENTS, 2))
        cells = self._cells(met)
        bad = {metric: self._cells(rng.binomial(met, 0.05)) for metric in METRICS[:3]}
        units = tuple(
            BadUnit(int(u), int(u % 3), int(u % 10_000 < 5_000), (self._names[u % SEGMENTS],))
            for u in rng.integers(0, 50_000, 30)
        )
        window = Window(
            method=METHOD,
            replica="w0",
            number=self._at,
            endpoint=row.endpoint,
            production=1,
            candidate=2,
            salt=row.salt,
            at=self._at,
            weight=row.weight,
            paired=False,
            exposed=cells,
            answered=cells,
            bad=bad,
            units=units,
        )
        self._watch.fold(window)
        self._answered += int(met.sum())

    def _cells(self, counts: np.ndarray) -> dict[str, tuple[int, int]]:
        ours, theirs = counts.sum(axis=0).tolist()
        rows = zip(self._names, counts.tolist(), strict=True)
        return {"": (ours, theirs)} | {name: (a, b) for name, (a, b) in rows if a or b}

    def store(self) -> None:
        """Store what was folded."""
        row, count = self.row, self._answered
        counts = {"requests.production": count, "rows.production": count, "requests.candidate": 9}
        bins = {latency_bin(us): count for us in range(500, 20_000, 500)}
        tally = Tally("h/w0.1", row.endpoint, 1, 2, row.salt, counts, {"production": bins})
        self._place.evidence.publish([tally])
        self._place.windows.keep(row.endpoint, comparison_of(row), self._watch.snapshot())


# ---------------------------------------------------------------- the page


class _Anyone:
    """An identifier without tokens: a look-up in a dictionary is not what is measured."""

    async def identify(self, _: Mapping[str, object]) -> Access:
        """Return an access that may do nothing."""
        return Access("anyone", AccessKind.TOKEN)

    def ended(self, _: Access) -> None:
        """Let every access go on."""

    def is_secure(self, _: Mapping[str, object]) -> bool:
        """Say that Prometheus uses no TLS."""
        return False


class _Timed(MetricsReader):
    """A reader of metrics whose reads are timed."""

    def __init__(self, place: Workplace, *, segments: bool) -> None:
        super().__init__(place, segments=segments)
        self.took: list[float] = []

    def read(self) -> tuple[MetricFamily, ...]:
        """Read, and note the processor time."""
        began = time.thread_time()
        found = super().read()
        self.took.append(1e3 * (time.thread_time() - began))
        return found


def serve(state_dir: Path, told: Connection) -> None:
    """Serve the page as control does, and end when the parent says so."""
    os.sched_setaffinity(0, {SERVER_CPU})
    place = Workplace(state_dir)
    faults = ProcessFaults(place.clock)
    timed = _Timed(Workplace(state_dir), segments=True)
    metrics = MetricsLoop(Duty(place.clock, faults), timed)
    listener = web.listen(0)

    async def never(*_: object) -> object:
        raise AssertionError("no labels come")

    earlier = Admin(lambda _: [], lambda _: [], never)
    app = Front(earlier, make_routes(metrics.page), faults, gate=_Anyone())
    server = web.make_server(app, faults)
    metrics.loop.start("metrics")
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
    told.send(listener.getsockname()[1])
    told.recv()
    told.send(timed.took)
    server.should_exit = True


@contextmanager
def changing(every: list[Traffic]) -> Iterator[None]:
    """Change counts and evidence once a second, one endpoint after the other."""
    ends = threading.Event()

    def work() -> None:
        while not ends.is_set():
            for one in every:
                one.second()
                one.store()
                ends.wait(1 / len(every))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def scrape(port: int) -> tuple[float, bytes]:
    """Scrape once; return the milliseconds and the page."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", PATH, headers={"accept": ACCEPT})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    assert answer.status == 200, body
    return 1e3 * (time.perf_counter() - began), body


def wait_for_page(port: int) -> None:
    """Wait until every endpoint's segments are on the page."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        _, body = scrape(port)
        named = {
            line.split(b'endpoint="')[1][:2] for line in body.splitlines() if b"origin=" in line
        }
        if len(named) == ENDPOINTS:
            return
        time.sleep(0.5)
    raise AssertionError("the page never showed every endpoint")


def measure_scrapes(bench: Bench, root: Path) -> None:
    """Measure `scrape_ms`."""
    state_dir = root / ".kedge"
    create(state_dir)
    place = Workplace(state_dir)
    names = [f"e{number}" for number in range(ENDPOINTS)]
    for name in names:
        make(place, name)
    every = [Traffic(place, name, seed) for seed, name in enumerate(names)]
    with bench.phase("evidence"):
        for one in every:
            for _ in range(bench.rounds(WARM_S, 30)):
                one.second()
            one.store()
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(target=serve, args=(state_dir, theirs))
    child.start()
    port = ours.recv()
    wait_for_page(port)
    took, body = [], b""
    place.database.close()
    # The thread that changes counts opens its own connections.
    for one in every:
        one._place = Workplace(state_dir)  # noqa: SLF001 - this file's own
    with bench.phase("scrapes"), changing(every):
        for _ in range(bench.rounds(600, 60)):
            ms, body = scrape(port)
            took.append(ms)
            time.sleep(0.1)
    ours.send("end")
    renewals = ours.recv()
    child.join(10)
    bench.note("scrape_ms", float(np.quantile(took, 0.95)))
    bench.detail |= {
        "scrape_ms": spread(took),
        "renewal_cpu_ms": spread(renewals),
        "page_kb": len(body) / 1024,
        "series": sum(not line.startswith(b"#") for line in body.splitlines()),
    }

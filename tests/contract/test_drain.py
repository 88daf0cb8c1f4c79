"""A worker that is stopped answers the accepted requests, within limits."""

from __future__ import annotations

import asyncio
import http.client
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import uvicorn
import uvloop

from kedge.engine.relief import RELIEVE
from kedge.engine.serving.serving import Serving
from kedge.gateway.http import server as drains
from kedge.gateway.http.app import Gateway
from kedge.gateway.http.infer import WorkerBounds
from kedge.gateway.http.server import GatewayServer
from support.waiting import wait_until


class Slow(Gateway):
    """A gateway whose every answer holds the loop, as a model within the worker does."""

    def __init__(self, busy_s: float, waits_s: float) -> None:
        bounds = WorkerBounds(body=1000, requests=256)
        super().__init__(Serving(time.monotonic), bounds, lambda: True)
        self.busy_s, self.waits_s = busy_s, waits_s
        self.asked = threading.Event()

    def _look_up(self, route: Any) -> tuple[int, object]:
        self.asked.set()
        time.sleep(self.busy_s)
        return 200, {"draining": self.draining}

    async def _answer(self, send: Any, status: int, body: object, extra: Any = None) -> None:
        if status == 200:
            await asyncio.sleep(self.waits_s)
        await super()._answer(send, status, body, extra)


class Running:
    """A server on its own loop and thread."""

    def __init__(self, drain_s: float, busy_s: float, waits_s: float) -> None:
        self.gateway = Slow(busy_s, waits_s)
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(256)
        self.port: int = self.listener.getsockname()[1]
        config = uvicorn.Config(
            self.gateway, http="httptools", lifespan="off", log_config=None, timeout_keep_alive=75
        )
        self.server = GatewayServer(config, self.gateway, drain_s)
        serving = self.server.serve(sockets=[self.listener])
        self.thread = threading.Thread(target=uvloop.run, args=(serving,), daemon=True)
        self.thread.start()
        wait_until(lambda: self.server.started, "the server to start")

    def tell(self, sig: int = signal.SIGTERM) -> None:
        self.server.handle_exit(sig, None)

    def ends_within(self, seconds: float) -> float:
        began = time.monotonic()
        self.thread.join(seconds)
        assert not self.thread.is_alive()
        return time.monotonic() - began

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.connect()
        return connection

    def ask(self) -> tuple[int, str | None]:
        return answered(self.connect())


def answered(connection: http.client.HTTPConnection) -> tuple[int, str | None]:
    connection.request("GET", "/v2/health/live")
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.getheader("connection")


@pytest.fixture
def run() -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def make(*, drain_s: float = 0.5, busy_s: float = 0.0, waits_s: float = 0.0) -> Running:
        made.append(Running(drain_s, busy_s, waits_s))
        return made[-1]

    yield make
    for one in made:
        one.server.should_exit = True
        one.thread.join(5)


def test_requests_in_the_sockets_are_answered_when_they_outlast_the_drain(
    run: Callable[..., Running],
) -> None:
    """Six requests of 0.3 s, one after another, and a drain of 0.5 s: none is reset."""
    one = run(busy_s=0.3)
    with ThreadPoolExecutor(6) as callers:
        asked = [callers.submit(one.ask) for _ in range(6)]
        one.gateway.asked.wait(5)
        time.sleep(0.1)  # the others are in the kernel by now
        one.tell()
        got = [future.result() for future in asked]
    assert [status for status, _ in got] == [200] * 6
    assert [word for _, word in got].count("close") >= 5
    one.ends_within(2)


def test_a_request_that_outlasts_every_limit_is_refused_with_a_message(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepted by the kernel and too late for an answer: a 503 that asks to hang up, and no reset."""
    monkeypatch.setattr(drains, "REST_S", 0.5)
    monkeypatch.setattr(drains, "REFUSE_S", 2.0)
    one = run(drain_s=0.2, busy_s=0.3)
    with ThreadPoolExecutor(12) as callers:
        asked = [callers.submit(one.ask) for _ in range(12)]
        one.gateway.asked.wait(5)
        time.sleep(0.1)
        one.tell()
        got = [future.result() for future in asked]
    statuses = [status for status, _ in got]
    assert set(statuses) == {200, 503}
    assert all(word == "close" for status, word in got if status == 503)
    one.ends_within(3)


def test_a_request_under_way_at_the_last_bound_is_refused_in_words(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that does not answer does not hold the process."""
    monkeypatch.setattr(drains, "REST_S", 0.2)
    monkeypatch.setattr(drains, "REFUSE_S", 0.2)
    one = run(drain_s=0.1, waits_s=60)
    with ThreadPoolExecutor(1) as callers:
        asked = callers.submit(one.ask)
        one.gateway.asked.wait(5)
        one.tell()
        assert asked.result() == (503, "close")
    one.ends_within(2)


def test_a_kept_connection_is_answered_within_the_drain_and_closed_after_it(
    run: Callable[..., Running],
) -> None:
    """Its next answer asks to hang up; an idle one is closed when the drain is over."""
    one = run(drain_s=1.0)
    asking, idle = one.connect(), one.connect()
    assert answered(asking) == (200, None)
    assert answered(idle) == (200, None)
    one.tell()
    time.sleep(0.2)
    assert answered(asking) == (200, "close")
    assert idle.sock is not None
    assert idle.sock.recv(1) == b""
    one.ends_within(1)


def test_a_drain_ends_with_the_last_connection(run: Callable[..., Running]) -> None:
    """Nothing is open: there is nothing to wait for."""
    one = run(drain_s=30)
    one.tell()
    assert one.ends_within(2) < 1


def test_a_relieved_worker_waits_for_its_idle_callers_until_it_is_stopped(
    run: Callable[..., Running],
) -> None:
    """Others serve: a slow caller is answered once more, long after `drain_s`."""
    one = run(drain_s=0.1)
    slow, idle = one.connect(), one.connect()
    assert answered(slow) == (200, None)
    assert answered(idle) == (200, None)
    one.tell(RELIEVE)
    time.sleep(1)
    assert answered(slow) == (200, "close")
    assert one.thread.is_alive()
    with pytest.raises(ConnectionError):
        one.connect()
    one.tell()
    one.tell(RELIEVE)  # does not prolong it
    one.ends_within(2)


def test_a_draining_worker_is_not_ready(run: Callable[..., Running]) -> None:
    """A load balancer that asks on an open connection hears it."""
    one = run(drain_s=5)
    one.gateway._look_up = lambda route: Gateway._look_up(one.gateway, route)  # type: ignore[method-assign]
    one.gateway.waits_s = 0
    probe = one.connect()
    probe.request("GET", "/v2/health/ready")
    ready = probe.getresponse()
    ready.read()
    one.tell()
    time.sleep(0.1)
    probe.request("GET", "/v2/health/ready")
    draining = probe.getresponse()
    draining.read()
    assert (ready.status, draining.status) == (200, 503)

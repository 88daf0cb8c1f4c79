"""The load generator, a separate process: open loop at a rate, or closed loop at full speed.

Open loop: a request is due every 1/rate s whatever the server does, and its latency counts from
that moment, so a server that stalls is also charged for the requests that were not sent meanwhile. The
kernel's timer says when one is due (an event loop's own has a grain of a millisecond). Requests
go round kept-alive connections, are never repeated, and each leaves one record. Where it is
allowed to, the generator runs at real-time priority: what shares its CPU must not look like
lateness of the server.

Closed loop: a fixed number of connections, each asking again as soon as it is answered; or a
single one that leaves a record of each request.

Run as a script it is the generator; `OpenLoad`, `OneCaller` and `closed_loop` start one and read
its records.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from array import array
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import msgspec
import uvloop
from common import LOAD_CPU, cpu_s, on, spread

PATIENCE_S = 2.0
"""A caller that has waited for so long has been failed."""
SWEEP_S = 0.05
MOST_CONNECTIONS = 512
ENTITIES = 1000
PRIORITY = 10
WARM_S = 0.2


class Record(msgspec.Struct, array_like=True, gc=False):
    """One request as its caller saw it. Instants are CLOCK_MONOTONIC, in seconds."""

    due: float
    sent: float = 0.0
    done: float = 0.0
    status: int = 0
    release: str = ""
    marked: bool = False
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the caller got what it asked for."""
        return self.status == 200 and not self.error

    @property
    def ms(self) -> float:
        """From the moment at which it was due."""
        return (self.done - self.due) * 1e3


def request_bytes(port: int, path: str, body: bytes, entity: str = "") -> bytes:
    """One HTTP/1.1 POST."""
    named = f"kedge-entity: {entity}\r\n" if entity else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Accept: application/json\r\n{named}Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def whole(data: bytes) -> tuple[int, bytes, bytes, int] | None:
    """Status, head, body and length of an answer; None while a part of it is missing."""
    at = data.find(b"\r\n\r\n")
    if at < 0:
        return None
    head = data[:at].lower()
    start = at + 4
    length = head.find(b"content-length:")
    if length >= 0:
        end = start + int(head[length + 15 :].split(b"\r", 1)[0])
        if len(data) < end:
            return None
    elif b"chunked" in head:
        if not data.endswith(b"0\r\n\r\n"):
            return None
        end = len(data)
    else:
        end = start
    return int(head[9:12]), head, data[start:end], end


def field(head: bytes, name: bytes) -> str:
    """A header's value."""
    at = head.find(b"\r\n" + name + b":")
    return head[at + len(name) + 3 :].split(b"\r", 1)[0].strip().decode() if at >= 0 else ""


# ---------------------------------------------------------------- open loop


class Caller(asyncio.Protocol):
    """One kept-alive connection; at most one request is under way on it."""

    __slots__ = ("asked", "data", "owner", "reusable", "transport", "under_way")

    def __init__(self, owner: Open) -> None:
        self.owner = owner
        self.transport: asyncio.Transport
        self.under_way: Record | None = None
        self.data = b""
        self.asked = 0
        self.reusable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def ask(self, record: Record, raw: bytes) -> None:
        self.under_way = record
        self.asked += 1
        record.sent = time.monotonic()
        self.transport.write(raw)

    def data_received(self, data: bytes) -> None:
        self.data = self.data + data if self.data else data
        found = whole(self.data)
        record = self.under_way
        if found is None:
            return
        if record is None:
            self.drop()
            return
        record.done = time.monotonic()
        record.status, head, body, _ = found
        record.release = field(head, b"kedge-release")
        record.marked = self.owner.mark in body
        self.data, self.under_way = b"", None
        if b"\r\nconnection: close" in head:
            self.reusable = False
            self.transport.close()
        self.owner.answered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.reusable = False
        if self.under_way is not None:
            silent = self.asked > 1 and not self.data
            self.fail("stale" if silent else "reset")

    def fail(self, error: str) -> None:
        record, self.under_way = self.under_way, None
        if record is not None:
            record.error, record.done = error, time.monotonic()
            self.owner.failed(self)

    def drop(self) -> None:
        self.reusable = False
        self.transport.abort()


class Open:
    """Asks at a steady rate until it is stopped."""

    def __init__(self, given: argparse.Namespace, body: bytes) -> None:
        self.mark = given.mark.encode() or b"\0"
        self._port: int = given.port
        self._raw = [
            request_bytes(given.port, given.path, body, f"caller-{n}") for n in range(ENTITIES)
        ]
        self._period_ns = round(1e9 / given.rate)
        self._keep: int = given.connections
        self._idle: deque[Caller] = deque()
        self._busy: set[Caller] = set()
        self._opening = 0
        self._records: list[Record] = []
        self._began = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    async def run(self) -> list[Record]:
        """Ask, until SIGTERM; what is under way then is still waited for."""
        ended = asyncio.Event()
        self._loop.add_signal_handler(signal.SIGTERM, ended.set)
        for _ in range(self._keep):
            self._idle.append(
                (await self._loop.create_connection(self._caller, "127.0.0.1", self._port))[1]
            )
        timer, begins_ns = periodic(self._period_ns)
        self._began = begins_ns / 1e9
        realtime = hurry()
        gc.collect()
        gc.disable()
        print(
            msgspec.json.encode({"began": self._began, "realtime": realtime}).decode(), flush=True
        )
        self._loop.add_reader(timer, self._due, timer)
        self._loop.call_later(SWEEP_S, self._sweep)
        await ended.wait()
        self._loop.remove_reader(timer)
        os.close(timer)
        while self._busy or self._opening:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(SWEEP_S)
        return self._records

    def _caller(self) -> Caller:
        return Caller(self)

    def _due(self, timer: int) -> None:
        try:
            (times,) = struct.unpack("Q", os.read(timer, 8))
        except BlockingIOError:
            return
        for _ in range(times):
            record = Record(self._began + len(self._records) * self._period_ns / 1e9)
            self._records.append(record)
            self._send(record)

    def _send(self, record: Record) -> None:
        raw = self._raw[len(self._records) % ENTITIES]
        while self._idle:
            caller = self._idle.popleft()
            if caller.reusable and not caller.transport.is_closing():
                self._busy.add(caller)
                caller.ask(record, raw)
                return
        if len(self._busy) + self._opening >= MOST_CONNECTIONS:
            record.error, record.done = "too_many_connections", time.monotonic()
            return
        self._opening += 1
        task = self._loop.create_task(self._open(record, raw))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, record: Record, raw: bytes) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                made = await self._loop.create_connection(self._caller, "127.0.0.1", self._port)
        except TimeoutError:
            record.error, record.done = "timeout", time.monotonic()
        except OSError:
            record.error, record.done = "refused", time.monotonic()
        else:
            self._busy.add(made[1])
            made[1].ask(record, raw)
        finally:
            self._opening -= 1

    def answered(self, caller: Caller) -> None:
        """Take the connection back."""
        self._busy.discard(caller)
        if caller.reusable:
            self._idle.append(caller)

    def failed(self, caller: Caller) -> None:
        """Forget the connection."""
        self._busy.discard(caller)

    def _sweep(self) -> None:
        """Give up what has been waited for too long."""
        now = time.monotonic()
        for caller in list(self._busy):
            if caller.under_way is not None and now - caller.under_way.due > PATIENCE_S:
                caller.fail("timeout")
                caller.drop()
        self._loop.call_later(SWEEP_S, self._sweep)


def periodic(period_ns: int) -> tuple[int, int]:
    """A kernel timer that is readable whenever a period has passed; and its first instant."""
    libc = ctypes.CDLL(None, use_errno=True)
    timer = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    first_ns = time.monotonic_ns() + 50_000_000
    spec = (ctypes.c_long * 4)(
        period_ns // 10**9, period_ns % 10**9, first_ns // 10**9, first_ns % 10**9
    )
    if timer < 0 or libc.timerfd_settime(timer, 1, spec, None):
        raise OSError(ctypes.get_errno(), "no timer")
    return timer, first_ns


def hurry() -> bool:
    """Ask for real-time priority; whether it was given."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError:
        return False
    return True


# ---------------------------------------------------------------- closed loop


class Asker(asyncio.Protocol):
    """One connection that asks again as soon as it is answered. As lean as it can be."""

    __slots__ = ("data", "owner", "raw", "sent", "transport", "usual")

    def __init__(self, owner: Closed) -> None:
        self.owner = owner
        self.raw = owner.raw
        self.data = b""
        self.usual = -1
        self.sent = 0.0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.owner.askers.append(self)
        self.ask()

    def ask(self) -> None:
        self.sent = time.perf_counter()
        self.transport.write(self.raw)

    def data_received(self, data: bytes) -> None:
        if self.data:
            data = self.data + data
        # The same question has the same answer: one of the usual length is whole.
        if len(data) != self.usual or not data.startswith(b"HTTP/1.1 200"):
            found = whole(data)
            if found is None:
                self.data = data
                return
            status, _, _, length = found
            if status != 200:
                self.owner.errors += 1
            self.usual = length
        self.data = b""
        owner = self.owner
        owner.answers += 1
        if owner.timing:
            owner.times.append(time.perf_counter() - self.sent)
        if not owner.over:
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if not self.owner.over:
            self.owner.errors += 1


class Closed:
    """A fixed number of connections for a fixed time."""

    def __init__(self, given: argparse.Namespace, body: bytes) -> None:
        self.raw = request_bytes(given.port, given.path, body)
        self._given = given
        self.askers: list[Asker] = []
        self.answers = self.errors = 0
        self.times: array[float] = array("d")
        self.timing = self.over = False

    async def run(self) -> dict[str, Any]:
        """Warm up, measure, stop."""
        loop = asyncio.get_running_loop()
        gc.disable()
        for _ in range(self._given.connections):
            await loop.create_connection(lambda: Asker(self), "127.0.0.1", self._given.port)
        await asyncio.sleep(WARM_S)
        began, before = time.perf_counter(), self.answers
        own = time.process_time()
        self.timing = True
        await asyncio.sleep(self._given.seconds)
        self.timing = False
        seconds, answers = time.perf_counter() - began, self.answers - before
        own = time.process_time() - own
        self.over = True
        await asyncio.sleep(SWEEP_S)
        for asker in self.askers:
            asker.transport.abort()
        return {
            "rps": answers / seconds,
            "requests": self.answers,
            "errors": self.errors,
            "generator_cpu": own / seconds,
            "ms": spread([each * 1e3 for each in self.times]),
        }


def one_caller(given: argparse.Namespace, body: bytes) -> list[Record]:
    """Ask again as soon as it is answered, on one connection, until SIGTERM."""
    over: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: over.append(number))
    raws = [request_bytes(given.port, given.path, body, f"caller-{n}") for n in range(ENTITIES)]
    records: list[Record] = []
    gc.disable()
    with socket.create_connection(("127.0.0.1", given.port), PATIENCE_S) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(
            msgspec.json.encode({"began": time.monotonic(), "realtime": False}).decode(), flush=True
        )
        while not over:
            record = Record(time.monotonic())
            records.append(record)
            line.sendall(raws[len(records) % ENTITIES])
            data = line.recv(1 << 16)
            while data and whole(data) is None:
                data += line.recv(1 << 16)
            record.done = time.monotonic()
            found = whole(data)
            if found is None:
                record.error = "reset"
                break
            record.status, head, _, _ = found
            record.release = field(head, b"kedge-release")
    return records


# ---------------------------------------------------------------- the driver's side


def _command(mode: str, port: int, path: str, connections: int, body: Path) -> list[str]:
    return [
        sys.executable,
        __file__,
        mode,
        "--port",
        str(port),
        "--path",
        path,
        "--connections",
        str(connections),
        "--body",
        str(body),
    ]


def closed_loop(
    port: int, path: str, body: bytes, *, seconds: float, connections: int = 32, pids: list[int]
) -> dict[str, Any]:
    """Ask as fast as the server answers; adds the CPU that these processes spent on a request."""
    with tempfile.NamedTemporaryFile(suffix=".body") as file:
        file.write(body)
        file.flush()
        command = _command("closed", port, path, connections, Path(file.name))
        before = [cpu_s([pid]) for pid in pids]
        with on({LOAD_CPU}):
            done = subprocess.run(
                [*command, "--seconds", str(seconds)],
                capture_output=True,
                text=True,
                check=True,
                timeout=seconds + 60,
            )
        spent = [cpu_s([pid]) - was for pid, was in zip(pids, before, strict=True)]
    found: dict[str, Any] = msgspec.json.decode(done.stdout)
    asked = max(found["requests"], 1)
    found["cpu_us"] = sum(spent) / asked * 1e6
    found["cpu_us_each"] = [each / asked * 1e6 for each in spent]
    return found


class Generator:
    """A generator that runs beside what is measured; `stop` gives its records."""

    def __init__(
        self,
        mode: str,
        port: int,
        path: str,
        body: bytes,
        *,
        cpu: int,
        connections: int = 1,
        more: Sequence[str] = (),
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="load-")
        folder = Path(self._folder.name)
        (folder / "body").write_bytes(body)
        self._out = folder / "records"
        command = _command(mode, port, path, connections, folder / "body")
        command += ["--out", str(self._out), *more]
        with on({cpu}):
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        said = msgspec.json.decode(self.process.stdout.readline())
        self.began: float = said["began"]
        self.realtime: bool = said["realtime"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._folder.cleanup()

    def stop(self) -> list[Record]:
        """End the load; every request that was due is accounted for."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S + 30)
        return msgspec.json.decode(self._out.read_bytes(), type=list[Record])


class OpenLoad(Generator):
    """Requests at a steady rate."""

    def __init__(
        self,
        port: int,
        path: str,
        body: bytes,
        *,
        rate: float,
        mark: bytes = b"",
        connections: int = 32,
        cpu: int = LOAD_CPU,
    ) -> None:
        super().__init__(
            "open",
            port,
            path,
            body,
            cpu=cpu,
            connections=connections,
            more=("--rate", str(rate), "--mark", mark.decode()),
        )


class OneCaller(Generator):
    """One caller that asks again as soon as it is answered."""

    def __init__(self, port: int, path: str, body: bytes, *, cpu: int) -> None:
        super().__init__("one", port, path, body, cpu=cpu)


def within(records: list[Record], begin: float, end: float) -> list[Record]:
    """Those that were due in a window."""
    return [record for record in records if begin <= record.due < end]


def failures(records: list[Record]) -> dict[str, int]:
    """How many requests failed, by how."""
    found: dict[str, int] = {}
    for record in records:
        if not record.ok:
            kind = record.error or f"http_{record.status}"
            found[kind] = found.get(kind, 0) + 1
    return found


def longest_gap_ms(records: list[Record], begin: float, end: float) -> float:
    """The longest time without a good answer in a window."""
    times = sorted(record.done for record in records if record.ok and begin <= record.done < end)
    edges = [begin, *times, end]
    return max(after - before for before, after in pairwise(edges)) * 1e3


def main() -> None:
    """Be the generator."""
    parser = argparse.ArgumentParser(description="The load generator of the benches.")
    parser.add_argument("mode", choices=["open", "closed", "one"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--body", type=Path, required=True)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--mark", default="")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    body = given.body.read_bytes()
    if given.mode == "one":
        given.out.write_bytes(msgspec.json.encode(one_caller(given, body)))
        return

    async def go() -> None:
        if given.mode == "closed":
            print(msgspec.json.encode(await Closed(given, body).run()).decode())
        else:
            given.out.write_bytes(msgspec.json.encode(await Open(given, body).run()))

    uvloop.run(go())


if __name__ == "__main__":
    main()

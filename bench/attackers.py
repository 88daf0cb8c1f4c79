"""Attackers of one gateway worker, in a process of their own: each kind at a stated rate.

Every kind is bounded in connections, bytes and time, and goes to loopback only. What is closed
or refused is replaced at the stated rate, as an attacker would. `burn` takes the attacker's
place in a baseline: it spends as much CPU as the attacker did.

Run as a script it is the attacker; `Attacker` and `Burner` start one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
import uvloop
from common import LOAD_CPU, cpu_s, on
from kedge_site import Site

LONGEST_S = 10.0
"""An attacker ends by itself after this long."""
BEHIND_S = 0.1
"""An attacker that is later than this does not catch up: its rate stays the stated one."""
MB = 2**20
BODY = 8 * MB - 4096
"""A body just below the default of `max_body_mb`."""
SLICE_S = 0.01
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Kind(NamedTuple):
    """One kind of attack: its description and its function."""

    told: str
    run: Callable[[Attack], Awaitable[None]]


class Line(asyncio.Protocol):
    """One connection of the attacker."""

    def __init__(self, owner: Attack, *, deaf: bool = False) -> None:
        self.owner = owner
        self.deaf = deaf
        self.open = True
        self.answers = 0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.owner.lines.add(self)
        if self.deaf:
            # Later: the transport begins to read after this call.
            asyncio.get_running_loop().call_soon(self.transport.pause_reading)

    def send(self, data: bytes) -> None:
        """Send, unless so much waits already that the server has stopped reading."""
        if self.open and self.transport.get_write_buffer_size() < MB:
            self.transport.write(data)
            self.owner.sent += len(data)

    def data_received(self, data: bytes) -> None:
        for status in STATUS.findall(data):
            self.answers += 1
            self.owner.answers[status.decode()] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self.owner.lines.discard(self)
        self.owner.closed["reset" if exc is not None else "closed"] += 1

    def close(self) -> None:
        self.transport.abort()


class Attack:
    """One attack and its result."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.port: int = given.port
        self.control_port: int = given.control_port
        self.token: str = given.token_file.read_text().strip() if given.token_file else ""
        self.body: bytes = given.body.read_bytes()
        self.lines: set[Line] = set()
        self.sent = self.connections = 0
        self.answers: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.began = time.monotonic()

    async def line(self, *, port: int = 0, deaf: bool = False) -> Line | None:
        """Open a connection; None where it is refused."""
        loop = asyncio.get_running_loop()
        door = socket.socket()
        door.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        if deaf:
            # Packets as they are elsewhere: loopback's would let the kernel hold megabytes of each answer.
            door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            door.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        try:
            await loop.sock_connect(door, ("127.0.0.1", port or self.port))
            made: Line = (await loop.create_connection(lambda: Line(self, deaf=deaf), sock=door))[1]
        except OSError as error:
            door.close()
            self.closed[type(error).__name__] += 1
            return None
        self.connections += 1
        return made

    @staticmethod
    def ready() -> None:
        """Say that what is to be held is held."""
        print("ready", flush=True)

    def head(self, path: str, length: int, *more: str) -> bytes:
        """The head of a POST."""
        lines = (
            f"POST {path} HTTP/1.1",
            "Host: 127.0.0.1",
            "Content-Type: application/json",
            *more,
            f"Content-Length: {length}",
        )
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def told(self) -> dict[str, Any]:
        """What became of it."""
        return {
            "seconds": time.monotonic() - self.began,
            "connections": self.connections,
            "open": len(self.lines),
            "sent": self.sent,
            "answers": dict(self.answers),
            "closed": dict(self.closed),
        }


async def paced(rate: float) -> AsyncIterator[int]:
    """Count at a steady rate."""
    due, number = time.monotonic(), 0
    while True:
        yield number
        number += 1
        due += 1 / rate
        now = time.monotonic()
        if due < now - BEHIND_S:
            due = now
        await asyncio.sleep(max(0.0, due - now))


async def hold(
    attack: Attack, most: int, rate: float, begin: Callable[[Line], None], *, deaf: bool = False
) -> None:
    """Hold so many connections, and replace what is closed, at most so many a second."""
    told = False
    async for number in paced(rate):
        if len(attack.lines) < most and (line := await attack.line(deaf=deaf)):
            begin(line)
        if not told and (len(attack.lines) >= most or number > most):
            told = True
            attack.ready()


# ---------------------------------------------------------------- the kinds

INFER = "/v2/models/flights/infer"


async def endless_heads(attack: Attack) -> None:
    attack.ready()
    lines: list[Line | None] = [None] * 4
    piece = b"x" * 65536
    async for number in paced(64):
        at = number % 4
        line = lines[at]
        if line is None or not line.open:
            line = lines[at] = await attack.line()
            if line is not None:
                line.send(f"POST {INFER} HTTP/1.1\r\nHost: x\r\na: ".encode())
        if line is not None:
            line.send(piece)


async def many_headers(attack: Attack) -> None:
    attack.ready()
    raw = attack.head(INFER, 0, *(f"h{number}: {'y' * 20}" for number in range(1000)))
    async for _ in paced(100):
        if line := await attack.line():
            line.send(raw)


async def half_bodies(attack: Attack) -> None:
    raw = attack.head(INFER, len(attack.body)) + attack.body[:1]
    await hold(attack, 700, 700, lambda line: line.send(raw))


async def slow_bodies(attack: Attack) -> None:
    raw = attack.head(INFER, MB)
    waiting = list(range(200))
    lines: list[Line | None] = [None] * 200
    for at in waiting:
        if line := await attack.line():
            line.send(raw)
            lines[at] = line
    attack.ready()
    async for number in paced(1000):
        at = number % 200
        line = lines[at]
        if line is None or not line.open:
            line = lines[at] = await attack.line()
            if line is not None:
                line.send(raw)
        if line is not None:
            line.send(b" " * 400)


async def idle_connections(attack: Attack) -> None:
    await hold(attack, 1000, 500, lambda line: None)


def tensor(data: str) -> bytes:
    """A request with this as its data."""
    return (
        '{"inputs":[{"name":"X","datatype":"FP32","shape":[1,20],"data":' + data + "}]}"
    ).encode()


async def large(attack: Attack, body: bytes, rate: float) -> None:
    raw = attack.head(INFER, len(body)) + body
    attack.ready()
    async for _ in paced(rate):
        if line := await attack.line():
            line.send(raw)


async def deep_bodies(attack: Attack) -> None:
    await large(attack, tensor("[" + ("[" * 200 + "]" * 200 + ",") * (BODY // 401 - 1) + "1]"), 1)


async def wide_bodies(attack: Attack) -> None:
    await large(attack, tensor("[" + "[]," * (BODY // 3 - 60) + "[]]"), 1)


async def slow_readers(attack: Attack) -> None:
    raw = (attack.head("/v2/models/wide/infer", len(attack.body)) + attack.body) * 4
    for rate, most in ((60, 30), (5, 60)):
        async for _ in paced(rate):
            if len(attack.lines) >= most:
                break
            if line := await attack.line(deaf=True):
                line.send(raw)
        if rate == 60:
            attack.ready()
    await asyncio.sleep(LONGEST_S)


async def large_names(attack: Attack) -> None:
    attack.ready()
    named = attack.head(INFER, len(attack.body), f"kedge-entity: {'e' * 20_000}") + attack.body
    body = b'{"id":"' + b"i" * 64_000 + b'",' + attack.body[1:]
    given = attack.head(INFER, len(body)) + body
    line = None
    async for number in paced(100):
        if line is None or not line.open:
            line = await attack.line()
        if line is not None:
            line.send(given if number % 2 else named)


async def made_up_names(attack: Attack) -> None:
    attack.ready()
    line = None
    start = f"{time.time_ns():x}"
    async for number in paced(100):
        if line is None or not line.open:
            line = await attack.line()
        if line is not None:
            name = f"{start}-{number}"
            said = {"name": "word", "datatype": "BYTES", "shape": [1], "data": [f"segment-{name}"]}
            row = {"name": "X", "datatype": "FP32", "shape": [1, 20], "data": [0.5] * 20}
            body = json.dumps({"id": name, "inputs": [row, said]}).encode()
            head = attack.head("/v2/models/names/infer", len(body), f"kedge-entity: caller-{name}")
            line.send(head + body)


async def many_connections(attack: Attack) -> None:
    attack.ready()
    raw = attack.head(INFER, len(attack.body), "Connection: close") + attack.body
    async for _ in paced(200):
        if line := await attack.line():
            line.send(raw)


async def mirrored_bytes(attack: Attack) -> None:
    attack.ready()
    start = f"{time.time_ns():x}"
    line = None
    async for number in paced(10):
        if line is None or not line.open:
            line = await attack.line()
        if line is not None:
            path, entity = "/v2/models/fat/infer", f"kedge-entity: caller-{start}-{number}"
            line.send(attack.head(path, len(attack.body), entity) + attack.body)


async def control_bodies(attack: Attack) -> None:
    path, kind = "/api/outcomes/flights", "Content-Type: application/x-ndjson"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {attack.token}\r\n{kind}\r\n"
        "Content-Length: "
    )
    half = b"\n" * (8 * MB)
    for _ in range(8):
        if line := await attack.line(port=attack.control_port):
            line.send(f"{head}{16 * MB}\r\n\r\n".encode())
            line.transport.write(half)
            attack.sent += len(half)
    batch = b"".join(b'{"id":"x-%d","value":1}\n' % number for number in range(20_000))
    raw = f"{head}{len(batch)}\r\n\r\n".encode() + batch
    attack.ready()
    async for _ in paced(2):
        if line := await attack.line(port=attack.control_port):
            line.send(raw)


KINDS: dict[str, Kind] = {
    "endless_heads": Kind("4 connections, each one header without an end: 4 MB/s", endless_heads),
    "many_headers": Kind("100 connections/s, 1,000 headers each: 2.7 MB/s", many_headers),
    "half_bodies": Kind(
        "700 connections with a head and one byte each, 700 new ones/s", half_bodies
    ),
    "slow_bodies": Kind("200 bodies of 1 MB under way at 2 kB/s each: 0.4 MB/s", slow_bodies),
    "idle_connections": Kind(
        "1,000 connections that send nothing, 500 new ones/s", idle_connections
    ),
    "deep_bodies": Kind("one body of 8 MB a second, lists nested 200 deep", deep_bodies),
    "wide_bodies": Kind("one body of 8 MB a second, 2.8 million empty lists", wide_bodies),
    "slow_readers": Kind(
        "30 connections, and 5 new ones/s, ask four answers of 100 kB each and read nothing",
        slow_readers,
    ),
    "large_names": Kind(
        "100 requests/s with an entity of 20 kB or an id of 64 kB: 4.2 MB/s", large_names
    ),
    "made_up_names": Kind(
        "100 requests/s with a new entity, id and segment each, in a shadow", made_up_names
    ),
    "many_connections": Kind("200 connections/s with one request each", many_connections),
    "mirrored_bytes": Kind(
        "10 requests/s whose copies a candidate answers with 4 MB each", mirrored_bytes
    ),
    "control_bodies": Kind(
        "64 MB of half batches at control, and two batches of 20,000 labels a second",
        control_bodies,
    ),
}


def burn(share: float) -> None:
    """Spend a share of a CPU until SIGTERM."""
    over: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: over.append(number))
    print("ready", flush=True)
    begun = time.monotonic()
    due = begun
    while not over and due - begun < LONGEST_S:
        start = time.process_time()
        while time.process_time() - start < share * SLICE_S and not over:
            pass
        due += SLICE_S
        time.sleep(max(0.0, due - time.monotonic()))


# ---------------------------------------------------------------- the driver's side


class Beside:
    """A process beside the callers, on their CPU."""

    def __init__(self, *words: str) -> None:
        with on({LOAD_CPU}):
            self.process = subprocess.Popen(
                [sys.executable, __file__, *words], stdout=subprocess.PIPE
            )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{words[0]} did not begin")

    def cpu_s(self) -> float:
        """CPU that it has spent so far."""
        return cpu_s([self.process.pid])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """End it.

        Raises:
            RuntimeError: it had ended before, or failed.
        """
        early = self.process.poll()
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(20) or early is not None:
            raise RuntimeError(f"an attacker ended with {self.process.returncode}")


class Attacker(Beside):
    """One attack under way."""

    def __init__(self, kind: str, site: Site, body: bytes) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="attack-")
        folder = Path(self._folder.name)
        (folder / "body").write_bytes(body)
        self._out = folder / "told"
        super().__init__(
            kind,
            "--port",
            str(site.port),
            "--control-port",
            str(site.control_port),
            "--token-file",
            str(site.root / ".kedge" / "admin-token"),
            "--body",
            str(folder / "body"),
            "--out",
            str(self._out),
        )

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._folder.cleanup()

    def told(self) -> dict[str, Any]:
        """End it; what became of it."""
        self.end()
        found: dict[str, Any] = msgspec.json.decode(self._out.read_bytes())
        return found


class Burner(Beside):
    """As much CPU as an attacker took."""

    def __init__(self, share: float) -> None:
        super().__init__("burn", "--share", str(share))


def main() -> None:
    """Be the attacker, or the burner."""
    parser = argparse.ArgumentParser(description="An attacker of a worker on this host.")
    parser.add_argument("kind", choices=[*KINDS, "burn"])
    parser.add_argument("--share", type=float, default=0.0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control-port", type=int, default=0)
    parser.add_argument("--token-file", type=Path)
    parser.add_argument("--body", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.kind == "burn":
        burn(given.share)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))

    async def go() -> dict[str, Any]:
        attack = Attack(given)
        task = asyncio.ensure_future(KINDS[given.kind].run(attack))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(task, LONGEST_S)
        told = attack.told()
        for line in list(attack.lines):
            line.close()
        return told

    given.out.write_bytes(msgspec.json.encode(uvloop.run(go())))


if __name__ == "__main__":
    main()

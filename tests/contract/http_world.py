"""A gateway over real sockets, in this process: the worker's protocol and app around one model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import uvicorn
import uvloop
from uvicorn.server import ServerState

from kedge.core.release.commands import Promote
from kedge.core.routing import compile_plan
from kedge.core.values import Limits as RowLimits
from kedge.core.values import Policy
from kedge.engine.recording.recorder import Recorder
from kedge.engine.serving.live import Live
from kedge.engine.serving.pool import Handle
from kedge.engine.serving.serving import Serving
from kedge.gateway.auth import Tokens
from kedge.gateway.contract import Contract
from kedge.gateway.http.app import Gateway
from kedge.gateway.http.connections import ConnectionLimits, Connections, bound_unsent
from kedge.gateway.http.infer import WorkerBounds
from kedge.gateway.http.peers import Peers
from kedge.gateway.http.protocol import BoundedProtocol
from kedge.testing.samples import endpoint, release, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kedge.typing import Columns

NEEDS = "x:float32,word:string?"
POLICY = Policy(audience="internal", entity="word", limits=RowLimits(rows=1000))
ROW = run(
    endpoint(release(1, needs=NEEDS), release(2, needs=NEEDS), policy=POLICY),
    Promote(1),
    Promote(2, override="a test"),
)
INFER = "/v2/models/flights/infer"


class Doubles:
    """A model."""

    signature = ROW.releases[1].signature

    def predict(self, columns: Columns) -> Columns:
        return {"p_late": np.asarray(columns["x"], np.float32) * np.float32(2)}


class Wide:
    """A model whose answers are large."""

    signature = ROW.releases[1].signature

    def __init__(self, values: int) -> None:
        self.values = values

    def predict(self, columns: Columns) -> Columns:
        return {"p_late": np.zeros((len(columns["x"]), self.values))}


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def code(self) -> str | None:
        """The error's code."""
        return json.loads(self.raw).get("code") if self.raw else None


class World:
    """The server, on a loop of its own thread."""

    def __init__(
        self,
        limits: ConnectionLimits | None = None,
        *,
        requests: int = 8,
        peers: Peers | None = None,
        most: int | None = None,
        tokens: Path | None = None,
        callers: Tokens | None = None,
        model: Any = None,
        as_peer: tuple[str, int] | None = None,
    ) -> None:
        self.counted: Counter[str] = Counter()
        peers = peers or Peers()
        self.limits = limits or ConnectionLimits(body=1_000_000)
        self.connections = Connections(
            self.limits, peers=peers, most=most, limit=lambda bound: self.counted.update([bound])
        )
        self.bounds = WorkerBounds(
            body=self.limits.body,
            requests=requests,
            peers=peers,
            testers=Tokens(*([tokens] if tokens else [])),
            callers=callers,
        )
        serving = Serving(time.monotonic)
        handles = {n: Handle(ROW.releases[n], inline=model or Doubles()) for n in (1, 2)}
        self.live = Live(
            state=ROW,
            plan=compile_plan(ROW),
            handles=handles,
            contract=Contract(ROW.fields, rows=POLICY.limits.rows, entity=POLICY.entity),
            recorder=Recorder("w0", ROW),
            lease=True,
            pinned=False,
        )
        serving.swap(self.live)
        self.gateway = Gateway(
            serving, self.bounds, lambda: True, limit=lambda bound: self.counted.update([bound])
        )
        self.problems: list[Any] = []
        self._as_peer = as_peer
        self._loop = uvloop.new_event_loop()
        self._loop.set_exception_handler(lambda _, context: self.problems.append(context))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        bound_unsent(self._listener)
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        state = ServerState()
        config = uvicorn.Config(
            self.gateway,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
        )
        config.load()
        make = partial(
            BoundedProtocol,
            connections=self.connections,
            refusing=self.gateway.refuse_with,
            refusal=self.gateway.refusal,
            config=config,
            server_state=state,
            app_state={},
        )

        def protocol() -> BoundedProtocol:
            made = make(_loop=self._loop)
            if self._as_peer is not None:
                _rename(made, self._as_peer)
            return made

        started = threading.Event()

        def work() -> None:
            asyncio.set_event_loop(self._loop)
            self._server = self._loop.run_until_complete(
                self._loop.create_server(protocol, sock=self._listener)
            )
            self._loop.call_soon(started.set)
            self._loop.run_forever()
            self._loop.run_until_complete(self._server.wait_closed())
            self._loop.close()

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()
        assert started.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        def end() -> None:
            self._loop.call_later(0.05, self._loop.stop)
            self._server.close()
            for each in list(self.connections._open):
                each.hang_up()

        self._loop.call_soon_threadsafe(end)
        self._thread.join(5)
        assert not self._thread.is_alive(), self.problems
        self._listener.close()

    def on_loop(self, function: Callable[[], Any]) -> Any:
        """Call something on the loop, and return what it returned."""
        done: list[Any] = []
        event = threading.Event()

        def call() -> None:
            done.append(function())
            event.set()

        self._loop.call_soon_threadsafe(call)
        assert event.wait(5)
        return done[0]

    def later(self, seconds: float) -> None:
        """Sweep as if that much time had passed."""
        self.on_loop(lambda: self.connections.sweep(self._loop.time() + seconds))

    def line(self, sent: bytes = b"") -> socket.socket:
        """A connection on which something was sent."""
        line = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        line.sendall(sent)
        return line

    def ask(self, sent: bytes) -> Answer:
        """One request on a connection of its own."""
        with self.line(sent) as line:
            return answer(line)


def _rename(protocol: BoundedProtocol, peer: tuple[str, int]) -> None:
    made = protocol.connection_made

    def connection_made(transport: asyncio.Transport) -> None:
        made(transport)
        protocol.client = peer

    protocol.connection_made = connection_made  # type: ignore[method-assign]


def body(rows: int = 1, **more: Any) -> bytes:
    """The body of a request."""
    one = {"name": "x", "datatype": "FP32", "shape": [rows], "data": [1.0] * rows}
    return json.dumps({"inputs": [one], **more}).encode()


def head(length: int | None, *headers: str, path: str = INFER) -> bytes:
    """The head of a request with a body of some length; None: in chunks."""
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    return "\r\n".join([f"POST {path} HTTP/1.1", "host: x", size, *headers, "", ""]).encode()


def request(raw: bytes | None = None, *headers: str, path: str = INFER) -> bytes:
    """A whole request."""
    raw = body() if raw is None else raw
    return head(len(raw), *headers, path=path) + raw


def answer(line: socket.socket) -> Answer:
    """Read one answer."""
    got = b""
    while b"\r\n\r\n" not in got:
        more = line.recv(1)  # no byte of the next answer
        assert more, f"closed after {got!r}"
        got += more
    start, _, rest = got.partition(b"\r\n\r\n")
    first, *lines = start.decode().split("\r\n")
    headers = dict(one.lower().split(": ", 1) for one in lines)
    while len(rest) < int(headers["content-length"]):
        rest += line.recv(int(headers["content-length"]) - len(rest))
    return Answer(int(first.split()[1]), headers, rest)


def closed(line: socket.socket) -> bool:
    """Whether the other side has closed, or closes within the timeout."""
    with contextlib.suppress(TimeoutError):
        try:
            while line.recv(65536):
                pass
        except ConnectionError:
            return True
        return True
    return False

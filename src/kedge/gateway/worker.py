"""Gateway worker: an HTTP server on the shared socket, and a replica in the roster.

The listening socket belongs to the supervisor, and all workers share it. So no waiting connection
is lost when a worker starts or ends. A worker outlives its supervisor: if the supervisor is killed,
the worker continues serving, and hands the socket to the next supervisor that asks.
"""

from __future__ import annotations

import gc
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from kedge.engine.process_faults import ProcessFaults
from kedge.engine.relief import RELIEVE
from kedge.engine.replica.follower import Replica
from kedge.gateway.http.app import Gateway
from kedge.gateway.http.connections import Connections, bound_unsent
from kedge.gateway.http.protocol import BoundedProtocol
from kedge.gateway.http.server import GatewayServer
from kedge.gateway.watchdog import watched_loop
from kedge.system.files import Door, connect_to
from kedge.system.pause import pause

log = structlog.get_logger("kedge.worker")

KEEP_ALIVE_S = 75
"""Seconds that an idle connection stays open: longer than the pools of usual clients and proxies
(aiohttp 15 s, nginx 60 s). So they close it first, and no request meets a closing connection."""
START_S = 60.0
"""Maximum seconds that a worker waits for its models before it opens with those that are ready."""
LOOK_S = 0.5
"""Interval at which a waiting worker checks whether other workers serve its missing endpoints."""
DOOR_S = 1.0
"""Interval at which a worker checks that its door still exists."""
SWITCH_S = 0.0002
"""The interpreter's switch interval: 1/25 of Python's default. While another thread loads, reads or
counts, a request waits at most this long for the interpreter: less than the network's jitter."""


def serve(
    gateway: Gateway,
    connections: Connections,
    replica: Replica,
    listener: socket.socket,
    *,
    drain_s: float,
    handoff: Handoff,
    on_loop: Callable[[], None],
    served: Callable[[], Collection[str]],
) -> None:
    """Serve until a signal to stop. Blocks.

    Args:
        gateway: the app.
        connections: the bounds of the connections, heads, bodies and answers of callers.
        replica: the worker's follower; started and stopped here.
        listener: the shared listening socket.
        drain_s: maximum seconds for which open connections are answered after the signal.
        handoff: gives the listening socket to another supervisor that asks.
        on_loop: called on the serving loop before anything else, to bind objects to that loop.
        served: returns the endpoints that other workers of this host serve.
    """
    import uvloop  # noqa: PLC0415 - only a worker needs it, and some platforms do not have it

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    bound_unsent(listener)
    sys.setswitchinterval(SWITCH_S)
    protocol: Any = partial(
        BoundedProtocol,
        connections=connections,
        refusing=gateway.refuse_with,
        refusal=gateway.refusal,
    )
    config = uvicorn.Config(
        gateway,
        loop="uvloop",
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    server = GatewayServer(config, gateway, drain_s)
    for sig in (signal.SIGTERM, RELIEVE):
        signal.signal(sig, server.handle_exit)

    async def main() -> None:
        on_loop()
        thread = threading.Thread(target=replica.run, name="kedge-replica", daemon=True)
        thread.start()
        await _wait(replica, server, served)
        # Loaded objects stay, so the collector need not visit them at each pass.
        gc.collect()
        gc.freeze()
        if not server.should_exit:
            handoff.start()
            async with watched_loop():
                await server.serve(sockets=[listener])
        replica.stop()
        thread.join(5)

    uvloop.run(main())


async def _wait(
    replica: Replica, server: GatewayServer, served: Callable[[], Collection[str]]
) -> None:
    """Wait until this worker serves all endpoints, or all that can be loaded.

    It stays closed while an endpoint is missing that other workers serve: it would take their
    callers and answer "unknown". An endpoint that cannot be loaded does not delay the others.
    """
    import asyncio  # noqa: PLC0415 - kept beside its only use

    loop = asyncio.get_running_loop()
    began = looked = loop.time()
    while not (replica.started.is_set() or server.should_exit):
        await asyncio.sleep(0.02)
        if loop.time() - looked < LOOK_S:
            continue
        looked = loop.time()
        missing = replica.missing
        late = looked - began > START_S
        if (late or (missing and all(missing.values()))) and not missing.keys() & served():
            log.warning("worker.started_incomplete", missing=sorted(missing))
            return


class Handoff:
    """The handoff of the listening socket to each process that asks on a Unix socket.

    The worker makes the door again when its file was deleted: without it, the successor of a killed
    supervisor could not take over.
    """

    def __init__(self, listener: socket.socket, path: Path, faults: ProcessFaults) -> None:
        """Prepare the handoff; `start` starts it."""
        self._listener = listener
        self._door = Door(path, backlog=4)
        self._faults = faults
        self._asked: socket.socket | None = None

    def start(self) -> None:
        """Start the handoff in its own thread."""
        self._tend()
        threading.Thread(target=self._give_all, name="kedge-handoff", daemon=True).start()

    def _tend(self) -> None:
        """Open the door, and open it again when its file is gone."""
        if self._asked is not None and not self._door.is_lost:
            return
        try:
            asked, self._asked = self._asked, self._door.open()
            self._asked.settimeout(DOOR_S)
            if asked is not None:
                asked.close()
            self._faults.clear("worker.takeover")
        except OSError as error:
            self._faults.note("worker.takeover", error)

    def _give_all(self) -> None:
        while self._listener.fileno() >= 0:
            if not self._faults.attempt("worker.takeover", self._give_one):
                pause(0.1)  # without free descriptors accept fails at once

    def _give_one(self) -> None:
        self._tend()
        if self._asked is None:
            pause(DOOR_S)
            return
        try:
            asking, _ = self._asked.accept()
        except TimeoutError:
            return
        with asking:
            socket.send_fds(asking, [b"kedge"], [self._listener.fileno()])
        self._faults.clear("worker.takeover")


def take_over(path: Path) -> socket.socket | None:
    """Return the listening socket from a worker that outlived its supervisor, or None."""
    try:
        with connect_to(path, timeout_s=2.0) as asking:
            _, fds, _, _ = socket.recv_fds(asking, 16, 1)
    except OSError:
        return None
    return socket.socket(fileno=fds[0]) if fds else None

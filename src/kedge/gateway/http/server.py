"""HTTP server of one worker: uvicorn with its own drain.

A drain answers every connection that the kernel accepted before it began, within bounds:

1. `drain_s`: every request is answered, and each answer asks its caller to disconnect. The
   listening socket is closed as soon as no connection waits in it.
2. `REST_S` more: idle connections are closed; present requests, and those that wait unread in their
   socket, are answered.
3. `REFUSE_S` more: late requests are refused with a 503, and so are the last unfinished ones.

The drain ends as soon as no connection is left. uvicorn alone closes connections whose request it
has not read yet, and their callers see a reset.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import struct
import termios
from types import FrameType
from typing import Any

import structlog
import uvicorn

from kedge.engine.relief import RELIEVE
from kedge.gateway.http.app import STOPPED, Gateway

log = structlog.get_logger("kedge.worker")

REST_S = 5.0
"""Seconds after `drain_s` in which timely requests are answered: two at their usual bound."""
REFUSE_S = 3.0
"""Seconds in which late requests get a refusal before the process ends."""
RELIEVED_S = 30.0
"""Seconds for which a relieved worker waits for its idle connections. Other workers serve, and a
client that leaves a connection idle for longer expects to find it closed."""
TICK_S = 0.02


class GatewayServer(uvicorn.Server):
    """uvicorn, with a drain: stop accepting, answer on open connections, then close them."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, drain_s: float) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._drain_s = drain_s
        self._draining: asyncio.Task[None] | None = None
        self._relieved = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's
        """Start the drain. A stop signal shortens the drain of a relieved worker."""
        if self._gateway.draining:
            self._relieved = self._relieved and sig == RELIEVE
            return
        self._relieved = sig == RELIEVE
        self._gateway.draining = True
        servers = getattr(self, "servers", None)
        if not servers:  # it accepts nothing yet
            self.should_exit = True
            return
        servers[0].get_loop().call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    # Uvicorn's.
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        """Close the connections that the drain left."""
        self._close_door()
        for connection in list(self.server_state.connections):
            connection.transport.close()
        await asyncio.sleep(TICK_S)

    async def _drain(self) -> None:
        """Drain, then let `main_loop` end."""
        loop = asyncio.get_running_loop()
        began, connections = loop.time(), self.server_state.connections
        while not self.should_exit:
            bound = RELIEVED_S if self._relieved else self._drain_s
            late = loop.time() - began - bound
            if self._relieved or not self._awaited() or late > REST_S + REFUSE_S:
                self._close_door()
            if not connections and not self.servers:
                break
            open_now: list[Any] = [*connections]
            for connection in open_now:
                if busy(connection):
                    if connection.cycle is not None:
                        connection.cycle.keep_alive = False
                elif late >= 0 and not unread(connection):
                    connection.transport.close()
            self._gateway.refusing = late > REST_S
            if late > REST_S + REFUSE_S:
                log.warning("worker.cut", requests=len(self.server_state.tasks))
                await self._cut()
                break
            await asyncio.sleep(TICK_S)
        self.should_exit = True

    async def _cut(self) -> None:
        """Refuse unfinished requests."""
        for task in list(self.server_state.tasks):
            task.cancel(STOPPED)
        await asyncio.sleep(TICK_S * 5)

    def _awaited(self) -> bool:
        """Return whether a connection waits to be accepted."""
        poll = select.poll()
        for server in self.servers:
            for listener in server.sockets:
                poll.register(listener.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _close_door(self) -> None:
        for server in self.servers:
            server.close()
        self.servers = []


def busy(connection: Any) -> bool:
    """Return whether a connection has an unfinished request, or the start of a head."""
    cycle = connection.cycle
    if cycle is not None and not cycle.response_complete:
        return True
    scope = connection.scope
    return scope is not None and (cycle is None or cycle.scope is not scope)


def unread(connection: Any) -> bool:
    """Return whether a connection's socket holds unread bytes."""
    handle = connection.transport.get_extra_info("socket")
    try:
        raw = fcntl.ioctl(handle.fileno(), termios.FIONREAD, b"\0" * 4)
    except (OSError, AttributeError, ValueError):
        return False  # it is closed already
    return bool(struct.unpack("i", raw)[0])

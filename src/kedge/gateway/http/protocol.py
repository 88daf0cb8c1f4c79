"""HTTP protocol of the gateway: uvicorn's, with every part of a request bounded before parsing.

The app gets a request when its body is whole, so that a caller who sends slowly occupies only its
own connection. A request that is refused here never reaches the serving code of the app.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from kedge.core.errors import BadRequest, KedgeError
from kedge.gateway.http.connections import PARTS, Connections
from kedge.gateway.http.infer import UNREAD, too_large

UNPARSED = (httptools.HttpParserError, httptools.HttpParserUpgrade)
PIECE = 16 * 1024
"""Maximum bytes that the parser gets at once while they may contain a head."""
DIGITS = 18
"""Maximum digits of a length that is read as a number."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
NOTED = (b"content-length", b"expect")
"""Headers that are needed before the body arrives."""

_headers_complete = HttpToolsProtocol.on_headers_complete
_start = HttpToolsProtocol._start_asgi_task  # noqa: SLF001 - the subclass's own; super() costs more
App = Any
"""An ASGI application."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection of a caller."""

    def __init__(
        self,
        *,
        connections: Connections,
        refusing: Callable[[KedgeError], App],
        refusal: Callable[[KedgeError], bytes],
        **uvicorns: Any,
    ) -> None:
        """Serve one connection.

        Args:
            connections: all connections of this worker.
            refusing: makes an app that answers a request with an error.
            refusal: makes the bytes of an answer to an incomplete request.
            uvicorns: the arguments that uvicorn gives every protocol.
        """
        super().__init__(**uvicorns)
        self._connections = connections
        self._limits = connections.limits
        self._refusing = refusing
        self._refusal = refusal
        self.caller: str | None = None
        self.held = 0
        self.unsent = 0
        self.queued = 0
        self._active: RequestResponseCycle | None = None
        """The request that is being answered."""
        self._held: tuple[RequestResponseCycle, App] | None = None
        """The request whose body is incomplete."""
        self._stalled: tuple[RequestResponseCycle, App] | None = None
        """A whole request whose caller has not read the previous answer."""
        self._refused: RequestResponseCycle | None = None
        """The request that was refused before its body was whole."""
        self._reading_head = True
        self._ended = False
        """Whether a message ended within the last parsed piece."""
        self._head = 0
        """Bytes of the incomplete head, without the piece that ends it."""
        self._length = -1
        """The declared length of the body; -1 if it is not declared."""
        self._dropped = 0
        """Bytes of a body beyond the bound, read and dropped."""
        self._stray = 0
        """Consecutive bytes that belong to no body: chunk extensions, trailers."""
        self._lingering = False
        self.timeout_keep_alive_handler = self._end_idle  # type: ignore[method-assign]

    # ------------------------------------------------------------ the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the new connection."""
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self._connections.opened(self, self.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything, and notify the app that no caller waits for its answer."""
        for cycle in (self._active, self._held and self._held[0]):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        self._held = self._stalled = None
        self._connections.closed(self)
        super().connection_lost(exc)

    def hang_up(self) -> None:
        """Close without an answer."""
        self.transport.abort()

    def idle_since(self) -> float | None:
        """Return when its last answer left, or None if it is not between two requests."""
        timer = self.timeout_keep_alive_task
        return None if timer is None or self._head else timer.when() - self.timeout_keep_alive

    # ------------------------------------------------------------ input

    def data_received(self, data: bytes) -> None:
        """Parse received bytes piece by piece, and stop at the first bound that is reached."""
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        if len(data) <= PIECE and not self._lingering:
            # The same as `_parse`, inline: nearly every request arrives in one piece.
            self._ended = False
            try:
                self.parser.feed_data(data)
            except UNPARSED as error:
                self._fail(error)
                return
            if not self._ended or self.pipeline:
                self._partial(len(data))
            return
        view = memoryview(data)
        for at in range(0, len(data), PIECE):
            self._parse(view[at : at + PIECE])
            if self.transport.is_closing():
                return

    def _parse(self, piece: bytes | memoryview) -> None:
        if self._lingering:
            self._stray += len(piece)
            if self._stray > self._limits.body:
                self.hang_up()
            return
        self._ended = False
        try:
            self.parser.feed_data(piece)
        except UNPARSED as error:
            self._fail(error)
            return
        if not self._ended or self.pipeline:
            self._partial(len(piece))

    def _fail(self, error: Exception) -> None:
        """Answer a request that the parser cannot read."""
        if isinstance(error, httptools.HttpParserUpgrade):
            # There is no other protocol, and the parser stops here.
            self.cycle.keep_alive = False
            if self._held is not None:
                self.on_message_complete()
            return
        told = "the request is not HTTP"
        told = told if error.__context__ else f"{told}: {error}"
        self.refuse_head(BadRequest(told, code="not_http", details={UNREAD: True}))

    def _partial(self, size: int) -> None:
        """Bound an incomplete request; most requests arrive in one piece and never get here."""
        if self.pipeline:
            self._connections.queues(self, len(self.pipeline))
            if self.transport.is_closing():
                self._lingering = True
                return
        if self._ended:
            return
        if self._reading_head:
            self._head += size
            if self._head > self._limits.head:
                self.refuse_head(_too_large_head(self._limits.head))
            else:
                self._connections.head_began(self)
            return
        self._body_grew(size)

    def _body_grew(self, size: int) -> None:
        """Bound an incomplete body."""
        held = self._held
        if held is None:
            return
        body = held[0].body
        if not self._connections.counts(self):
            self._name_caller()
        self._connections.body_began(self)
        if self._held is None:
            return
        if len(body) == self.held:
            self._stray += size
            if self._stray > self._limits.head:
                self.refuse_body(_too_large_head(self._limits.head))
            return
        self._stray = 0
        if self._dropped or len(body) > self._limits.body:
            self._dropped += len(body)
            body.clear()
            self._connections.body_grew(self, 0)
            if self._dropped > self._limits.body * PARTS:
                self.refuse_body(too_large(self._limits.body, unread=True))
            return
        self._connections.body_grew(self, len(body))

    def received(self) -> int:
        """Return the received bytes of its body."""
        return self._dropped + (len(self._held[0].body) if self._held is not None else 0)

    # ------------------------------------------------------------ the parser's calls

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header, and handle those that are needed before the body arrives."""
        name = name.lower()
        if name in NOTED:
            if name == b"expect":
                self.expect_100_continue = value.lower() == b"100-continue"
            elif value.isdigit() and len(value) <= DIGITS:
                self._length = int(value)
            elif value.isdigit():
                self._length = 10**DIGITS
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Decide by the head alone whether to read the body."""
        self._reading_head = False
        head, self._head = self._head, 0
        if head:
            self._connections.head_ended(self)
        if self.cycle is None:
            self._connections.asked(self)
        _headers_complete(self)
        headers, limits = self.headers, self._limits
        # A trailer is no header: headers after the body go into a list that is never read.
        self.headers = []
        if len(headers) > limits.headers:
            self.refuse_body(_too_many(limits.headers))
        elif head > limits.head - PIECE and _size(self.url, headers) > limits.head:
            self.refuse_body(_too_large_head(limits.head))
        elif self._length > limits.body and (
            self._length > limits.body * PARTS or self.expect_100_continue
        ):
            self.refuse_body(too_large(limits.body, unread=True))
        self._length = -1

    def on_body(self, body: bytes) -> None:
        """Store a part of a body."""
        cycle = self.cycle
        if cycle is not self._refused and not cycle.response_complete:
            cycle.body += body

    def on_message_complete(self) -> None:
        """Give the app a request whose body is whole."""
        self._ended = self._reading_head = True
        if self.headers:
            self._connections.limit("trailers")
        cycle = self.cycle
        if cycle is self._refused or cycle.response_complete:
            return
        cycle.more_body = False
        cycle.message_event.set()
        held = self._held
        if held is None or held[0] is not cycle:
            return  # it waits for the answer to the previous request
        self._held = None
        self._connections.body_ended(self)
        app = held[1]
        if self._dropped or len(cycle.body) > self._limits.body:
            self._dropped = 0
            cycle.body = bytearray()
            self._connections.body_left(self)
            app = self._refusing(too_large(self._limits.body))
            self._connections.limit("body_too_large")
        self._begin(cycle, app)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: App) -> None:
        """Delay a request until its body is whole."""
        if cycle.more_body:
            self._held = (cycle, app)
            self._dropped = self._stray = 0
            if cycle.waiting_for_100_continue:
                self._continue(cycle)
        else:
            self._begin(cycle, app)

    def _continue(self, cycle: RequestResponseCycle) -> None:
        """Send "100 Continue" if the caller waits for it, unless the body is too large."""
        cycle.waiting_for_100_continue = False
        if self._length <= self._limits.body and not self.transport.is_closing():
            self.transport.write(CONTINUE)

    def _begin(self, cycle: RequestResponseCycle, app: App) -> None:
        """Start the app, unless the caller has not read its last answer."""
        if self.flow.write_paused:
            self._stalled = (cycle, app)
            self.flow.pause_reading()
            return
        self._active = cycle
        _start(self, cycle, app)

    def on_response_complete(self) -> None:
        """Release the body, and continue with the next request."""
        if self.held:
            self._connections.body_left(self)
        if self._lingering:
            self.server_state.total_requests += 1
            self.pipeline.clear()
            return
        super().on_response_complete()
        if self.queued:
            self._connections.queues(self, len(self.pipeline))
        if self.transport.is_closing():
            self._outlive()
        if self._held is not None:  # the next request, whose body began to arrive meanwhile
            self._body_grew(0)

    # ------------------------------------------------------------ answers that wait

    def _end_idle(self) -> None:
        """Close a connection that is idle for too long."""
        if not self.transport.is_closing():
            self.transport.close()
        self._outlive()

    def _outlive(self) -> None:
        """Bound the rest of an answer in time: a closed transport waits for its caller to read.

        The rest was too small to pause the app, so that it was not counted before.
        """
        if self.waiting():
            self._connections.unread(self, self.waiting())

    def pause_writing(self) -> None:
        """Start the wait for a caller that does not read."""
        super().pause_writing()
        if not self._connections.counts(self):
            self._name_caller()
        self._connections.unread(self, self.waiting())

    def resume_writing(self) -> None:
        """Continue, because the caller has read."""
        super().resume_writing()
        self._connections.read(self)
        if self._stalled is not None:
            (cycle, app), self._stalled = self._stalled, None
            self.flow.resume_reading()
            self._begin(cycle, app)

    def waiting(self) -> int:
        """Return the bytes of answers that have not left."""
        return self.transport.get_write_buffer_size()

    def _name_caller(self) -> None:
        """Set the caller whose bounds count: behind a proxy, it may differ for each request."""
        self.caller = self._connections.peers.caller(self.client, self.scope["headers"])

    # ------------------------------------------------------------ refusals

    def refuse_head(self, error: KedgeError) -> None:
        """Answer an incomplete head, and close."""
        self._connections.limit(error.code)
        if self._active is not None and not self._active.response_complete:
            # First answer the earlier request of this connection; then close it.
            self._active.keep_alive = False
            self._lingering = True
            self._connections.head_ended(self)
            return
        self.transport.write(self._refusal(error))
        self.linger()

    def refuse_body(self, error: KedgeError) -> None:
        """Answer a request whose body is not whole, and close."""
        cycle = self.cycle
        if cycle is self._refused or cycle.response_complete:
            return
        self._connections.limit(error.code)
        self._connections.body_left(self)
        self._refused = cycle
        cycle.body = bytearray()
        cycle.keep_alive = False
        cycle.waiting_for_100_continue = False
        cycle.transport = _Lingering(self)  # type: ignore[assignment]
        if self._held is not None and self._held[0] is cycle:
            self._held = None
            cycle.more_body = False
            self._begin(cycle, self._refusing(error))
        else:
            # It waits for the answer to the previous request.
            cycle.more_body = False
            self.pipeline[0] = (cycle, self._refusing(error))

    def linger(self) -> None:
        """Close after the caller has had time to read the answer.

        Closing with unread bytes resets the connection, and the answer would be lost.
        """
        self._lingering = True
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self._connections.lingers(self)
        self.loop.call_soon(self._end_output)

    def _end_output(self) -> None:
        """Signal the end of output, so that a caller need not wait for the connection to close.

        uvloop's own `write_eof` is not used: a loop that is closed soon after it never returns.
        """
        if self.transport.is_closing() or self.waiting():
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno())) as line,
        ):
            line.shutdown(socket.SHUT_WR)


class _Lingering:
    """A transport whose closing waits for the caller to read."""

    def __init__(self, protocol: BoundedProtocol) -> None:
        self._protocol = protocol
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing

    def close(self) -> None:
        """Close later."""
        self._protocol.linger()


class _Flow(FlowControl):
    """Flow control of a connection that the other side may close at any time."""

    def pause_reading(self) -> None:
        """Stop reading, unless the connection is closed."""
        if not self.read_paused and not self._transport.is_closing():
            super().pause_reading()

    def resume_reading(self) -> None:
        """Continue reading, unless the connection is closed."""
        if self.read_paused and not self._transport.is_closing():
            super().resume_reading()


def _size(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    """Return the size of a whole head: names, values, and their separators."""
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)


def _too_large_head(limit: int) -> KedgeError:
    return BadRequest(
        f"the head, or what stands outside of the body, is larger than {limit} bytes",
        code="head_too_large",
        details={UNREAD: True},
    )


def _too_many(limit: int) -> KedgeError:
    return BadRequest(
        f"the request has more than {limit} headers",
        code="too_many_headers",
        details={UNREAD: True},
    )

"""HTTP server of control: its socket, and the bounds of connections and heads."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from kedge.core.errors import BadConfig, Unavailable
from kedge.core.hosts import bare_host
from kedge.engine.process_faults import ProcessFaults
from kedge.web.certificates import check_ends
from kedge.web.proxy import PROVEN

log = structlog.get_logger("kedge.control")

ADDRESS = "127.0.0.1"
"""Listening address, unless kedge.toml has another one."""
CONNECTIONS = 128
"""Maximum connections at once: pages and scripts of one machine. Each may hold 64 kB here."""
HEAD_BYTES = 32 << 10
HEADERS = 100
HEAD_S = 10.0
"""Maximum seconds from the first byte of a head (or from the connection) to its end."""
ANSWER_S = 30.0
"""Maximum seconds for which an answer waits for its reader; then the connection is closed."""


class Tls(NamedTuple):
    """The files of TLS."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    """The authority of the proxy's client certificate; other clients need none."""

    def make(self) -> ssl.SSLContext:
        """Return a context of these files.

        Raises:
            BadConfig: `bad_certificate`: a file cannot be read, or the key does not fit.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_OPTIONAL
        except (OSError, ValueError) as error:
            raise BadConfig(
                [f"control.certificate: {self.certificate}: {error}"],
                code="bad_certificate",
                hint="certificate and key are PEM files that belong together",
            ) from error
        return context

    def changed(self) -> tuple[int, ...]:
        """Return a value that differs after a file was replaced.

        Raises:
            OSError: a file is missing.
        """
        files = (self.certificate, self.key, self.client_ca)
        return tuple(file.stat().st_mtime_ns for file in files if file is not None)


class Certificates:
    """The context of a running server, whose certificate is read again when its file changes."""

    def __init__(self, tls: Tls) -> None:
        """Read the files. Raise as `Tls.make`."""
        self._tls = tls
        self.context = tls.make()
        self._seen = tls.changed()

    def look(self, now: float) -> None:
        """Read the files again if they changed; new connections get the new certificate.

        Args:
            now: Unix time.

        Raises:
            BadConfig: `bad_certificate`: they do not fit; the former certificate stays, and the
                next look tries again. `certificate_expires`, `certificate_expired`: one of those in
                use ends within two weeks, or has ended.
        """
        try:
            found = self._tls.changed()
        except OSError as error:
            raise BadConfig(
                [f"control.certificate: {error}"], code="bad_certificate", hint="put it back"
            ) from error
        if found != self._seen:
            self._tls.make()  # a pair that does not fit would leave the context half changed
            self.context.load_cert_chain(self._tls.certificate, self._tls.key)
            if self._tls.client_ca is not None:
                self.context.load_verify_locations(self._tls.client_ca)
            self._seen = found
        used = (self._tls.certificate, self._tls.client_ca)
        check_ends((path for path in used if path is not None), now)


def listen_socket(path: Path) -> socket.socket:
    """Bind a Unix socket for a proxy of the same group as this process.

    Raises:
        Unavailable: `port_taken`.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():  # of a control that ended; any other file stays
            path.unlink()
        listener.bind(str(path))
        path.chmod(0o660)
        listener.listen(CONNECTIONS)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"cannot listen on {path}: {error}", code="port_taken", hint="[control] socket"
        ) from error
    return listener


def listen(port: int, host: str = ADDRESS) -> socket.socket:
    """Bind control's port.

    Raises:
        Unavailable: `port_taken`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((bare_host(host), port))
        listener.listen(CONNECTIONS)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"cannot listen on {host}:{port}: {error.strerror}",
            code="port_taken",
            hint="kedge control --port N, or [server] control_port",
        ) from error
    return listener


def make_server(
    app: Any, faults: ProcessFaults, certificates: Certificates | None = None
) -> uvicorn.Server:
    """Build the server of an app; `run(sockets=[...])` serves, over TLS with certificates."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol_of(faults),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            date_header=False,
            timeout_graceful_shutdown=10,
        )
    )
    if certificates is not None:
        server.config.load()  # it would set the context to None
        server.config.ssl = certificates.context
    return server


def protocol_of(faults: ProcessFaults) -> type[HttpToolsProtocol]:
    """Return the bounded protocol; it counts its refusals in `faults`."""
    return type("CountedProtocol", (ControlProtocol,), {"faults": faults})


class ControlProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a bound on connections, heads, trailers and waiting answers."""

    faults: ProcessFaults

    _begun: asyncio.TimerHandle | None = None
    """Timer that expires when a head takes too long."""
    _unread: asyncio.TimerHandle | None = None
    """Timer that expires when an answer is not read."""
    _complete = False
    """Whether the head of the present request is complete: then body and trailer follow."""
    _proven = False
    """Whether the connection is the proxy's: by a client certificate, or by the Unix socket."""
    _head = 0
    """Bytes received of an incomplete head."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer of the first head; close a connection beyond the bound."""
        super().connection_made(transport)
        peer = transport.get_extra_info("socket")
        self._proven = bool(transport.get_extra_info("peercert")) or (
            peer is not None and peer.family == socket.AF_UNIX
        )
        if len(self.connections) > CONNECTIONS:
            self._cut("connections")
            return
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop every timer."""
        for clock in (self._begun, self._unread):
            if clock is not None:
                clock.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes, and close a connection whose head has no end."""
        if self._begun is None and not self._is_busy():
            self._start_clock()  # uvicorn's own timer stops at the first byte, whatever it is
        super().data_received(data)
        if self._complete or self.transport.is_closing():
            return
        self._head += len(data)
        if self._head > HEAD_BYTES:
            self._refuse_head(431, code="head_too_large")

    def on_message_begin(self) -> None:
        """Note the start of a head."""
        super().on_message_begin()
        self.scope["state"][PROVEN] = self._proven
        self._complete, self._head = False, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Accept a header; drop trailers, which are no headers."""
        if not self._complete and len(self.headers) <= HEADERS:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request if its head is within bounds and its target is a path here."""
        self._complete = True
        if self._begun is not None:
            self._begun.cancel()
            self._begun = None
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEAD_BYTES or len(self.headers) > HEADERS:
            self._refuse_head(431, code="head_too_large")
        elif not self.url.startswith(b"/"):  # absolute form: it names a second host beside Host
            self._refuse_head(400, code="foreign_host")
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Accept a part of a body, unless its head was refused."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note the end of a body, unless its head was refused."""
        if not self.transport.is_closing():
            super().on_message_complete()

    def pause_writing(self) -> None:
        """Start the timer of an answer that its reader does not read."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(ANSWER_S, self._abort)

    def resume_writing(self) -> None:
        """Stop the timer: the reader has read something."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are no HTTP request."""
        del msg  # uvicorn's text, which has no code
        self._refuse_head(400, code="malformed_head")

    def _is_busy(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's type leaves None out
        return cycle is not None and not cycle.response_complete

    def _start_clock(self) -> None:
        self._begun = self.loop.call_later(HEAD_S, self._cut, "head_too_slow")

    def _refuse_head(self, status: int, *, code: str) -> None:
        body = msgspec.json.encode({"title": code, "code": code, "status": status})
        self.transport.write(
            STATUS_LINE[status] + b"content-type: application/problem+json\r\n"
            b"x-content-type-options: nosniff\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body)
        )
        self._cut(code)

    def _cut(self, bound: str) -> None:
        self._begun = None
        self.faults.limit(f"control.{bound}")
        if not self.transport.is_closing():
            self.transport.close()

    def _abort(self) -> None:
        self.faults.limit("control.answer_too_slow")
        self.transport.abort()

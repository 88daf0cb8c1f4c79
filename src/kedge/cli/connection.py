"""Connection of a remote command to control: HTTP/1.1 over one socket, kept between requests.

Of a remote rollback's start, `http.client` would be a tenth: it imports `email` and `ssl`. This
module uses httptools, which also parses the requests at control, and imports `ssl` for https alone.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

import httptools

CHUNK = 64 << 10
LARGEST_BODY = 256 << 20
"""Maximum bytes of an answer; the largest one is a history of 10,000 entries."""
LARGEST_HEAD = 64 << 10
FINAL = 200
"""The first status of a final answer; lower ones announce another."""


class ConnectionLost(OSError):
    """The connection ended after the request was sent; whether it was carried out is unknown."""


class HttpReply(NamedTuple):
    """One answer."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name; of a repeated header the last one."""
    body: bytes


class ControlConnection:
    """One connection to a server, opened by the first request and whenever it has ended."""

    def __init__(self, host: str, port: int | None, *, tls: bool, timeout_s: float) -> None:
        """Remember the server; nothing is opened yet."""
        self._address = host, port if port is not None else (443 if tls else 80)
        self._tls = tls
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None

    def ask(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
    ) -> HttpReply:
        """Send a request, and return its answer.

        Raises:
            OSError: the server cannot be reached, is not trusted, or does not speak HTTP.
            ConnectionLost: the connection ended before the whole answer was received.
        """
        opened = self._socket if self._socket is not None else self._open()
        self._socket = None
        try:
            opened.sendall(self._request(method, target, headers, body))
            reply, is_reusable = _receive(opened)
        except httptools.HttpParserError as error:
            opened.close()
            raise OSError(f"the answer is not HTTP: {error}") from error
        except OSError as error:
            opened.close()
            raise ConnectionLost(str(error) or type(error).__name__) from error
        if is_reusable:
            self._socket = opened
        else:
            opened.close()
        return reply

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()

    def _open(self) -> socket.socket:
        host, port = self._address
        # A text would import the codec of international names, also for an address.
        name: Any = host.encode() if host.isascii() else host
        opened = socket.create_connection((name, port), self._timeout_s)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._tls:
            return opened
        import ssl

        try:
            return ssl.create_default_context().wrap_socket(opened, server_hostname=host)
        except BaseException:
            opened.close()
            raise

    def _request(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
        host, port = self._address
        named = host if host.isascii() else host.encode("idna").decode()
        named = f"[{named}]" if ":" in named else named
        own = {"host": f"{named}:{port}", "accept": "application/json"}
        if body or method == "POST":
            own["content-length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**own, **headers}.items())
        return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


class _Answer:
    """An answer while it is received."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.on_message_begin()

    def on_message_begin(self) -> None:
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.is_headed = self.is_whole = self.is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.is_headed = True
        self.is_reusable = self.parser.should_keep_alive()  # known only until the message ends

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.is_whole = True


def _receive(opened: socket.socket) -> tuple[HttpReply, bool]:
    """Return an answer, and whether the connection takes another request."""
    answer = _Answer()
    parser = answer.parser
    left = LARGEST_HEAD + LARGEST_BODY
    while not answer.is_whole or parser.get_status_code() < FINAL:
        received = opened.recv(CHUNK)
        if not received:
            # Without a length, the end of the connection is the end of the body.
            if answer.is_headed and not {"content-length", "transfer-encoding"} & {*answer.headers}:
                break
            raise ConnectionLost("the server closed the connection")
        left -= len(received)
        if left < 0 or (not answer.is_headed and left < LARGEST_BODY):
            raise ConnectionLost(f"the answer has more than {LARGEST_BODY >> 20} MB")
        parser.feed_data(received)
    reply = HttpReply(parser.get_status_code(), answer.headers, b"".join(answer.body))
    return reply, answer.is_whole and answer.is_reusable

"""The connection of a remote command, over real sockets to a server that follows a script."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from kedge.cli import connection
from kedge.cli.connection import ConnectionLost, ControlConnection

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: "7"\r\n\r\nok'


class Scripted:
    """A server that answers each request of a connection with the next text, then closes it."""

    def __init__(self, *connections: list[bytes]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.requests: list[bytes] = []
        self._connections = connections
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for answers in self._connections:
            opened, _ = self.listener.accept()
            with opened:
                for answer in answers:
                    self.requests.append(opened.recv(65536))
                    opened.sendall(answer)

    def end(self) -> None:
        self._thread.join(10)
        self.listener.close()
        assert not self._thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Callable[..., Scripted]]:
    made: list[Scripted] = []

    def start(*connections: list[bytes]) -> Scripted:
        made.append(Scripted(*connections))
        return made[-1]

    yield start
    for one in made:
        one.end()


def to(server: Scripted) -> ControlConnection:
    return ControlConnection("127.0.0.1", server.port, tls=False, timeout_s=10)


def test_requests_share_a_connection(serve: Callable[..., Scripted]) -> None:
    server = serve([OK, OK])
    asked = to(server)
    first = asked.ask("GET", "/a", {"authorization": "Bearer x"})
    assert (first.status, first.headers["etag"], first.body) == (200, '"7"', b"ok")
    assert asked.ask("POST", "/b", {"if-match": '"7"'}, b"{}").status == 200
    asked.close()
    got, posted = server.requests
    assert got.startswith(b"GET /a HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % server.port)
    assert b"content-length" not in got
    assert posted.endswith(b"\r\n\r\n{}")
    assert b"content-length: 2\r\n" in posted


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\n\r\nok",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
    ],
)
def test_an_answer_ends_as_its_head_says(serve: Callable[..., Scripted], answer: bytes) -> None:
    server = serve([answer], [OK])
    asked = to(server)
    assert asked.ask("GET", "/", {}).body == b"ok"
    if b"close" in answer or b"1.0" in answer:
        assert asked.ask("GET", "/", {}).body == b"ok"  # on another connection
    else:
        asked.close()
        assert to(server).ask("GET", "/", {}).body == b"ok"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n",
    ],
)
def test_an_answer_that_is_cut_is_a_lost_connection(
    serve: Callable[..., Scripted], answer: bytes
) -> None:
    server = serve([answer], [OK])
    asked = to(server)
    with pytest.raises(ConnectionLost):
        asked.ask("POST", "/", {}, b"{}")
    assert asked.ask("GET", "/", {}).body == b"ok"


@pytest.mark.parametrize(
    "answer",
    [b"220 mail.example.org ESMTP\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"],
)
def test_an_answer_that_is_not_http_is_no_lost_connection(
    serve: Callable[..., Scripted], answer: bytes
) -> None:
    """It is not asked again: another try would find the same server."""
    with pytest.raises(OSError, match="not HTTP") as found:
        to(serve([answer])).ask("POST", "/", {}, b"{}")
    assert not isinstance(found.value, ConnectionLost)


def test_an_answer_is_bounded(
    serve: Callable[..., Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LARGEST_HEAD", 1_000)
    monkeypatch.setattr(connection, "LARGEST_BODY", 10_000)
    endless = b"HTTP/1.1 200 OK\r\nx: " + 2_000 * b"y"
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + 20_000 * b"y"
    server = serve([endless], [large])
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="more than"):
            to(server).ask("GET", "/", {})


def test_a_server_that_refuses_is_not_a_lost_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    with pytest.raises(ConnectionRefusedError):
        ControlConnection("127.0.0.1", port, tls=False, timeout_s=10).ask("GET", "/", {})

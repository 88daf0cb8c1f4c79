"""Viewers of the dashboard: streams of its pages, each with a session of its own.

Each viewer logs in by a link of its own, as a person does, and holds one stream of server-sent
events. One thread reads what arrives and drops it.
"""

from __future__ import annotations

import http.client
import selectors
import socket
import threading
from typing import Self
from urllib.parse import urlsplit

from kedge_site import Site

OPEN_S = 20.0


def link_of(site: Site) -> str:
    """A single-use link that logs a browser in, as `kedge login` prints it."""
    from kedge.operations.tokens import make_link  # noqa: PLC0415 - the site has begun

    return make_link(site.workplace, f"http://127.0.0.1:{site.control_port}").url


def log_in(link: str) -> str:
    """Log in; the cookie of the session."""
    parts = urlsplit(link)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=OPEN_S)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        answer = connection.getresponse()
        answer.read()
        cookie = answer.getheader("set-cookie", "")
    finally:
        connection.close()
    assert answer.status == 303, answer.status
    return cookie.partition(";")[0]


class Viewers:
    """Open streams of pages."""

    def __init__(self, port: int, cookies: list[str], path: str) -> None:
        self.received = 0
        """Bytes, of all streams."""
        self.ended = 0
        """Streams that the server closed."""
        self._port, self._cookies, self._path = port, cookies, path
        self._sockets: list[socket.socket] = []
        self._ending = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        for cookie in self._cookies:
            opened = socket.create_connection(("127.0.0.1", self._port), OPEN_S)
            opened.sendall(
                f"GET {self._path} HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\n"
                f"accept: text/event-stream\r\ncookie: {cookie}\r\n\r\n".encode()
            )
            head = opened.recv(65536)
            assert head.startswith(b"HTTP/1.1 200"), head[:300]
            opened.settimeout(0)
            self._sockets.append(opened)
            self._selector.register(opened, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(OPEN_S)
        for opened in self._sockets:
            opened.close()
        self._selector.close()

    def _read(self) -> None:
        while not self._ending.is_set():
            for key, _ in self._selector.select(0.1):
                opened = key.fileobj
                assert isinstance(opened, socket.socket)
                found = opened.recv(1 << 18)
                self.received += len(found)
                if not found:
                    self.ended += 1
                    self._selector.unregister(opened)

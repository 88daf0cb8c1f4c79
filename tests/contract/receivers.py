"""Real receivers for alerts: an SMTP server and an HTTP server, each on a port of its own, also over TLS."""

from __future__ import annotations

import base64
import email
import email.policy
import json
import socket
import socketserver
import ssl
import threading
import time
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Got(NamedTuple):
    """A request that came."""

    path: str
    headers: dict[str, str]
    body: Any
    at: float


class Web:
    """Keeps every POST; `answers` says what each gets, 200 when it is empty."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.got: list[Got] = []
        self.answers: list[int] = []
        self.down: set[str] = set()
        """Paths that answer 503."""
        self.delay_s = 0.0
        """Seconds between the bytes of an answer."""
        web = self

        class Asked(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                web.got.append(
                    Got(self.path, dict(self.headers.items()), json.loads(raw), time.monotonic())
                )
                if web.delay_s:
                    for byte in b"HTTP/1.1 200 OK\r\nx-drip: yes\r\n" * 50:
                        self.wfile.write(bytes([byte]))
                        time.sleep(web.delay_s)
                well = web.answers.pop(0) if web.answers else 200
                self.send_response(503 if self.path in web.down else well)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True

            def handle_error(self, *_: Any) -> None:
                """A caller that hangs up is no news."""

        self._server = Server(("127.0.0.1", port), Asked)
        self.port = int(self._server.server_address[1])
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        if tls is not None:
            self._server.socket = _secured(self._server.socket, tls)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def bodies(self) -> list[Any]:
        return [got.body for got in self.got]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _secured(listening: socket.socket, tls: ssl.SSLContext) -> socket.socket:
    """Each caller's handshake happens on the thread that reads it: a failed one delays no other."""
    return tls.wrap_socket(listening, server_side=True, do_handshake_on_connect=False)


class Mail:
    """An SMTP server: keeps every mail, and asks for a password when it has one.

    With `tls` it offers STARTTLS, or speaks it from the first byte (`at_once`).
    """

    def __init__(
        self,
        *,
        password: str = "",
        refuse: str = "",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        at_once: bool = False,
    ) -> None:
        self.got: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.logins: list[str] = []
        self.heard: list[str] = []
        """Every line, whatever came of it."""
        mail = self

        class Spoken(socketserver.StreamRequestHandler):
            def say(self, *lines: str) -> None:
                for number, line in enumerate(lines):
                    between = "-" if number < len(lines) - 1 else " "
                    self.wfile.write(f"{line[:3]}{between}{line[4:]}\r\n".encode())

            def handle(self) -> None:
                self.say("220 here")
                known = not password
                while raw := self.rfile.readline():
                    line = raw.decode().strip()
                    mail.heard.append(line)
                    word = line.split(" ")[0].upper()
                    if word == "EHLO":
                        offers = tls is not None and not isinstance(self.request, ssl.SSLSocket)
                        self.say(
                            "250 here",
                            *(("250 AUTH PLAIN",) if password else ()),
                            *(("250 STARTTLS",) if offers else ()),
                            "250 8BITMIME",
                        )
                    elif word == "STARTTLS" and tls is not None:
                        self.say("220 go on")
                        self.request = tls.wrap_socket(self.request, server_side=True)
                        self.setup()
                    elif word == "AUTH":
                        _, user, given = base64.b64decode(line.split(" ")[2]).decode().split("\0")
                        known = given == password
                        mail.logins.append(user)
                        self.say("235 welcome" if known else "535 no: " + given)
                    elif word == "RCPT" and (refuse and refuse in line):
                        self.say("550 nobody of that name")
                    elif word in ("MAIL", "RCPT"):
                        if word == "RCPT":
                            mail.recipients.append(line.partition(":")[2].strip("<> "))
                        self.say("250 good" if known else "530 who are you?")
                    elif word == "DATA":
                        self.say("354 go on")
                        lines = []
                        while (text := self.rfile.readline()) not in (b".\r\n", b""):
                            lines.append(text.removeprefix(b"."))
                        mail.got.append(
                            email.message_from_bytes(b"".join(lines), policy=email.policy.default)
                        )
                        self.say("250 taken")
                    elif word == "QUIT":
                        self.say("221 farewell")
                        return
                    else:
                        self.say("250 as you like")

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """A caller that hangs up is no news."""

        self._server = Server(("127.0.0.1", port), Spoken)
        self.port = int(self._server.server_address[1])
        user = f"ada:{password}@" if password else ""
        self.url = f"smtp{'s' if at_once else ''}://{user}127.0.0.1:{self.port}"
        if tls is not None and at_once:
            self._server.socket = _secured(self._server.socket, tls)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

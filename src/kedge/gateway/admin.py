"""The control process's API, on loopback: what is live and what is known, and late labels in.

Commands go through the ledger, not through here: the CLI needs no server to roll back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from kedge.core.errors import KedgeError, Overloaded

Status = Callable[[str | None], object]
Evidence = Callable[[str], object]
HandIn = Callable[[str, list[bytes]], object]

LONGEST = 16 << 20
"""Bytes of outcomes in one request: about 200,000 of them. A larger batch is a file, for the CLI."""


class Admin:
    """A raw ASGI app: GET /health, /api/status, /api/evidence; POST /api/outcomes/ENDPOINT."""

    def __init__(self, status: Status, evidence: Evidence, hand_in: HandIn) -> None:
        self._status = status
        self._evidence = evidence
        self._hand_in = hand_in
        self._joining = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request. What reads disks runs beside the loop, so that health is answered."""
        if scope["type"] != "http":
            return
        path = scope["path"].strip("/").split("/")
        try:
            match scope["method"], path:
                case "POST", ["api", "outcomes", endpoint]:
                    body = await _body(receive)
                    async with (
                        self._joining
                    ):  # one batch at a time: a flood waits, and costs no memory
                        found = await asyncio.to_thread(self._hand_in, endpoint, body.splitlines())
                    code, answer = 200, found
                case "GET", ["health"]:
                    code, answer = 200, {"live": True}
                case "GET", ["api", "status"]:
                    code, answer = 200, await asyncio.to_thread(self._status, None)
                case "GET", ["api", "status", endpoint]:
                    code, answer = 200, await asyncio.to_thread(self._status, endpoint)
                case "GET", ["api", "evidence", endpoint]:
                    code, answer = 200, await asyncio.to_thread(self._evidence, endpoint)
                case "GET", _:
                    code, answer = _problem(404, "unknown_path", "/".join(path))
                case _:
                    code, answer = _problem(405, "read-only", "use the kedge command")
        except KedgeError as error:
            code, answer = _problem(_STATUS.get(error.code, 503), error.code, str(error))
        raw = msgspec.json.encode(answer)
        kind = b"application/json" if code == 200 else b"application/problem+json"
        await send({"type": "http.response.start", "status": code, "headers": [
            (b"content-type", kind), (b"content-length", b"%d" % len(raw)),
        ]})  # fmt: skip
        await send({"type": "http.response.body", "body": raw})


_STATUS = {"unknown_endpoint": 404, "no_rollout": 404, "too_large": 413}


def _problem(status: int, title: str, detail: str) -> tuple[int, object]:
    return status, {"title": title, "status": status, "detail": detail}


async def _body(receive: Any) -> bytes:
    """The body of a request.

    Raises:
        Overloaded: `too_large`.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LONGEST:
            raise Overloaded(f"more than {LONGEST} bytes of outcomes", code="too_large",
                             hint="hand in less at once, or a file: kedge outcomes")  # fmt: skip
        if not message.get("more_body"):
            return b"".join(parts)

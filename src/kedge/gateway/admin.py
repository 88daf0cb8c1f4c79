"""The control process's read-only API, on loopback: what is live, as JSON.

Commands go through the ledger, not through here: the CLI needs no server to roll back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from kedge.core.errors import KedgeError

Status = Callable[[str | None], object]


class Admin:
    """A raw ASGI app: GET /health, /api/status, /api/status/ENDPOINT."""

    def __init__(self, status: Status) -> None:
        self._status = status

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        code, body = self._look_up(scope["method"], scope["path"].strip("/").split("/"))
        raw = msgspec.json.encode(body)
        kind = b"application/json" if code == 200 else b"application/problem+json"
        await send({"type": "http.response.start", "status": code, "headers": [
            (b"content-type", kind), (b"content-length", b"%d" % len(raw)),
        ]})  # fmt: skip
        await send({"type": "http.response.body", "body": raw})

    def _look_up(self, method: str, path: list[str]) -> tuple[int, object]:
        if method != "GET":
            return 405, {"title": "read-only", "status": 405, "detail": "use the kedge command"}
        try:
            match path:
                case ["health"]:
                    return 200, {"live": True}
                case ["api", "status"]:
                    return 200, self._status(None)
                case ["api", "status", endpoint]:
                    return 200, self._status(endpoint)
        except KedgeError as error:
            status = 404 if error.code == "unknown_endpoint" else 503
            return status, {"title": error.code, "status": status, "detail": str(error)}
        return 404, {"title": "unknown_path", "status": 404, "detail": "/".join(path)}

"""API of the control process, on loopback: it shows status and evidence, and accepts late labels.

Commands go through the ledger and not through this API: the CLI needs no server to roll back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
import structlog

from kedge.core.errors import BadRequest, KedgeError, Overloaded
from kedge.engine.process_faults import ProcessFaults
from kedge.web.bodies import Bodies, HungUp
from kedge.web.correction import corrector
from kedge.web.origin import check_content, check_origin, values_of

log = structlog.get_logger("kedge.control")

Status = Callable[[str | None], object]
Evidence = Callable[[str], object]
Join = Callable[[str, bytes | bytearray, str], Awaitable[object]]
"""A function that joins a batch of an endpoint's labels. Its last argument names the person who
corrects recorded labels, or is empty."""

WAITING = 32
"""Maximum requests that wait for a batch to be joined or a figure to be read: a minute's worth."""
READS = ("GET", "HEAD")

STATUS = {
    "malformed_body": 400,
    "malformed_head": 400,
    "bad_query": 400,
    "foreign_host": 403,
    "foreign_origin": 403,
    "unknown_endpoint": 404,
    "unknown_path": 404,
    "no_rollout": 404,
    "wrong_method": 405,
    "body_too_slow": 408,
    "too_large": 413,
    "too_many_lines": 413,
    "unsupported_encoding": 415,
    "unsupported_type": 415,
    "internal": 500,
}
"""HTTP status by error code; any other code is 503."""

GUARDS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
]
"""Headers of every answer, so that a page of another site cannot frame, read or reuse it."""


class Admin:
    """A raw ASGI app: GET /health, /api/status, /api/evidence; POST /api/outcomes/ENDPOINT."""

    def __init__(
        self,
        status: Status,
        evidence: Evidence,
        join: Join,
        faults: ProcessFaults,
        bodies: Bodies | None = None,
    ) -> None:
        """Serve the results of these functions; `faults` counts refusals and failures."""
        self._status = status
        self._evidence = evidence
        self._join = join
        self._faults = faults
        self._bodies = bodies or Bodies()
        self._joining = asyncio.Lock()
        self._waiting = 0
        self._looks: dict[object, asyncio.Future[object]] = {}
        # One thread: its connections belong to a single thread, and a flood of requests takes no
        # more of the interpreter than one request.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="api")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request. Disk reads run in a thread, so that the loop still answers health."""
        if scope["type"] != "http":
            return
        reads = scope["method"] in READS
        try:
            check_origin(scope["headers"])
            path = scope["path"].strip("/").split("/")
            raw = msgspec.json.encode(await self._answer(scope, path, receive, reads=reads))
            self._faults.clear("control.api")
            code, kind, more = 200, b"application/json", []
        except HungUp:
            self._faults.limit("control.hung_up")
            return
        # The caller gets an answer, and `kedge status` shows the fault.
        except Exception as error:  # noqa: BLE001
            code, raw = self._problem(error)
            kind = b"application/problem+json"
            # The rest of a refused body is not read, so the connection must be closed.
            more = [] if reads else [(b"connection", b"close")]
            more += [(b"allow", b"GET, HEAD, POST")] if code == 405 else []
            if isinstance(error, KedgeError) and error.code == "unsupported_encoding":
                more.append((b"accept-encoding", b"gzip"))
        await send(
            {
                "type": "http.response.start",
                "status": code,
                "headers": [
                    (b"content-type", kind),
                    (b"content-length", b"%d" % len(raw)),
                    *GUARDS,
                    *more,
                ],
            }
        )
        await send({"type": "http.response.body", "body": raw})

    async def _answer(self, scope: Any, path: list[str], receive: Any, *, reads: bool) -> object:
        match scope["method"], path:
            case "POST", ["api", "outcomes", endpoint]:
                return await self._outcomes(endpoint, scope, receive)
            case _, ["health"] if reads:
                return {"live": True}
            case _, ["api", "status"] if reads:
                return await self._look(("status",), partial(self._status, None))
            case _, ["api", "status", endpoint] if reads:
                return await self._look(("status", endpoint), partial(self._status, endpoint))
            case _, ["api", "evidence", endpoint] if reads:
                return await self._look(("evidence", endpoint), partial(self._evidence, endpoint))
            case _ if reads:
                raise BadRequest(
                    f"no such path: {'/'.join(path)}",
                    code="unknown_path",
                    hint="kedge help http lists them",
                )
        raise BadRequest(
            "the API only reads, but for POST /api/outcomes/ENDPOINT",
            code="wrong_method",
            hint="use the kedge command",
        )

    async def _outcomes(self, endpoint: str, scope: Any, receive: Any) -> object:
        headers = scope["headers"]
        declared = next(iter(values_of(headers, b"content-length")), None)
        refusal: KedgeError | None = None
        by, gzip = "", False
        try:
            gzip = check_content(headers)
            by = corrector(scope["query_string"])
        except BadRequest as error:
            refusal = error
        async with self._bodies.whole(receive, declared, refusal, gzip=gzip) as body:
            if self._waiting >= WAITING:
                raise Overloaded(f"{WAITING} batches wait to be joined", code="queue_full")
            self._waiting += 1
            try:
                async with self._joining:  # one batch at a time; the others wait
                    return await self._join(endpoint, body, by)
            finally:
                self._waiting -= 1

    async def _look(self, what: object, work: Callable[[], object]) -> object:
        """Read figures; a request for the same figures meanwhile gets the same answer."""
        under_way = self._looks.get(what)
        if under_way is None:
            if len(self._looks) >= WAITING:
                raise Overloaded(f"{WAITING} other figures are being read", code="queue_full")
            under_way = asyncio.get_running_loop().run_in_executor(self._thread, work)
            self._looks[what] = under_way
            under_way.add_done_callback(lambda _: self._looks.pop(what, None))
        return await asyncio.shield(under_way)

    def _problem(self, error: Exception) -> tuple[int, bytes]:
        """Count a fault, and return its status and its problem+json."""
        if isinstance(error, KedgeError):
            self._faults.limit(f"control.{error.code}")
        else:
            self._faults.note("control.api", error)
            error = KedgeError("a fault of control itself; kedge status names it", code="internal")
        status = STATUS.get(error.code, 503)
        return status, msgspec.json.encode(
            {
                "title": error.code,
                "code": error.code,
                "status": status,
                "detail": str(error),
                "hint": error.hint,
            }
        )

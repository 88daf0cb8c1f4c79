"""API from before /api/v1: four paths that show status and evidence, and accept late labels.

`web.app` checks their callers and answers their errors. CHANGELOG says until when they stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec

from kedge.core.access import Need
from kedge.core.errors import BadRequest, Denied, KedgeError, Overloaded
from kedge.web.auth import keep_seen, require
from kedge.web.bodies import Bodies
from kedge.web.correction import corrector
from kedge.web.labels import Join
from kedge.web.origin import check_content, values_of

Status = Callable[[str | None], object]
Evidence = Callable[[str], object]
WAITING = 32
"""Maximum requests that wait for a batch to be joined or a figure to be read: a minute's worth."""
READS = ("GET", "HEAD")


class Admin:
    """A raw ASGI app: GET /health, /api/status, /api/evidence; POST /api/outcomes/ENDPOINT."""

    def __init__(
        self,
        status: Status,
        evidence: Evidence,
        join: Join,
        bodies: Bodies | None = None,
    ) -> None:
        """Serve the results of these functions."""
        self._status = status
        self._evidence = evidence
        self._join = join
        self.bodies = bodies or Bodies()
        """The bodies of requests, also of /api/v1: their memory is bounded together."""
        self._joining = asyncio.Lock()
        self._waiting = 0
        self._looks: dict[object, asyncio.Future[object]] = {}
        # One thread: its connections belong to a single thread, and a flood of requests takes no
        # more of the interpreter than one request.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="api")

    @staticmethod
    def has(path: str) -> bool:
        """Return whether a path is one of these four."""
        parts = path.strip("/").split("/")
        return parts == ["health"] or (parts[0] == "api" and parts[1:2] != ["v1"])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request. Disk reads run in a thread, so that the loop still answers health."""
        path = scope["path"].strip("/").split("/")
        reads = scope["method"] in READS
        raw = msgspec.json.encode(await self._answer(scope, path, receive, reads=reads))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(raw))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": raw})

    async def _answer(self, scope: Any, path: list[str], receive: Any, *, reads: bool) -> object:
        match scope["method"], path:
            case "POST", ["api", "outcomes", endpoint]:
                return await self._outcomes(endpoint, scope, receive)
            case _, ["health"] if reads:
                return {"live": True}
            case _, ["api", "status"] if reads:
                access = require(scope, Need.READ, None)
                found = await self._look(("status",), partial(self._status, None))
                return keep_seen(access, found)
            case _, ["api", "status", endpoint] if reads:
                require(scope, Need.READ, endpoint)
                return await self._look(("status", endpoint), partial(self._status, endpoint))
            case _, ["api", "evidence", endpoint] if reads:
                require(scope, Need.READ, endpoint)
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
            access = require(scope, Need.OUTCOMES, endpoint)
            gzip = check_content(headers)
            by = corrector(scope["query_string"], access)
        except (BadRequest, Denied) as error:
            refusal = error
        async with self.bodies.whole(receive, declared, refusal, gzip=gzip) as body:
            return await self.join(endpoint, body, by)

    async def join(
        self, endpoint: str, body: bytes | bytearray, by: str, form: str | None = None
    ) -> object:
        """Join a batch of JSON lines, one batch at a time; the others wait.

        Raises:
            Overloaded: `queue_full`.
            KedgeError: as `OutcomesJoiner.join`.
        """
        if self._waiting >= WAITING:
            raise Overloaded(f"{WAITING} batches wait to be joined", code="queue_full")
        self._waiting += 1
        try:
            async with self._joining:
                return await self._join(endpoint, body, by, form)
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

"""Application of the control process: its routes, checks, headers, and answers to every error."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kedge.core.codec import encode
from kedge.core.errors import BadRequest, KedgeError
from kedge.engine.process_faults import ProcessFaults
from kedge.web.api import Admin
from kedge.web.auth import Identifier, admit
from kedge.web.bodies import HungUp
from kedge.web.origin import check_origin
from kedge.web.problems import PROBLEM, describe_problem

READS = ("GET", "HEAD")

GUARDS = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"x-content-type-options": b"nosniff",
}
"""Headers of every answer that does not set its own, so that a page of another site cannot frame,
read or reuse it."""


class Front:
    """The outermost ASGI app: it checks the origin of a request, and answers every error."""

    def __init__(
        self,
        earlier: Admin,
        routes: Sequence[BaseRoute],
        faults: ProcessFaults,
        *,
        gate: Identifier,
        names: Collection[str] = (),
    ) -> None:
        """Serve the routes, and the paths from before /api/v1.

        Args:
            earlier: the four paths from before /api/v1.
            routes: of the API, of metrics and of pages. Pages ask the gatekeeper themselves.
            faults: of the process; they count refusals and failures.
            gate: identifies the callers of the API.
            names: the names of control as `spell_host` returns them, besides those of loopback.
        """
        self._earlier = earlier
        self._gate = gate
        self._names = names
        self._faults = faults
        self._app = Starlette(routes=routes)
        # Starlette would answer an error in its own words.
        self._router: ASGIApp = self._app.router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        outlet = Outlet(send)
        try:
            check_origin(
                scope["headers"],
                self._names,
                reads=scope["method"] in READS,
                is_secure=self._gate.is_secure(scope),
            )
            scope["app"] = self._app
            if scope["path"].strip("/").partition("/")[0] == "api":
                await admit(scope, self._gate)
            if self._earlier.has(scope["path"]):
                await self._earlier(scope, receive, outlet)
            else:
                await self._router(scope, receive, outlet)
            self._faults.clear("control.api")
        except HungUp:
            self._faults.limit("control.hung_up")
        # The caller gets an answer, and `kedge status` shows the fault.
        except Exception as error:  # noqa: BLE001
            problem = self._count(error, scope)
            if not outlet.is_begun:
                await _refuse(problem, scope["method"], outlet)

    def _count(self, error: Exception, scope: Scope) -> KedgeError:
        """Count a fault, and return it as an error of kedge."""
        if isinstance(error, HTTPException):
            error = _unrouted(error, scope["path"])
        if isinstance(error, KedgeError):
            self._faults.limit(f"control.{error.code}")
            return error
        self._faults.note("control.api", error)
        return KedgeError("a fault of control itself; kedge status names it", code="internal")


class Outlet:
    """ASGI's `send`, with the headers that every answer has."""

    def __init__(self, send: Send) -> None:
        """Pass messages on."""
        self._send = send
        self.is_begun = False
        """Whether the answer has begun, so that no other can be sent."""

    async def __call__(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.is_begun = True
            given = [*message.get("headers", ())]
            names = {name.lower() for name, _ in given}
            more = [(name, value) for name, value in GUARDS.items() if name not in names]
            message = {**message, "headers": [*given, *more]}
        await self._send(message)


def _unrouted(error: HTTPException, path: str) -> KedgeError:
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "GET, HEAD, POST")
        return BadRequest(
            f"{path} accepts {allowed}",
            code="wrong_method",
            hint="GET /api/v1/openapi.json lists every path",
            details={"allow": allowed},
        )
    return BadRequest(
        f"no such path: {path}",
        code="unknown_path",
        hint="GET /api/v1/openapi.json lists every path; kedge help http explains them",
    )


async def _refuse(error: KedgeError, method: str, send: Send) -> None:
    problem = describe_problem(error)
    raw = encode(problem)
    headers = [
        (b"content-type", PROBLEM.encode()),
        (b"content-length", b"%d" % len(raw)),
        # The rest of a refused body is not read, so the connection must be closed.
        *([] if method in READS else [(b"connection", b"close")]),
    ]
    if problem.status == 405:
        headers.append((b"allow", str(error.details.get("allow", "GET, HEAD, POST")).encode()))
    if problem.status == 503 and problem.retryable:
        headers.append((b"retry-after", b"1"))
    if problem.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.code == "wrong_offset":
        headers.append((b"upload-offset", str(error.details["expected-offset"]).encode()))
        headers.append((b"upload-complete", b"?0"))
    if error.code == "unsupported_encoding":
        headers.append((b"accept-encoding", b"gzip"))
    start = {"type": "http.response.start", "status": problem.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": raw})

"""The app of the gateway, a raw ASGI app: the protocol's paths and the table of HTTP statuses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from importlib.metadata import version as distribution_version
from time import perf_counter
from typing import Any

import msgspec
import structlog

from kedge.core.bounds import BOUNDS as FIELD_BOUNDS
from kedge.core.contract import OIP_DTYPES
from kedge.core.errors import BadRequest, KedgeError, ModelFailure, Overloaded, Unavailable
from kedge.core.phrases import clip
from kedge.core.values import Field, Signature
from kedge.engine.serving.live import Headers, Live
from kedge.engine.serving.serving import Serving
from kedge.gateway.http.infer import UNREAD, WorkerBounds, infer, release_number
from kedge.gateway.traces import KEY

log = structlog.get_logger("kedge.gateway")

STATUS: dict[str, int] = {
    # by code first; any other code has the status of its class
    "body_too_large": 413,
    "body_too_slow": 408,
    "head_too_slow": 408,
    "head_too_large": 431,
    "too_many_headers": 431,
    "peer_busy": 429,
    "unsupported_encoding": 415,
    "unsupported_type": 415,
    "token_missing": 401,
    "token_refused": 403,
    "entity_refused": 403,
    "too_many_rows": 413,
    "release_not_live": 404,
    "unknown_endpoint": 404,
    "unknown_path": 404,
    "wrong_method": 405,
    "model_late": 504,
    "model_expired": 504,
    "model_unasked": 504,
}
CLASS_STATUS: dict[type[KedgeError], int] = {
    BadRequest: 400,
    Overloaded: 503,
    Unavailable: 503,
    ModelFailure: 500,
}
STOPPED = "the worker stops"
"""Reason of a request that was cancelled at the end of a drain."""
INTERNAL = "a fault of the gateway itself; its log has it"
FAILED = {
    "model_raised": "the model could not answer this request",
    "model_nonsense": "the model's answer is not what its signature promises",
    "transform_nonsense": "a transformation's answer is not what its schema promises",
}
"""Messages to callers for failures whose own text comes from a library; the log has that text."""
FAILED_HINT = (
    "the gateway's log has what happened; range, max_length and categories of a field refuse "
    "values that a model cannot take"
)
FAILURES_LOGGED_S = 1.0
"""Minimum seconds between two logged failures of a model: the counts have all of them."""
BOUNDS = frozenset(
    {
        "queue_full",
        "id_too_long",
        "entity_too_long",
        "too_many_rows",
        "bodies_full",
        "body_too_large",
    }
)
"""Codes of refusals by bounds that the app checks; `kedge status` shows their counts."""
READ_METHODS = ("GET", "HEAD")
INDEX_METHODS = (*READ_METHODS, "POST")
"""Methods of the index: the protocol requests it by POST."""
ALLOWED = "allowed"
"""Key in an error's details: the accepted methods."""
PATHS_KEPT = 1024
"""Maximum number of cached parsed paths; beyond it, a path is only parsed again."""


def status_of(error: KedgeError) -> int:
    """Return the HTTP status of an error."""
    if error.code in STATUS:
        return STATUS[error.code]
    return next((s for kind, s in CLASS_STATUS.items() if isinstance(error, kind)), 500)


class Route(msgspec.Struct, frozen=True):
    """A parsed path."""

    kind: str
    endpoint: str = ""
    version: int | None = None


def parse_path(path: str) -> Route:
    """Parse a path of the Open Inference Protocol v2.

    Raises:
        BadRequest: the path is not one of the protocol's.
    """
    match path.strip("/").split("/"):
        case ["v2"]:
            return Route("server")
        case ["v2", "health", ("live" | "ready") as what]:
            return Route(what)
        case ["v2", "repository", "index"]:
            return Route("index")
        case ["v2", "models", endpoint, *rest]:
            version = None
            if len(rest) >= 2 and rest[0] == "versions":
                version, rest = release_number(rest[1]), rest[2:]
            if rest in (["infer"], ["ready"], [], ["config"]):
                return Route(f"model/{rest[0] if rest else 'metadata'}", endpoint, version)
    raise BadRequest(
        f"no such path: {clip(path)}",
        code="unknown_path",
        hint="POST /v2/models/ENDPOINT/infer; see kedge help http",
    )


HEALTH = ("live", "ready")
"""Kinds of paths that need no token: a load balancer has none."""


class Gateway:
    """The ASGI app of one worker."""

    def __init__(
        self,
        serving: Serving,
        bounds: WorkerBounds,
        ready: Callable[[], bool],
        limit: Callable[[str], None] = lambda bound: None,
    ) -> None:
        self._serving = serving
        self._bounds = bounds
        self._ready = ready
        self._limit = limit
        self._routes: dict[str, Route] = {}
        self._logs_from = 0.0
        """Time from which the next failure of a model is logged."""
        self.draining = False
        """Whether the worker is about to stop: answers then ask callers to disconnect."""
        self.refusing = False
        """Whether the drain is near its end: new requests are refused."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request; every error becomes an answer from the table."""
        if scope["type"] != "http":
            return
        live = None
        try:
            if self.refusing:
                await _discard(receive)
                raise _stopping()
            path = scope["path"]
            route = self._routes.get(path) or self._remember(path)
            callers = self._bounds.callers
            if callers is not None and route.kind not in HEALTH:
                callers.check(scope["headers"])
            if route.kind == "model/infer":
                if scope["method"] != "POST":
                    raise _wrong_method(scope["method"], "POST")
                live = self._live(route.endpoint)
                await infer(
                    self._serving,
                    self._bounds,
                    live,
                    scope,
                    receive,
                    send,
                    route.version,
                    self.draining,
                )
                return
            allowed = INDEX_METHODS if route.kind == "index" else READ_METHODS
            if scope["method"] not in allowed:
                raise _wrong_method(scope["method"], ", ".join(allowed))
            await self._answer(send, *self._look_up(route))
        except KedgeError as error:
            if error.code in BOUNDS:  # the connection itself counts its refusals (`refuse_with`)
                self._limit(error.code)
            await self._refuse(send, live, error, self._end_span(scope, live, error.code))
        except asyncio.CancelledError as error:
            if error.args != (STOPPED,):
                raise
            stopping = _stopping()
            await self._refuse(send, live, stopping, self._end_span(scope, live, stopping.code))
        except Exception:  # the caller gets an answer, the log gets the trace
            log.exception("gateway.failed", path=scope["path"])
            fault = KedgeError(INTERNAL, code="internal")
            await self._refuse(send, live, fault, self._end_span(scope, live, fault.code))

    def _remember(self, path: str) -> Route:
        route = parse_path(path)
        if len(self._routes) >= PATHS_KEPT:
            self._routes.clear()
        self._routes[path] = route
        return route

    def _live(self, endpoint: str) -> Live:
        live = self._serving.live(endpoint)
        if live is None:
            known = ", ".join(sorted(item.state.endpoint for item in self._serving.lives()))
            raise BadRequest(
                f"no endpoint {clip(endpoint)} is served here",
                code="unknown_endpoint",
                hint=f"served are: {known or 'none yet'}",
            )
        return live

    def refuse_with(self, error: KedgeError) -> Callable[[Any, Any, Any], Awaitable[None]]:
        """Return an app that answers any request with an error from the connection's bounds."""

        async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 - ASGI's
            live = None
            with contextlib.suppress(BadRequest):
                live = self._serving.live(parse_path(scope["path"]).endpoint)
            await self._refuse(send, live, error)

        return app

    def refusal(self, error: KedgeError) -> bytes:
        """Return a whole answer for a request that is not complete."""
        status, body, extra = self._told(error)
        raw = msgspec.json.encode(body)
        head = [
            b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode()),
            b"content-type: application/json",
            b"content-length: %d" % len(raw),
            *(b"%s: %s" % pair for pair in extra),
        ]
        return b"\r\n".join([*head, b"", raw])

    def _end_span(self, scope: Any, live: Live | None, code: str) -> Headers:
        """End the span of a request that gets an error, if it is traced; return its header."""
        span, traces = scope.get(KEY), self._bounds.traces
        if span is None or traces is None:
            return []
        traces.fail(span, live.state.endpoint if live is not None else "", code)
        return [span.header]

    async def _refuse(
        self, send: Any, live: Live | None, error: KedgeError, headers: Headers | None = None
    ) -> None:
        # A model's failure is no refusal: it is counted as an error where it happens.
        if live is not None and not isinstance(error, ModelFailure):
            live.recorder.count(f"refused.{error.code}")
        if error.code in FAILED and isinstance(error, ModelFailure):
            self._log_failure(live, error)
            error = ModelFailure(FAILED[error.code], code=error.code, hint=FAILED_HINT)
        status, body, extra = self._told(error)
        await self._answer(send, status, body, [*extra, *(headers or ())])

    def _log_failure(self, live: Live | None, error: ModelFailure) -> None:
        now = perf_counter()
        if now >= self._logs_from:
            self._logs_from = now + FAILURES_LOGGED_S
            endpoint = live.state.endpoint if live is not None else ""
            log.warning(
                "gateway.model_failed", endpoint=endpoint, code=error.code, fault=str(error)
            )

    def _told(self, error: KedgeError) -> tuple[int, dict[str, object], Headers]:
        """Return the status, the body and further headers of the answer to an error."""
        body: dict[str, object] = {"error": str(error), "code": error.code}
        if error.hint:
            body["hint"] = error.hint
        body.update(
            (what, error.details[what]) for what in ("field", "row") if what in error.details
        )
        status = status_of(error)
        extra: Headers = [(b"retry-after", b"1")] if error.retryable else []
        if ALLOWED in error.details:
            extra.append((b"allow", str(error.details[ALLOWED]).encode()))
        if error.code == "unsupported_encoding":
            extra.append((b"accept-encoding", b"gzip"))
        if status == 401:
            extra.append((b"www-authenticate", b"Bearer"))
        if error.details.get(UNREAD) and not self.draining:
            extra.append((b"connection", b"close"))
        return status, body, extra

    async def _answer(
        self, send: Any, status: int, body: object, extra: Headers | None = None
    ) -> None:
        raw = msgspec.json.encode(body)
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", b"%d" % len(raw)),
                    *(extra or ()),
                    *(((b"connection", b"close"),) if self.draining else ()),
                ],
            }
        )
        await send({"type": "http.response.body", "body": raw})

    def _look_up(self, route: Route) -> tuple[int, object]:
        """Return the answer to a request that is no inference: health, metadata, index."""
        match route.kind:
            case "server":
                return 200, {
                    "name": "kedge",
                    "version": distribution_version("kedge"),
                    "extensions": ["model_repository", "binary_tensor_data"],
                }
            case "live":
                return 200, {"live": True}
            case "ready":
                ready = self._ready() and not self.draining
                return (200 if ready else 503), {"ready": ready}
            case "index":
                return 200, [entry for live in self._serving.lives() for entry in _index(live)]
        live = self._live(route.endpoint)
        version = route.version if route.version is not None else live.state.production
        release = live.state.releases.get(version) if version is not None else None
        if release is None or release.number not in live.plan.asked:
            raise BadRequest(f"r{version} is not live on {route.endpoint}", code="release_not_live")
        if route.kind == "model/ready":
            ready = release.number in live.handles
            return (200 if ready else 503), {"name": route.endpoint, "ready": ready}
        return 200, _metadata(live, release.signature, release.flavour)


def _wrong_method(method: str, allowed: str) -> BadRequest:
    return BadRequest(
        f"{clip(method)} is not answered here",
        code="wrong_method",
        hint=f"use {allowed}",
        details={ALLOWED: allowed},
    )


def _stopping() -> Overloaded:
    return Overloaded("this worker is stopping", code="stopping")


async def _discard(receive: Any) -> None:
    """Read a body to its end: else a caller that still sends would see a reset, not the answer."""
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass


def _metadata(live: Live, signature: Signature, flavour: str) -> dict[str, object]:
    return {
        "name": live.state.endpoint,
        "versions": [f"r{number}" for number in sorted(live.plan.asked)],
        "platform": f"kedge_{flavour}",
        "inputs": [_tensor(field) for field in live.state.fields],
        "outputs": [_tensor(field) for field in signature.outputs],
    }


def _tensor(field: Field) -> dict[str, object]:
    return {
        "name": field.name,
        "datatype": OIP_DTYPES[field.dtype],
        "shape": [-1, *field.shape],
        **({"parameters": parameters} if (parameters := _parameters(field)) else {}),
    }


def _parameters(field: Field) -> dict[str, object]:
    """Return the contract's rules for a field beyond its datatype and shape."""
    said: dict[str, object] = {"nullable": True} if field.nullable else {}
    bounds = {name: getattr(field, name) for name in FIELD_BOUNDS}
    return said | {name: bound for name, bound in bounds.items() if bound is not msgspec.UNSET}


def _index(live: Live) -> list[dict[str, str]]:
    return [
        {
            "name": live.state.endpoint,
            "version": f"r{number}",
            "reason": "",
            "state": "READY" if number in live.handles else "UNAVAILABLE",
        }
        for number in sorted(live.plan.asked)
    ]

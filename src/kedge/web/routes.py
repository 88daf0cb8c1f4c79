"""Routes of the API, one for each path of the catalogue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kedge.core.access import Need
from kedge.core.codec import encode
from kedge.core.errors import BadRequest, KedgeError, Refused
from kedge.core.names import is_name, read_number, unknown_endpoint
from kedge.operations.ask import Ask
from kedge.operations.catalogue import API, CATALOGUE, Lane, Operation
from kedge.operations.history import HistoryPage
from kedge.operations.served import SERVED
from kedge.web.auth import keep_seen, require, still_allowed
from kedge.web.bodies import Bodies
from kedge.web.children import RemoteCaller
from kedge.web.events import Stream, Streams
from kedge.web.labels import read_asked
from kedge.web.openapi import build_document, list_paths
from kedge.web.parameters import read_query
from kedge.web.problems import PROBLEM
from kedge.web.readers import Readers
from kedge.web.repeats import read_key
from kedge.web.uploads import Uploads, get_holder
from kedge.web.writes import Write, Writes, read_match
from kedge.workspace import Workplace

JSON = "application/json"


class ViewResult(NamedTuple):
    """The result of an operation, and the epoch of its endpoint."""

    result: object
    epoch: int | None


class Api:
    """The operations of the catalogue as routes."""

    def __init__(
        self,
        readers: Readers,
        streams: Streams,
        writes: Writes,
        uploads: Uploads,
        bodies: Bodies | None = None,
    ) -> None:
        """Serve these views, streams, commands and uploads; `bodies` counts outcomes in requests."""
        self._bodies = bodies or Bodies()
        self._uploads = uploads
        self._readers = readers
        self._streams = streams
        self._writes = writes
        self._describing = asyncio.Lock()
        self._document: bytes | None = None

    def routes(self) -> list[Route]:
        """Return a route for each path."""
        found = [Route(f"{API}/openapi.json", self._openapi, methods=["GET"])]
        found.append(Route(f"{API}/events", self._events, methods=["GET"]))
        found += self._uploads.routes()
        for operation in CATALOGUE:
            if operation.lane is Lane.LOCAL:
                continue
            for path in list_paths(operation):
                serve = self._serve(operation)
                found.append(Route(path, serve, methods=[operation.method]))
        return found

    async def _openapi(self, _: Request) -> Response:
        async with self._describing:
            if self._document is None:  # made when asked for: a start would wait for it
                self._document = await asyncio.to_thread(lambda: encode(build_document()))
        return Response(self._document, media_type=JSON)

    async def _events(self, request: Request) -> Stream:
        """Stream the events of one endpoint, or of all that the caller may see."""
        unknown = {*request.query_params} - {"endpoint", "after"}
        if unknown:
            raise BadRequest(f"unknown parameters: {', '.join(unknown)}", code="bad_parameters")
        endpoint = request.query_params.get("endpoint")
        if endpoint is not None and not is_name(endpoint):
            raise unknown_endpoint(endpoint, ())
        access = require(request.scope, Need.READ, endpoint)

        async def permit() -> bool:
            return still_allowed(request.scope, access)

        endpoints = access.endpoints if endpoint is None else (endpoint,)
        return self._streams.open(request, endpoints, permit)

    def _serve(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            endpoint = request.path_params.get("endpoint")
            if endpoint is not None and not is_name(endpoint):
                raise unknown_endpoint(endpoint, ())
            if operation.lane is Lane.LOOK:
                return await self._look(operation, request, endpoint)
            return await self._write(operation, request, endpoint)

        return serve

    async def _write(
        self, operation: Operation, request: Request, endpoint: str | None
    ) -> Response:
        number = await self._find_alert(request)
        about = number[1] if number is not None else endpoint
        access = require(request.scope, Need(operation.needs), about)
        async with read_asked(request, operation, self._bodies) as asked:
            given, raw, data = asked
            if any(getattr(given, name) for name in operation.admin_with):
                require(request.scope, Need.ADMIN, about)
            key = read_key(request.headers.get("idempotency-key"))
            expect = read_match(request) if operation.expects else None
            parts = (request.method, request.url.path, request.headers.get("if-match", ""))
            bound = b"\0".join((*(part.encode() for part in parts), raw))
            caller = RemoteCaller(access.name, access.holder)
            done = await self._writes.run(
                Write(
                    operation,
                    endpoint,
                    given,
                    caller,
                    number[0] if number is not None else None,
                    expect,
                    key if operation.method == "POST" and not operation.secret else None,
                    bound,
                    get_holder(access),
                    data,
                )
            )
        headers = {"etag": f'"{done.epoch}"'} if done.epoch is not None else {}
        if done.is_repeated:
            headers["idempotency-replayed"] = "true"
        kind = JSON if done.status == 200 else PROBLEM
        return Response(done.body, done.status, headers, kind)

    async def _find_alert(self, request: Request) -> tuple[int, str] | None:
        """Return the alert that a path names: its number and its endpoint.

        Raises:
            Refused: `unknown_alert`.
        """
        text = request.path_params.get("number")
        if text is None:
            return None
        access = require(request.scope, Need.READ, None)
        number = read_number(text)
        alert = None
        if number is not None:
            alert = await self._readers.run(lambda place: place.alerts.find(number))
        if alert is None or not access.sees(alert.endpoint):  # else its number would tell
            raise Refused(
                f"there is no alert {text[:20]}", code="unknown_alert", hint="kedge alerts"
            )
        return alert.number, alert.endpoint

    async def _look(self, operation: Operation, request: Request, endpoint: str | None) -> Response:
        access = require(request.scope, Need(operation.needs), endpoint)
        given = read_query(request, operation.parameters)
        by = access.name

        def work(place: Workplace) -> ViewResult:
            # The epoch is read first, so that it is never newer than the result.
            epoch = read_epoch(place, endpoint)
            ask = Ask(place, endpoint, given, by)
            run = SERVED[operation.name].run
            assert run is not None
            return ViewResult(run(ask), epoch)

        found = await self._readers.share((operation.name, endpoint, encode(given)), work)
        assert isinstance(found, ViewResult)
        if endpoint is None:
            found = found._replace(result=keep_seen(access, found.result))
        return respond(found, request)


def read_epoch(place: Workplace, endpoint: str | None) -> int | None:
    """Return the epoch of an endpoint; None without one, or if it cannot be read."""
    if endpoint is None:
        return None
    try:
        state = place.ledger.read().states.get(endpoint)
    except KedgeError:
        return None
    return state.epoch if state is not None else None


def respond(answer: ViewResult, request: Request, status: int = 200) -> Response:
    """Return a result as JSON, with the epoch as its ETag and a link to the next page."""
    result, headers = answer.result, {}
    if answer.epoch is not None:
        headers["etag"] = f'"{answer.epoch}"'
    if isinstance(result, HistoryPage):
        if result.next is not None:
            following = request.url.include_query_params(cursor=result.next)
            headers["link"] = f'<{following.path}?{following.query}>; rel="next"'
        result = result.entries
    return Response(encode(result), status, headers, JSON)

"""Uploads: files of callers, streamed into quarantine, and continued after a lost connection.

The requests are those of the IETF's draft "Resumable Uploads for HTTP": HEAD tells the offset, PATCH
adds bytes at it. An upload is made by POST with its list of files, whose bytes follow each other.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from kedge.adapters.artifacts.quarantine import Appender, Quarantine, ReadyUpload
from kedge.core.access import Access, Need
from kedge.core.codec import encode
from kedge.core.encodings import Types, check_type
from kedge.core.errors import BadRequest, KedgeError, Overloaded
from kedge.core.names import is_name, unknown_endpoint
from kedge.core.uploads import UploadRequest, UploadStatus
from kedge.operations.catalogue import API, BY_NAME, Operation
from kedge.web.auth import require
from kedge.web.bodies import DIGITS, HungUp
from kedge.web.origin import raw_values_of, values_of
from kedge.web.parameters import decode_body, receive_body

PATH = f"{API}/uploads"
LIST_BYTES = 4 << 20
"""Maximum bytes of a list of files: 10,000 names of usual length."""
AT_ONCE = 8
"""Maximum requests that add bytes at once. Each holds at most two `BLOCK`."""
HOLDER_AT_ONCE = 4
"""The same for one caller: slow requests of one token leave places to others."""
BLOCK = 1 << 20
"""Bytes that are collected before a thread writes them."""
IDLE_S = 20.0
"""Maximum seconds without a byte. The bytes that have arrived stay."""
LEAST_PER_S = 4 << 10
"""Minimum mean bytes a second, after `IDLE_S`: less only occupies a place."""
LONGEST_S = 900.0
"""Maximum seconds of one request; the next one continues."""
DRAINED = 16 << 20
"""Maximum bytes of a refused request that are read and dropped, so that its caller can read the
answer."""
DRAINED_S = 5.0
PARTIAL = Types(
    frozenset({b"application/partial-upload"}),
    "only parts of an upload are read",
    "content-type: application/partial-upload",
)
"""Content type of the draft. A page of another site can send it only after a CORS preflight."""
Found = TypeVar("Found")


class _Body:
    """The body of a request, as it arrives."""

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self.is_ended = False
        """Whether its last byte arrived; to ask for more would wait for the next request."""

    async def receive(self) -> bytes:
        """Return the next bytes.

        Raises:
            HungUp: the connection ended before the body did.
        """
        message = await self._receive()
        if message["type"] != "http.request":
            raise HungUp
        self.is_ended = not message.get("more_body")
        return bytes(message.get("body", b""))

    async def drain(self) -> None:
        """Read the rest of a refused body, within bounds."""
        left = DRAINED
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAINED_S):
                while left > 0 and not self.is_ended:
                    left -= len(await self.receive())


class Uploads:
    """The routes of uploads, and the files for the commands that read them; for one event loop."""

    def __init__(self, quarantine: Quarantine) -> None:
        """Store uploads in this quarantine."""
        self._quarantine = quarantine
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="upload")
        self._under_way: Counter[str] = Counter()
        """Requests that add bytes, by caller."""

    def routes(self) -> list[Route]:
        """Return a route for each path."""
        return [
            Route(PATH, self._create, methods=["POST"]),
            Route(f"{PATH}/{{upload}}", self._find, methods=["GET"]),
            Route(f"{PATH}/{{upload}}", self._append, methods=["PATCH"]),
            Route(f"{PATH}/{{upload}}", self._remove, methods=["DELETE"]),
            Route(f"{PATH}/{{upload}}/results/{{path:path}}", self._result, methods=["GET"]),
        ]

    @asynccontextmanager
    async def reading(
        self, holder: str, upload: str, purpose: str, endpoint: str | None
    ) -> AsyncIterator[ReadyUpload]:
        """Yield the files of an upload for a command, as `Quarantine.reading`."""
        opened = self._quarantine.reading(holder, upload, purpose, endpoint)
        async with self._entered(opened) as ready:
            yield ready

    @asynccontextmanager
    async def working(self, ready: ReadyUpload, result: str) -> AsyncIterator[Path]:
        """Yield a folder in which a command writes a result, which is kept if it succeeds."""
        async with self._entered(self._quarantine.working(ready)) as work:
            yield work
            await self._run(partial(self._quarantine.keep_results, ready, work, result))

    def check_room(self) -> None:
        """Raise while the disk has only its reserve left.

        Raises:
            Unavailable: `no_room`.
        """
        self._quarantine.check_room()

    @asynccontextmanager
    async def keeping(self, name: str, raw: bytes | bytearray) -> AsyncIterator[Path]:
        """Yield a folder with one file for a command, as `Quarantine.keeping`."""
        async with self._entered(self._quarantine.keeping(name, raw)) as folder:
            yield folder

    # ------------------------------------------------------------ routes

    async def _create(self, request: Request) -> Response:
        raw = await receive_body(request, LIST_BYTES)
        wanted = decode_body(request, raw, UploadRequest)
        operation = BY_NAME[wanted.purpose]
        _check_shape(wanted, operation)
        if wanted.endpoint is not None and not is_name(wanted.endpoint):
            raise unknown_endpoint(wanted.endpoint, ())
        access = require(request.scope, Need(operation.needs), wanted.endpoint)
        status = await self._run(partial(self._quarantine.create, get_holder(access), wanted))
        return _respond(status, 201, location=f"{PATH}/{status.upload}")

    async def _find(self, request: Request) -> Response:
        _, status = await self._status(request)
        return _respond(status)

    async def _result(self, request: Request) -> Response:
        """Stream a file that a command wrote, or a part of it."""
        holder, status = await self._status(request)
        path = request.path_params["path"]
        file = await self._run(partial(self._quarantine.result, holder, status.upload, path))
        return FileResponse(file, media_type="application/octet-stream")

    async def _remove(self, request: Request) -> Response:
        holder, status = await self._status(request)
        await self._run(partial(self._quarantine.remove, holder, status.upload))
        return Response(status_code=204)

    async def _append(self, request: Request) -> Response:
        body = _Body(request)
        try:
            return await self._append_or_refuse(request, body)
        except KedgeError:
            await body.drain()
            raise

    async def _append_or_refuse(self, request: Request, body: _Body) -> Response:
        holder, status = await self._status(request)
        headers = request.headers.raw
        check_type(b", ".join(raw_values_of(headers, b"content-type")), PARTIAL)
        if raw_values_of(headers, b"content-encoding"):
            raise BadRequest(
                "bytes of an upload are sent as they are",
                code="unsupported_encoding",
                hint="leave content-encoding out",
            )
        offset, ends = read_offset(request), _read_complete(request)
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or len(length) > DIGITS or offset + int(length) > status.size:
            _inconsistent(f"the files have {status.size:,} bytes, and the request has more")
        if self._under_way.total() >= AT_ONCE or self._under_way[holder] >= HOLDER_AT_ONCE:
            raise Overloaded(
                f"{self._under_way.total()} requests add bytes, {self._under_way[holder]} of this"
                f" caller (limits {AT_ONCE} and {HOLDER_AT_ONCE})",
                code="queue_full",
            )
        self._under_way[holder] += 1
        try:
            opened = self._quarantine.appending(holder, status.upload, offset)
            async with self._entered(opened) as appender:
                await self._receive(body, appender)
                if ends and not appender.is_complete:
                    _inconsistent(
                        f"Upload-Complete is ?1, and {appender.size - appender.offset:,} bytes are"
                        " missing"
                    )
        finally:
            self._under_way -= Counter((holder,))  # an entry ends with its last request
        return _respond((await self._status(request))[1])

    # ------------------------------------------------------------ inside

    async def _status(self, request: Request) -> tuple[str, UploadStatus]:
        """Return the caller and its upload, if the caller may send it still."""
        access = require(request.scope, None, None)
        holder = get_holder(access)
        found = await self._run(
            partial(self._quarantine.find, holder, request.path_params["upload"])
        )
        require(request.scope, Need(BY_NAME[found.purpose].needs), found.endpoint)
        return holder, found

    async def _receive(self, body: _Body, appender: Appender) -> None:
        """Write the body of a request. What has arrived stays, however the request ends."""
        clock = asyncio.get_running_loop().time
        began, first = clock(), appender.offset
        buffer = bytearray()
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    buffer += await body.receive()
                if len(buffer) >= BLOCK or (body.is_ended and buffer):
                    raw = bytes(buffer)
                    buffer.clear()
                    await self._run(partial(appender.write, raw))
                if body.is_ended:
                    return
                spent = clock() - began
                sent = appender.offset + len(buffer) - first
                if spent > LONGEST_S or (spent > IDLE_S and sent < spent * LEAST_PER_S):
                    raise TimeoutError
        except TimeoutError:
            raise BadRequest(
                f"the bytes are too slow: {IDLE_S:g} s without one, less than {LEAST_PER_S} a"
                f" second, or {LONGEST_S:g} s in total",
                code="body_too_slow",
                hint="HEAD of the upload shows where to continue",
            ) from None
        finally:
            await self._keep(appender, bytes(buffer))

    async def _keep(self, appender: Appender, rest: bytes) -> None:
        if rest:
            await self._run(partial(appender.write, rest))
        await self._run(appender.finish)

    async def _run(self, work: Callable[[], Found]) -> Found:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    @asynccontextmanager
    async def _entered(self, context: AbstractContextManager[Found]) -> AsyncIterator[Found]:
        """Enter a context in a thread, since it waits for the disk, and leave it in one."""
        value = await self._run(context.__enter__)
        try:
            yield value
        except BaseException as error:
            await self._run(partial(context.__exit__, type(error), error, error.__traceback__))
            raise
        else:
            await self._run(partial(context.__exit__, None, None, None))


def _check_shape(wanted: UploadRequest, operation: Operation) -> None:
    """Raise unless an upload has an endpoint, and files, if its command has them."""
    for name, found, needed in (
        ("endpoint", wanted.endpoint is not None, operation.has_endpoint),
        ("files", bool(wanted.files), bool(operation.files)),
    ):
        if found is not needed:
            raise BadRequest(
                f"an upload for {wanted.purpose} must have {'' if needed else 'no '}{name}",
                code="bad_parameters",
                hint="GET /api/v1/openapi.json describes every parameter",
            )


def get_holder(access: Access) -> str:
    """Return the name under which a caller's uploads are stored; a token's number is used once."""
    return access.holder if access.token is None else f"{access.holder} ({access.token})"


def read_offset(request: Request) -> int:
    """Return the Upload-Offset of a request.

    Raises:
        BadRequest: `bad_offset`.
    """
    values = values_of(request.headers.raw, b"upload-offset")
    text = values[0] if len(values) == 1 else ""
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS):
        raise BadRequest(
            f"Upload-Offset must be a number, given once, got {', '.join(values)[:80]!r}",
            code="bad_offset",
            hint="HEAD of the upload shows where to continue",
        )
    return int(text)


def _read_complete(request: Request) -> bool:
    """Return whether the caller says that the upload ends with this request."""
    values = values_of(request.headers.raw, b"upload-complete")
    if values not in ([], ["?0"], ["?1"]):
        raise BadRequest(
            f"Upload-Complete must be ?0 or ?1, got {', '.join(values)[:80]!r}", code="bad_offset"
        )
    return values == ["?1"]


def _inconsistent(why: str) -> NoReturn:
    raise BadRequest(
        why, code="inconsistent_length", hint="HEAD of the upload shows where to continue"
    )


def _respond(status: UploadStatus, code: int = 200, *, location: str = "") -> Response:
    headers = {
        "upload-offset": str(status.offset),
        "upload-complete": "?1" if status.complete else "?0",
        "upload-length": str(status.size),
        "upload-limit": f"max-size={status.size}",
    }
    if location:
        headers["location"] = location
    return Response(encode(status), code, headers, "application/json")

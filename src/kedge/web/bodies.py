"""Bodies of requests: bounded in bytes, lines and time, and accepted whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from kedge.core.encodings import inflate
from kedge.core.errors import BadRequest, KedgeError, Overloaded

LONGEST = 16 << 20
"""Maximum bytes of outcomes in one request: about 200,000. The CLI reads larger batches."""
LINES = 250_000
"""Maximum lines of one request, empty ones included: each costs time, however short it is."""
UNDER_WAY = 64 << 20
"""Maximum bytes of all bodies held until their batch is joined: four of the longest."""
SLOWEST_S = 30.0
"""Maximum seconds until a body has arrived: 16 MiB at 4.5 Mbit/s."""
DISCARDED = 4
"""A refused body is read and dropped up to this many times `LONGEST`, so that the caller can read
the answer."""
DIGITS = 18
"""Maximum digits of a Content-Length that is read as a number."""


class HungUp(Exception):
    """The caller disconnected before its body was complete: no answer can be sent."""


class Bodies:
    """The bodies that all requests of this process hold; for one event loop."""

    def __init__(self, *, under_way: int = UNDER_WAY, slowest_s: float = SLOWEST_S) -> None:
        """Start without bodies."""
        self.held = 0
        """Bytes held now."""
        self._under_way = under_way
        self._slowest_s = slowest_s

    @asynccontextmanager
    async def whole(
        self,
        receive: Any,
        declared: str | None,
        refusal: KedgeError | None = None,
        *,
        gzip: bool = False,
    ) -> AsyncIterator[bytes | bytearray]:
        """Receive a body, and count its bytes until the context ends.

        A refused body is still read to its end, and dropped. If the connection were closed while
        the caller sends, the caller would see a broken pipe instead of the answer.

        Args:
            receive: ASGI's function.
            declared: the Content-Length, if it was given.
            refusal: the reason to refuse the body, if already known.
            gzip: whether the body is compressed; its inflated size is bounded as any other body.

        Raises:
            HungUp: the connection ended before the body did.
            BadRequest: `body_too_slow`; `malformed_body`: the body is not valid gzip.
            Overloaded: `too_large`, `too_many_lines`, `bodies_full`.
        """
        body = bytearray()
        if declared is not None and (
            not declared.isdigit() or len(declared) > DIGITS or int(declared) > LONGEST * DISCARDED
        ):
            raise refusal or _too_large()
        try:
            try:
                async with asyncio.timeout(self._slowest_s):
                    await self._receive(receive, body, refusal, gzip=gzip)
            except TimeoutError:
                raise BadRequest(
                    f"the body took longer than {self._slowest_s:g} s", code="body_too_slow"
                ) from None
            if gzip:
                async with self._inflated(body) as whole:
                    yield whole
            else:
                yield body
        finally:
            self.held -= len(body)

    @asynccontextmanager
    async def _inflated(self, body: bytearray) -> AsyncIterator[bytes]:
        """Inflate a body in a thread; reserve its maximum size, before its size is known."""
        if self.held + LONGEST > self._under_way:
            raise self._full()
        taken = LONGEST
        self.held += taken
        try:
            whole = await asyncio.to_thread(inflate, body, LONGEST)
            if whole is None:
                raise _too_large()
            self.held -= taken - len(whole)
            taken = len(whole)
            if whole.count(b"\n") > LINES:
                raise _too_many_lines()
            yield whole
        finally:
            self.held -= taken

    async def _receive(
        self, receive: Any, body: bytearray, refusal: KedgeError | None, *, gzip: bool
    ) -> None:
        size = lines = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise HungUp
            part = message.get("body", b"")
            size += len(part)
            lines += 0 if gzip else part.count(b"\n")
            refusal = refusal or self._bound(size, lines, len(part))
            if refusal is None:
                body += part
                self.held += len(part)
            else:
                self.held -= len(body)
                body.clear()
            if refusal is not None and (size > LONGEST * DISCARDED or not message.get("more_body")):
                raise refusal
            if not message.get("more_body"):
                return

    def _bound(self, size: int, lines: int, more: int) -> KedgeError | None:
        """Return the error of the bound that a body of this size would exceed, if any."""
        if size > LONGEST:
            return _too_large()
        if lines > LINES:
            return _too_many_lines()
        if self.held + more > self._under_way:
            return self._full()
        return None

    def _full(self) -> Overloaded:
        return Overloaded(
            f"requests hold {self.held:,} bytes (limit {self._under_way:,})", code="bodies_full"
        )


def _too_large() -> Overloaded:
    return Overloaded(
        f"more than {LONGEST} bytes of outcomes",
        code="too_large",
        hint="send less at once, or a file: kedge outcomes",
    )


def _too_many_lines() -> Overloaded:
    return Overloaded(
        f"a request has at most {LINES:,} lines",
        code="too_many_lines",
        hint="send less at once, or a file: kedge outcomes",
    )

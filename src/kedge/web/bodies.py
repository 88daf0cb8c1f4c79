"""Bodies of requests: bounded in bytes, lines and time, and taken whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from kedge.core.encodings import inflate
from kedge.core.errors import BadRequest, KedgeError, Overloaded

LONGEST = 16 << 20
"""Bytes of outcomes in one request: about 200,000 of them. A larger batch is a file, for the CLI."""
LINES = 250_000
"""Lines of one request, empty ones included: each costs time, however short it is."""
UNDER_WAY = 64 << 20
"""Bytes of all bodies that are held at once, until their batch is joined: four of the longest."""
SLOWEST_S = 30.0
"""Seconds a body may take to arrive: 16 MiB at 4.5 Mbit/s."""
DISCARDED = 4
"""How many times `LONGEST` is read and thrown away, so that the caller hears the answer."""
DIGITS = 18
"""Longest Content-Length that is read as a number."""


class HungUp(Exception):
    """The caller left before its body was complete: no answer can be sent."""


class Bodies:
    """What all requests of this process hold of bodies; for one event loop."""

    def __init__(self, *, under_way: int = UNDER_WAY, slowest_s: float = SLOWEST_S) -> None:
        """Begin with none."""
        self.held = 0
        """Bytes that are held now."""
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
        """Receive a body, and account for it as long as the caller of this works on it.

        What is refused is still read to its end, and thrown away. A caller that is sending when
        its connection is closed would see a broken pipe and never the answer.

        Args:
            receive: ASGI's.
            declared: its Content-Length, if it was given.
            refusal: why it is refused, if that is known already.
            gzip: whether it is compressed; what it holds is bounded as any other body is.

        Raises:
            HungUp: the connection ended before the body did.
            BadRequest: `body_too_slow`; `malformed_body`: it is not the gzip that it is said to be.
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
        """Inflate a body beside the loop. What it may hold is taken before it is known."""
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
        """Return the bound that a body of this size would break, if any."""
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
        hint="hand in less at once, or a file: kedge outcomes",
    )


def _too_many_lines() -> Overloaded:
    return Overloaded(
        f"a request has at most {LINES:,} lines",
        code="too_many_lines",
        hint="hand in less at once, or a file: kedge outcomes",
    )

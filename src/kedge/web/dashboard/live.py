"""Live pages: readings and renderings shared by all viewers, and streams of what changed.

All streams look at the same moments. So the viewers of a page, whatever their number, share one
reading of the state, one rendering, and the bytes of one message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from typing import NamedTuple

import msgspec

from kedge.core.errors import Overloaded, Unavailable
from kedge.web.dashboard.render import Rendered
from kedge.web.readers import Readers
from kedge.workspace import Workplace

EVERY_S = 0.5
"""Interval of looks. Workers count once a second, so a page is 1.5 s behind the traffic at most, and
the time that a look takes."""
EARLY_S = 0.1
"""A reading of this much less than the interval is repeated: a look that is a little early must not
miss its turn."""
SPARED = 4.0
"""A reading is repeated after so many times its own duration, so that it takes a fifth of a core."""
PULSE_S = 5.0
"""Interval at which a stream sends the server's time, so that a browser notices silence."""
STREAMS = 100
"""Maximum streams at once."""
KEPT = 1_000
"""Maximum readings that are kept; then the oldest is dropped."""
RETRY_MS = 1_000

NOTHING: dict[str, str] = {}
"""The parts of a stream that has sent none."""

Work = Callable[[Workplace], object]


class Reading(NamedTuple):
    """A result with the time at which it was read."""

    value: object
    at: float
    fault: str
    """Why the result is not of now; empty: it is."""


class KeptReading(NamedTuple):
    """A stored reading, and when it is due again."""

    reading: Reading
    due: float


class SharedReads:
    """Readings of the state directory. All viewers of a page share one."""

    def __init__(
        self, readers: Readers, unix: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        """Read with these threads."""
        self._readers = readers
        self._unix = unix
        self._monotonic = monotonic
        self._kept: dict[Hashable, KeptReading] = {}

    async def read(self, what: Hashable, work: Work, memory: Work | None = None) -> Reading:
        """Return a result that is at most a second old, or the last one and why there is no newer.

        Args:
            what: the name of the reading.
            work: reads it.
            memory: reads what this host remembers; called if nothing was read before.

        Raises:
            Refused: the endpoint is not found.
            Unavailable: it cannot be read, and was not read before.
        """
        known = self._kept.get(what)
        started = self._monotonic()
        if known is not None and started < known.due:
            return known.reading
        try:
            value = await self._readers.share(what, work)
            found = Reading(value, self._unix(), "")
        except (Unavailable, Overloaded) as error:
            if known is not None:
                found = known.reading._replace(fault=f"{error.code}: {error}")
            elif memory is None or isinstance(error, Overloaded):
                raise
            else:
                value = await self._readers.share((what, "memory"), memory)
                return Reading(value, self._unix(), f"{error.code}: {error}")
        now = self._monotonic()
        due = max(started + EVERY_S - EARLY_S, now + SPARED * (now - started))
        self._kept.pop(what, None)
        self._kept[what] = KeptReading(found, due)
        while len(self._kept) > KEPT:
            self._kept.pop(next(iter(self._kept)))
        return found

    def forget(self, what: Hashable) -> None:
        """Drop a reading, because a command has changed what it shows."""
        self._kept.pop(what, None)


class PageStreams:
    """Streams of pages: a bounded number, each with the parts that changed since its last message."""

    def __init__(
        self,
        unix: Callable[[], float],
        monotonic: Callable[[], float],
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Start without streams; all end at the next look after `is_stopping` returns True."""
        self._unix = unix
        self._monotonic = monotonic
        self._is_stopping = is_stopping
        self.count = 0

    def open(
        self,
        render: Callable[[], Awaitable[Rendered]],
        is_over: Callable[[], bool],
        personal: tuple[bytes, bytes] = (b"\0", b""),
        shown: dict[str, str] = NOTHING,
    ) -> AsyncIterator[bytes]:
        """Return the messages of one stream.

        Args:
            render: renders the page as it is now, for all viewers who see the same.
            is_over: whether the viewer's session has ended.
            personal: what stands in the shared rendering for the viewer's own token, and the token.
            shown: the parts that the browser has; only they are replaced, unless there is none.

        Raises:
            Overloaded: `too_many_streams`.
        """
        if self.count >= STREAMS:
            raise Overloaded(f"{STREAMS} streams are open", code="too_many_streams")
        return self._messages(render, is_over, personal, shown)

    async def _messages(
        self,
        render: Callable[[], Awaitable[Rendered]],
        is_over: Callable[[], bool],
        personal: tuple[bytes, bytes],
        sent: dict[str, str],
    ) -> AsyncIterator[bytes]:
        self.count += 1
        mark, token = personal
        quiet_s = PULSE_S
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            while not self._is_stopping():
                if is_over():
                    yield b"event: ended\ndata: {}\n\n"
                    return
                found = await render()
                raw = step(sent, found).replace(mark, token)
                sent = found.parts
                quiet_s += EVERY_S
                if raw or quiet_s >= PULSE_S:
                    yield raw + self._pulse()
                    quiet_s = 0.0
                now = self._monotonic()
                await asyncio.sleep(max(next_look(now) - now, 0.0))
        finally:
            self.count -= 1

    def _pulse(self) -> bytes:
        return b"event: pulse\ndata: %s\n\n" % msgspec.json.encode({"now": self._unix()})


def next_look(now: float) -> float:
    """Return the monotonic time of the next look of all streams."""
    return (now // EVERY_S + 1) * EVERY_S if EVERY_S else now


def step(sent: dict[str, str], found: Rendered) -> bytes:
    """Return the message from the parts that were sent to a rendering; empty: nothing changed.

    Viewers who were sent the same parts share it.
    """
    for known, raw in found.steps:
        if known is sent:
            return raw
    text = changed(sent, found)
    raw = message(text) if text else b""
    found.steps.append((sent, raw))
    return raw


def changed(sent: dict[str, str], found: Rendered) -> str:
    """Return what replaces the changed parts of a page; the whole content if its parts are others.

    Empty: nothing changed.
    """
    if list(sent) != list(found.parts):
        return f'<hx-partial hx-target="#content" hx-swap="innerMorph">{found.body}</hx-partial>'
    return "".join(
        f'<hx-partial id="{id_}" hx-swap="outerMorph">{text}</hx-partial>'
        for id_, text in found.parts.items()
        if sent[id_] != text
    )


def message(text: str) -> bytes:
    """Return a text as one message of a stream."""
    lines = "".join(f"data: {line}\n" for line in text.splitlines() if line.strip())
    return f"{lines}\n".encode()

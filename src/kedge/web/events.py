"""Event stream of control: server-sent events that resume by Last-Event-ID, within bounds.

Theory of operation
-------------------
* One thread looks for events (`publish`), whatever the number of readers. Each event is encoded
  once, and queued for every reader that wants it.
* The id of an event is the number of the newest entry of the ledger. A reader that returns with it
  gets the entries since then from the ledger, so a stream also survives a restart of control.
* The queue of a reader is bounded. When it is full, it is dropped as a whole, counted, and replaced
  by the event `reset`: the reader must read the views again. The event `reset` also answers a
  reader that missed more entries than are replayed.
* A reader that reads nothing is disconnected by the server (`web.server`), which bounds the time
  for which an answer waits for its reader.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from kedge.core.codec import encode
from kedge.core.errors import BadRequest, KedgeError, Overloaded
from kedge.core.stored.ledger import Entry
from kedge.core.values import Value
from kedge.engine.process_faults import ProcessFaults
from kedge.operations.feed import Happening
from kedge.web.readers import Readers
from kedge.workspace import Workplace

STREAMS = 100
"""Maximum streams at once; the server accepts 128 connections, and other requests need some."""
QUEUED = 256
"""Maximum events that wait for one reader."""
REPLAYED = 1_000
"""Maximum entries that a returning reader gets."""
BEAT_S = 2.0
"""Interval of comments on a silent stream, and of the check whether the reader may still read."""
BEAT = b": \n\n"
"""A comment, which a reader ignores."""
RETRY_MS = 1_000
"""Time after which a browser connects again."""
LONGEST_ID = 15

Permit = Callable[[], Awaitable[bool]]
"""A function that returns whether a reader may still read."""


class StreamStart(Value, frozen=True):
    """The first event of a stream."""

    seq: int
    """The number of the newest entry of the ledger; the views can be read from here."""


class StreamReset(Value, frozen=True):
    """Events were left out: the views must be read again."""

    dropped: int | None
    """How many events were dropped; null: more entries were missed than are replayed."""


class StreamFault(Value, frozen=True):
    """The state cannot be read: what was read before is the last known state."""

    code: str
    """Empty: it can be read again."""
    detail: str


class Reader:
    """One reader of the stream, and the events that wait for it."""

    def __init__(self, endpoints: tuple[str, ...] | None) -> None:
        """Read the events of these endpoints; None: of all."""
        self.endpoints = endpoints
        self.waiting: deque[tuple[str, int, bytes]] = deque()
        self.dropped = 0
        self.fault = ""
        """The code of the fault because of which its missed entries could not be read."""
        self.has_news = asyncio.Event()

    def wants(self, endpoint: str) -> bool:
        """Return whether it reads the events of an endpoint."""
        return self.endpoints is None or endpoint in self.endpoints

    def put(self, event: tuple[str, int, bytes]) -> int:
        """Queue an event; return the number of dropped events."""
        lost = 0
        if len(self.waiting) >= QUEUED:
            lost = len(self.waiting)
            self.waiting.clear()
            self.dropped += lost
        self.waiting.append(event)
        self.has_news.set()
        return lost


class Streams:
    """Every open stream of the process; for one event loop."""

    def __init__(
        self,
        readers: Readers,
        faults: ProcessFaults,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Start without streams; all end soon after `is_stopping` returns True."""
        self._threads = readers
        self._faults = faults
        self._is_stopping = is_stopping
        self._readers: set[Reader] = set()
        self._fault = StreamFault("", "")
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def wanted(self) -> set[str] | None:
        """The endpoints that readers want; None: all. Any thread may ask."""
        found: set[str] = set()
        for reader in [*self._readers]:
            if reader.endpoints is None:
                return None
            found.update(reader.endpoints)
        return found

    def publish(self, happenings: Iterable[Happening], error: KedgeError | None = None) -> None:
        """Queue events for the readers; any thread may call this."""
        fault = StreamFault(error.code, str(error)) if error is not None else StreamFault("", "")
        frames = [
            (one.endpoint, (one.name, one.seq, frame(one.name, one.data, one.seq)))
            for one in happenings
        ]
        if self._loop is not None:
            with suppress(RuntimeError):  # the event loop has ended
                self._loop.call_soon_threadsafe(self._deliver, frames, fault)

    def _deliver(
        self, frames: list[tuple[str, tuple[str, int, bytes]]], fault: StreamFault
    ) -> None:
        changed = fault != self._fault
        self._fault = fault
        for reader in self._readers:
            lost = 0
            if changed:
                lost += reader.put(("fault", 0, frame("fault", fault)))
            for endpoint, event in frames:
                if reader.wants(endpoint):
                    lost += reader.put(event)
            if lost:
                self._faults.limit("control.events_dropped", lost)
            if self._is_stopping():
                reader.has_news.set()

    def open(self, request: Request, endpoints: tuple[str, ...] | None, permit: Permit) -> Stream:
        """Return the stream of a request: of these endpoints; None: of all.

        Raises:
            BadRequest: `bad_event_id`.
            Overloaded: `streams_full`.
        """
        after = read_id(request)
        if len(self._readers) >= STREAMS:
            raise Overloaded(f"{STREAMS} event streams are open", code="streams_full")
        self._loop = asyncio.get_running_loop()
        return Stream(self, Reader(endpoints), after, permit)

    async def run(self, reader: Reader, after: int | None, permit: Permit, send: Send) -> None:
        """Send events to one reader until it may no longer read, or control stops."""
        self._readers.add(reader)  # first, so that no event falls between replay and queue
        try:
            upto = await self._replay(reader, after, send)
            while not self._is_stopping():
                with suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_S):
                        await reader.has_news.wait()
                reader.has_news.clear()
                if not await permit():
                    return
                if upto is None:  # the ledger could not be read; nothing is sent before its entries
                    upto = await self._replay(reader, after, send)
                else:
                    await _write(send, b"".join(_take(reader, upto)) or BEAT)
        finally:
            self._readers.discard(reader)

    async def _replay(self, reader: Reader, after: int | None, send: Send) -> int | None:
        """Send the entries that the reader missed; return the number of the newest entry.

        None: the ledger cannot be read. The reader is told so, and this is tried again.
        """

        def work(place: Workplace) -> tuple[int, tuple[Entry, ...]]:
            # The head first: an entry that is written between the two reads is then sent, too.
            head = place.ledger.read().head
            missed = place.ledger.later(after, REPLAYED + 1) if after is not None else ()
            return head.seq if head is not None else 0, missed

        try:
            head, missed = await self._threads.run(work)
        except KedgeError as error:
            told = reader.fault != error.code
            reader.fault = error.code
            fault = StreamFault(error.code, str(error))
            await _write(send, frame("fault", fault) if told else BEAT)
            return None
        seq = max([head, *(entry.seq for entry in missed)])
        if len(missed) > REPLAYED or (after is not None and after > seq):
            parts = [frame("reset", StreamReset(None), seq)]
        else:
            wanted = (one for one in missed if reader.wants(one.endpoint))
            parts = [frame("entry", one, one.seq) for one in wanted]
        parts.append(frame("start", StreamStart(seq), seq))
        if self._fault.code or reader.fault:
            parts.append(frame("fault", self._fault))
        await _write(send, b"".join(parts))
        return seq


class Stream:
    """The answer to a request for events, as an ASGI app."""

    def __init__(self, streams: Streams, reader: Reader, after: int | None, permit: Permit) -> None:
        """Prepare the stream; nothing is sent yet."""
        self._streams = streams
        self._reader = reader
        self._after = after
        self._permit = permit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the reader disconnects, may no longer read, or control stops."""
        headers = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        await _write(send, b"retry: %d\n\n" % RETRY_MS)
        sending = asyncio.ensure_future(
            self._streams.run(self._reader, self._after, self._permit, send)
        )
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
        await send({"type": "http.response.body", "body": b""})


def frame(name: str, data: object, seq: int | None = None) -> bytes:
    """Return one event as the stream has it."""
    identity = b"id: %d\n" % seq if seq is not None else b""
    return identity + b"event: " + name.encode() + b"\ndata: " + encode(data) + b"\n\n"


def read_id(request: Request) -> int | None:
    """Return the entry after which a reader continues, from Last-Event-ID or `after`.

    Raises:
        BadRequest: `bad_event_id`.
    """
    text = request.headers.get("last-event-id") or request.query_params.get("after")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= LONGEST_ID):
        raise BadRequest(
            f"the id of an event must be a number of an entry, got {text[:80]!r}",
            code="bad_event_id",
            hint="send the id of the last event, or none",
        )
    return int(text)


def _take(reader: Reader, upto: int) -> Iterable[bytes]:
    """Yield the frames that wait for a reader, without entries that were replayed."""
    dropped, reader.dropped = reader.dropped, 0
    if dropped:
        yield frame("reset", StreamReset(dropped))
    while reader.waiting:
        name, seq, text = reader.waiting.popleft()
        if name != "entry" or seq > upto:
            yield text


async def _write(send: Send, text: bytes) -> None:
    await send({"type": "http.response.body", "body": text, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue

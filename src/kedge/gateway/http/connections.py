"""Connections: the bounds of everything that all callers of one worker hold, in size and time.

Incomplete heads and bodies, answers that callers do not read, and open connections occupy a worker.
Each is bounded in bytes or in number, and in time. One sweep per second checks all of them: a timer
for each connection would cost every request more.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from kedge.core.errors import BadRequest, KedgeError, Overloaded
from kedge.gateway.http.peers import Peers

MB = 2**20


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one worker, with their reasons."""

    body: int = 8 * MB
    """Maximum bytes of one body: the setting `max_body_mb`."""
    head: int = 32 * 1024
    """Maximum bytes of one head. Proxies allow 8 to 32 kB: a head that passed one is accepted."""
    headers: int = 100
    """Maximum headers of one request, as in most servers."""
    head_s: float = 10.0
    """Maximum seconds from the first byte of a head to its last. A head fits in a few packets."""
    body_s: float = 30.0
    """Maximum seconds from the head to the last byte of a body."""
    grace_s: float = 5.0
    """Seconds before a body or an answer must move at `rate`: a lost packet may take seconds."""
    rate: float = 1000.0
    """Minimum bytes per second; a slow mobile connection has ten times as many."""
    bodies: int = 128 * MB
    """Maximum bytes of all incomplete bodies: sixteen of the largest."""
    peer_bodies: int = 128
    """Maximum incomplete bodies of one caller: more than a browser or an office has at once."""
    peer_bytes: int = 32 * MB
    """Maximum bytes of incomplete bodies of one caller: a quarter of all."""
    answer_s: float = 30.0
    """Maximum seconds from when an answer waits for its caller to read until all of it has left."""
    answers: int = 128 * MB
    """Maximum bytes of answers that wait for their callers."""
    peer_answers: int = 32 * MB
    """The same limit for one caller."""
    silent_s: float = 75.0
    """Maximum seconds of a connection without a complete head: the same as between two requests."""
    linger_s: float = 2.0
    """Seconds after a refusal in which input is read and dropped, so that the answer arrives."""
    pipelined: int = 256
    """Maximum requests that wait on one connection for the answer to the first."""
    all_pipelined: int = 16_384
    """The same limit on all connections: each request takes 3 kB."""


def http_limits(body: int) -> ConnectionLimits:
    """Return the bounds of a worker that accepts bodies of this size."""
    return ConnectionLimits(
        body=body, bodies=max(128 * MB, 16 * body), peer_bytes=max(32 * MB, 4 * body)
    )


PARTS = 8
"""A refused body is read and dropped up to so many times its bound; then the caller is cut off."""
SHARE = 0.9
"""Share of the descriptors that connections may take; the rest is for files and models."""
RESERVE = 24
"""Minimum number of descriptors left for files and models."""
UNSENT = 128 * 1024
"""Unsent bytes of one connection that the kernel holds: enough for any network."""
UNLIMITED = 1_000_000
"""Maximum connections if open files have no limit."""
SWEEP_S = 1.0


class Connection(Protocol):
    """One connection of a caller, which the bounds apply to."""

    caller: str | None
    """The key under which its bounds count; None if bounds by caller do not apply."""
    held: int
    """Counted bytes of its body."""
    unsent: int
    """Counted bytes of its answers."""
    queued: int
    """Counted requests on it that wait for the answer to an earlier one."""

    def refuse_head(self, error: KedgeError) -> None:
        """Answer before the head is whole, and close."""

    def refuse_body(self, error: KedgeError) -> None:
        """Answer before the body is whole, and close."""

    def received(self) -> int:
        """Return the received bytes of its body."""

    def waiting(self) -> int:
        """Return the bytes of answers that have not left."""

    def idle_since(self) -> float | None:
        """Return when its last answer left, or None if it is not between two requests."""

    def hang_up(self) -> None:
        """Close without an answer."""


class Connections:
    """All connections of one worker; belongs to its event loop."""

    def __init__(
        self,
        limits: ConnectionLimits | None = None,
        *,
        peers: Peers | None = None,
        limit: Callable[[str], None] = lambda bound: None,
        most: int | None = None,
    ) -> None:
        """Start empty; `limit` takes a reached bound, `most` is the maximum of connections."""
        self.limits = limits or ConnectionLimits()
        self.peers = peers or Peers()
        self.limit = limit
        self._most = most if most is not None else most_connections()
        self._open: set[Connection] = set()
        # Each is in order of start, so that checking the first few is enough.
        self._silent: dict[Connection, float] = {}
        self._heads: dict[Connection, float] = {}
        self._bodies: dict[Connection, float] = {}
        self._readers: dict[Connection, float] = {}
        self._lingering: dict[Connection, float] = {}
        self.body_bytes = 0
        self.answer_bytes = 0
        self.pipelined = 0
        self._peer_bodies: Counter[str] = Counter()
        self._peer_bytes: Counter[str] = Counter()
        self._peer_answers: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None

    # ------------------------------------------------------------ connections

    def opened(self, each: Connection, loop: asyncio.AbstractEventLoop) -> None:
        """Add a new connection; if there are too many, close another one."""
        if self._loop is None:
            self._loop = loop
            loop.call_later(SWEEP_S, self._sweep)
        self._open.add(each)
        self._silent[each] = loop.time()
        if len(self._open) > self._most:
            self._make_room(each)

    def closed(self, each: Connection) -> None:
        """Remove a connection and everything that it held."""
        self._open.discard(each)
        self._silent.pop(each, None)
        self._lingering.pop(each, None)
        self.pipelined, each.queued = self.pipelined - each.queued, 0
        self.head_ended(each)
        self.body_left(each)
        self.read(each)

    def asked(self, each: Connection) -> None:
        """Note the first whole head of a connection."""
        self._silent.pop(each, None)

    def _make_room(self, newest: Connection) -> None:
        """Close a connection: one without a request, else the longest idle, else the slowest."""
        self.limit("connections")
        victim = next(iter(self._silent), newest)
        if victim is not newest:
            victim.hang_up()
            self.closed(victim)
            return
        # One scan of all connections closes a hundredth of them, which spreads its cost.
        idle = sorted(
            (since, number, each)
            for number, each in enumerate(self._open)
            if (since := each.idle_since()) is not None
        )
        for _, _, each in idle[: 1 + self._most // 100]:
            each.hang_up()
            self.closed(each)
        if not idle:
            slowest = self._slowest() or newest
            slowest.hang_up()
            self.closed(slowest)

    def _slowest(self) -> Connection | None:
        """Return the connection that waits longest for its caller: it gives way to new callers."""
        assert self._loop is not None
        now = self._loop.time()
        for began, least_s in (
            (self._readers, 0.0),
            (self._heads, self.limits.linger_s),
            (self._bodies, self.limits.grace_s),
        ):
            for each, since in began.items():
                if now - since >= least_s:
                    return each
                break
        return None

    def lingers(self, each: Connection) -> None:
        """Record a refused connection that is only read to its end."""
        assert self._loop is not None
        self.head_ended(each)
        self._silent.pop(each, None)
        self._lingering[each] = self._loop.time()

    def queues(self, each: Connection, requests: int) -> None:
        """Record how many requests wait on a connection; close it if it adds too many."""
        delta, each.queued = requests - each.queued, requests
        self.pipelined += delta
        # A connection whose queue shrinks is not closed for the requests of another one.
        if delta > 0 and (
            requests > self.limits.pipelined or self.pipelined > self.limits.all_pipelined
        ):
            self.limit("pipelined")
            each.hang_up()
            # The loop reports the lost connection later; until then others would be closed for it.
            self.pipelined, each.queued = self.pipelined - requests, 0

    # ------------------------------------------------------------ heads

    def head_began(self, each: Connection) -> None:
        """Record the start of an incomplete head."""
        assert self._loop is not None
        self._heads.setdefault(each, self._loop.time())

    def head_ended(self, each: Connection) -> None:
        """Record the end of a head."""
        self._heads.pop(each, None)

    # ------------------------------------------------------------ bodies

    def counts(self, each: Connection) -> bool:
        """Return whether a connection has counted bytes, so that its caller must not change."""
        return bool(each in self._bodies or each.held or each in self._readers)

    def body_began(self, each: Connection) -> None:
        """Record the start of an incomplete body."""
        assert self._loop is not None
        if each in self._bodies:
            return
        self._bodies[each] = self._loop.time()
        if each.caller is not None:
            self._peer_bodies[each.caller] += 1
            if self._peer_bodies[each.caller] > self.limits.peer_bodies:
                each.refuse_body(peer_busy(f"{self.limits.peer_bodies} bodies are under way"))

    def body_grew(self, each: Connection, size: int) -> None:
        """Record the held bytes of a body; if that is too much, refuse one body."""
        delta, each.held = size - each.held, size
        self.body_bytes += delta
        if each.caller is not None:
            self._peer_bytes[each.caller] += delta
            if self._peer_bytes[each.caller] > self.limits.peer_bytes:
                each.refuse_body(peer_busy(f"{self.limits.peer_bytes} bytes are under way"))
                return
        # Refuse the oldest: a caller that sends slowly gives way to one that sends normally.
        while self.body_bytes > self.limits.bodies:
            oldest = next((other for other in self._bodies if other.held), each)
            oldest.refuse_body(
                Overloaded(
                    f"{self.limits.bodies} bytes of bodies are under way in this worker",
                    code="bodies_full",
                    details={"unread": True},
                )
            )
            self.body_left(oldest)
            if oldest is each:
                return

    def body_ended(self, each: Connection) -> None:
        """Record that a body is whole; its bytes count until `body_left`."""
        if self._bodies.pop(each, None) is not None and each.caller is not None:
            _take(self._peer_bodies, each.caller, 1)

    def body_left(self, each: Connection) -> None:
        """Release the bytes of a body."""
        self.body_ended(each)
        if each.held:
            self.body_bytes -= each.held
            if each.caller is not None:
                _take(self._peer_bytes, each.caller, each.held)
            each.held = 0

    # ------------------------------------------------------------ answers

    def unread(self, each: Connection, size: int) -> None:
        """Record an answer that waits for its caller; if that is too much, cut one caller off."""
        assert self._loop is not None
        self._readers.setdefault(each, self._loop.time())
        delta, each.unsent = size - each.unsent, size
        self.answer_bytes += delta
        if each.caller is not None:
            self._peer_answers[each.caller] += delta
            if self._peer_answers[each.caller] > self.limits.peer_answers:
                self._cut(each)
        while self.answer_bytes > self.limits.answers:
            self._cut(next(iter(self._readers)))

    def read(self, each: Connection) -> None:
        """Record that a caller has read its answer, or is gone."""
        if self._readers.pop(each, None) is None:
            return
        self.answer_bytes -= each.unsent
        if each.caller is not None:
            _take(self._peer_answers, each.caller, each.unsent)
        each.unsent = 0

    def _cut(self, each: Connection) -> None:
        self.limit("answers_unread")
        self.read(each)
        each.hang_up()

    # ------------------------------------------------------------ time

    def _sweep(self) -> None:
        """Sweep once, and schedule the next sweep."""
        assert self._loop is not None
        self._loop.call_later(SWEEP_S, self._sweep)
        now = self._loop.time()
        self.sweep(now)

    def sweep(self, now: float) -> None:
        """End everything that has exceeded its time limit at this moment."""
        limits = self.limits
        for each in _older(self._heads, now - limits.head_s):
            self.head_ended(each)
            each.refuse_head(
                BadRequest(
                    f"the head took longer than {limits.head_s:g} s",
                    code="head_too_slow",
                    details={"unread": True},
                )
            )
        for each, since in list(self._bodies.items()):
            took = now - since
            if took <= min(limits.grace_s, limits.body_s):
                break
            if took > limits.body_s or each.received() < (took - limits.grace_s) * limits.rate:
                each.refuse_body(too_slow(limits))
                self.body_left(each)
        for each, since in list(self._readers.items()):
            took = now - since
            if took <= min(limits.grace_s, limits.answer_s):
                break
            left = each.waiting()
            gone = max(each.unsent - left, 0)
            if took > limits.answer_s or gone < (took - limits.grace_s) * limits.rate:
                self._cut(each)
        for each in _older(self._silent, now - limits.silent_s):
            self.limit("silent_connections")
            each.hang_up()
            self._silent.pop(each, None)
        for each in _older(self._lingering, now - limits.linger_s):
            self._lingering.pop(each, None)
            each.hang_up()


def _older(began: dict[Connection, float], then: float) -> list[Connection]:
    """Return the connections that began before a moment."""
    found = []
    for each, since in began.items():
        if since > then:
            break
        found.append(each)
    return found


def _take(counts: Counter[str], key: str, size: int) -> None:
    """Subtract from a count, and delete it at zero, since there are ever new callers."""
    counts[key] -= size
    if counts[key] <= 0:
        del counts[key]


def peer_busy(what: str) -> KedgeError:
    """Return the error for a caller that holds more than its share."""
    return Overloaded(
        f"too much at once from one caller: {what}", code="peer_busy", details={"unread": True}
    )


def too_slow(limits: ConnectionLimits) -> KedgeError:
    """Return the error for a caller whose body arrives too slowly."""
    return BadRequest(
        f"the body took longer than {limits.body_s:g} s, or came slower than "
        f"{limits.rate:g} bytes/s after {limits.grace_s:g} s",
        code="body_too_slow",
        details={"unread": True},
    )


def bound_unsent(listener: socket.socket) -> None:
    """Limit the unsent bytes that the kernel holds for each connection accepted from now on.

    Otherwise it takes megabytes of an unread answer. They use memory of this process's cgroup, and
    look as if the caller had read them.
    """
    with contextlib.suppress(OSError, AttributeError):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)


def raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one; return the limit in force.

    The soft limit of a login or a service is commonly 1,024, for programs that use select().
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
        return hard
    return soft


def most_connections() -> int:
    """Return the number of connections that the limit of open files allows this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return UNLIMITED
    try:
        used = sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        used = RESERVE
    return max(min(int(soft * SHARE) - used, soft - used - RESERVE), 8)

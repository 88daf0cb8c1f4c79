"""The roster as values: replicas, holds, faults of processes, tallies."""

from __future__ import annotations

from kedge.core.stored.head import Head
from kedge.core.values import (
    Placement,
    Value,
)


class ReplicaHold(Value, frozen=True):
    """The state of one release on one replica."""

    endpoint: str
    release: int
    placement: Placement
    state: str
    """loading | ready | failed"""
    load_s: float = 0.0
    detail: str = ""
    attempt: int = 0
    """Number of the attempt, which distinguishes an old failure from a new one."""
    copies: int = 0
    """Processes of it that answer; 0 inline, and from a replica that does not report them."""
    unfenced: tuple[str, ...] = ()
    """The parts of the fence that are missing on its processes."""


class ProcessFault(Value, frozen=True):
    """A fault that one part of a process survived, counted since the process started."""

    place: str
    """The part that failed, as a dotted name: `replica.step`, `supervisor.start.w0`."""
    text: str
    """The newest error: its class and its message."""
    count: int
    at: str
    """When it last occurred."""
    standing: bool = True
    """Whether it still stands, so that its step has not succeeded since."""


class Member(Value, frozen=True):
    """The report of one replica. It is written as a whole, so that it is never inconsistent."""

    name: str
    host: str
    pid: int
    kind: str
    """gateway | supervisor | control"""
    address: str
    started_at: str
    beat_at: float
    """When it was written, by the reader's wall clock (see `boot`)."""
    ledger_at: float
    """Unix time of the last contact with the ledger."""
    epochs: dict[str, int] = {}
    """The epoch that it serves, by endpoint: its ack."""
    answered: dict[str, int] = {}
    """The newest epoch at which it answered a request, by endpoint."""
    pinned: dict[str, int] = {}
    """Releases to which an operator pinned the host by hand, by endpoint."""
    holds: tuple[ReplicaHold, ...] = ()
    lease: bool = True
    loads: dict[str, int] = {}
    """How often it loaded each model inline since its start, by digest. A flip of a transformation
    needs no load."""
    unwritten: str = ""
    """Why its counts cannot be written; empty when they can."""
    head: Head | None = None
    """The newest entry of the ledger that it followed."""
    astray: str = ""
    """Why it does not follow the present ledger, whose history lacks `head`. Empty when it does."""
    faults: tuple[ProcessFault, ...] = ()
    """Faults that its loops survived."""
    limited: dict[str, int] = {}
    """How often each limit refused or dropped something since its start, by the limit's name."""
    boot: str = ""
    """The boot whose monotonic clock `beat` uses; empty in a row of an earlier kedge."""
    beat: float = 0.0
    """`beat_at` by that clock, which never jumps. The roster's adapter writes it, and derives
    `beat_at` from it when it reads the row."""


class Tally(Value, frozen=True):
    """Cumulative counts of one replica for one endpoint and comparison. Upserted, never added."""

    replica: str
    endpoint: str
    production: int
    candidate: int | None
    salt: str
    counts: dict[str, int]
    latency: dict[str, dict[int, int]] = {}
    """Per arm: count by logarithmic bin of microseconds (see `latency_bin` of the recorder)."""

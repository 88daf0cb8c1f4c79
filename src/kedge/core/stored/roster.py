"""The roster as values: replicas, holds, faults of processes, counts."""

from __future__ import annotations

from kedge.core.stored.head import Head
from kedge.core.values import (
    Placement,
    Value,
)


class ReplicaHold(Value, frozen=True):
    """How one replica holds one release."""

    endpoint: str
    release: int
    placement: Placement
    state: str
    """loading | ready | failed"""
    load_s: float = 0.0
    detail: str = ""
    attempt: int = 0
    """Grows with each try, so that an old failure can be told from a new one."""
    copies: int = 0
    """How many processes of it answer; 0 inline, and from a replica that does not tell."""
    unfenced: tuple[str, ...] = ()
    """The parts of the fence that its processes lack."""


class ProcessFault(Value, frozen=True):
    """A fault that one part of a process survived, counted since the process started."""

    place: str
    """What failed, as a dotted name: `replica.step`, `supervisor.start.w0`."""
    text: str
    """The newest error: its class and its message."""
    count: int
    at: str
    """When it last happened."""
    standing: bool = True
    """Whether it still stands: its step has not succeeded since."""


class Member(Value, frozen=True):
    """What a replica says of itself. Written whole, so that it can never be half true."""

    name: str
    host: str
    pid: int
    kind: str
    """gateway | supervisor | control"""
    address: str
    started_at: str
    beat_at: float
    """When it was written, by the wall clock of who reads it (`boot`)."""
    ledger_at: float
    """Unix time of the last contact with the ledger."""
    epochs: dict[str, int] = {}
    """The epoch it serves, per endpoint: its ack."""
    answered: dict[str, int] = {}
    """The newest epoch at which it gave an answer, per endpoint."""
    pinned: dict[str, int] = {}
    """Releases a host was pinned to by hand, per endpoint."""
    holds: tuple[ReplicaHold, ...] = ()
    lease: bool = True
    loads: dict[str, int] = {}
    """How often it loaded each model inline since it began, by digest: a transformation is rolled
    without a load."""
    unwritten: str = ""
    """Why what it counted cannot be written; empty when it can."""
    head: Head | None = None
    """The newest entry of the ledger that it followed."""
    astray: str = ""
    """Why it does not follow the ledger that is there: its history lacks `head`. Empty when it does."""
    faults: tuple[ProcessFault, ...] = ()
    """Faults that its loops survived."""
    limited: dict[str, int] = {}
    """How often each bound refused or dropped something since it started, by the bound's name."""
    boot: str = ""
    """Whose monotonic clock `beat` is of; empty in a row of an earlier kedge."""
    beat: float = 0.0
    """`beat_at` by that clock, which never jumps: the roster's adapter writes it, and makes `beat_at`
    of it when the row is read."""


class Tally(Value, frozen=True):
    """Cumulative counts of one replica for one endpoint and comparison. Upserted, never added."""

    replica: str
    endpoint: str
    production: int
    candidate: int | None
    salt: str
    counts: dict[str, int]
    latency: dict[str, dict[int, int]] = {}
    """Per arm: count by log-bin of microseconds (see engine.observe)."""

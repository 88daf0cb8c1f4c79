"""Feed of events: entries of the ledger, acks of replicas, alerts and evidence, as they change.

A feed looks at the state directory regularly and returns the changes since its last look. It
belongs to one thread. Entries come from the ledger in its order and none is left out. The other
events are states: a later one replaces an earlier one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from msgspec.structs import replace

from kedge.core.stored.ledger import Entry, Note
from kedge.core.values import Value
from kedge.engine.recording.counts import summary
from kedge.engine.submission import replicas
from kedge.operations.alerts import ListedAlert, alerts_of
from kedge.workspace import Workplace

BATCH = 1_000
"""Maximum entries of one look; the next look continues."""
EVIDENCE_S = 1.0
"""Interval of evidence events: replicas write their counts once a second."""
ACKS_S = 15.0
"""How long acks of an epoch are awaited: replicas that are silent for longer have left."""


class AckEvent(Value, frozen=True, kw_only=True):
    """A replica serves an epoch of an endpoint."""

    endpoint: str
    epoch: int
    replica: str
    missing: tuple[str, ...]
    """Replicas that have not acknowledged it yet."""


class EvidenceEvent(Value, frozen=True, kw_only=True):
    """The counts of an endpoint have changed: its evidence and its status can be read again."""

    endpoint: str
    at: str
    requests: dict[str, int]
    """Answered requests by arm, since the comparison began."""
    errors: dict[str, int]
    """Failed requests by arm."""


class Happening(NamedTuple):
    """One event."""

    name: str
    endpoint: str
    seq: int
    """The number of the newest entry of the ledger when it happened."""
    data: Entry | AckEvent | ListedAlert | EvidenceEvent


class Feed:
    """The events of a state directory since the last look."""

    def __init__(self, place: Workplace) -> None:
        """Start at the present end of the ledger; nothing is read before the first look."""
        self._place = place
        self._seq: int | None = None
        self._stamp: object = None
        self._alerts: dict[int, ListedAlert] | None = None
        self._waited: dict[str, tuple[int, float, set[str]]] = {}
        """By endpoint: the awaited epoch, until when, and the replicas that have it."""
        self._counted: dict[str, EvidenceEvent] = {}
        self._due = 0.0

    def look(self, wanted: Collection[str] | None) -> list[Happening]:
        """Return the events since the last look.

        Args:
            wanted: the endpoints whose counts and alerts are read; None: all. Entries are read
                always, so that none is missed.

        Raises:
            Unavailable: a database cannot be read; the next look returns what this one missed.
        """
        if self._seq is None:
            head = self._place.ledger.read().head
            self._seq = head.seq if head is not None else 0
        stamp = self._place.ledger.stamp()
        found: list[Happening] = []
        if stamp != self._stamp:
            entries = self._place.ledger.later(self._seq, BATCH)
            found += [Happening("entry", one.endpoint, one.seq, one) for one in entries]
            self._await_acks(entries)
            self._seq = entries[-1].seq if entries else self._seq
            if wanted is None or wanted:
                found += self._changed_alerts()
            if len(entries) < BATCH:
                self._stamp = stamp
        found += self._new_acks()
        now = self._place.clock.monotonic()
        if now >= self._due and (wanted is None or wanted):
            self._due = now + EVIDENCE_S
            found += self._counts(wanted)
        return found

    def forget(self) -> None:
        """Forget states that no reader waits for; entries are not forgotten."""
        self._alerts = None
        self._counted.clear()

    def _await_acks(self, entries: Collection[Entry]) -> None:
        until = self._place.clock.monotonic() + ACKS_S
        for entry in entries:
            if not isinstance(entry.event, Note):
                self._waited[entry.endpoint] = (entry.epoch, until, set())

    def _new_acks(self) -> list[Happening]:
        """Return the replicas that acknowledged an awaited epoch since the last look."""
        if not self._waited:
            return []
        members = replicas(self._place.roster.members())
        now = self._place.clock.monotonic()
        found = []
        for endpoint, (epoch, until, known) in [*self._waited.items()]:
            have = {one.name for one in members if one.epochs.get(endpoint, -1) >= epoch}
            missing = tuple(sorted({one.name for one in members} - have))
            for replica in sorted(have - known):
                data = AckEvent(endpoint=endpoint, epoch=epoch, replica=replica, missing=missing)
                found.append(Happening("ack", endpoint, self._seq or 0, data))
            known.update(have)
            if now >= until or not missing:
                del self._waited[endpoint]
        return found

    def _changed_alerts(self) -> list[Happening]:
        alerts = {one.number: one for one in alerts_of(self._place, None, over=True)}
        before, self._alerts = self._alerts, alerts
        if before is None:
            return []
        return [
            Happening("alert", one.endpoint, self._seq or 0, one)
            for number, one in sorted(alerts.items())
            if number not in before or _lasting(one) != _lasting(before[number])
        ]

    def _counts(self, wanted: Collection[str] | None) -> list[Happening]:
        """Return the endpoints whose replicas counted requests since the last look."""
        found = []
        at = self._place.clock.now()
        states = self._place.ledger.read().states
        for endpoint in states if wanted is None else sorted({*wanted} & states.keys()):
            counts = summary(self._place.evidence.tallies(endpoint))
            data = EvidenceEvent(
                endpoint=endpoint, at=at, requests=counts.requests, errors=counts.errors
            )
            before = self._counted.get(endpoint)
            self._counted[endpoint] = data
            if before is None or replace(before, at=at) != data:
                found.append(Happening("evidence", endpoint, self._seq or 0, data))
        return found


def _lasting(alert: ListedAlert) -> ListedAlert:
    """Return an alert without the times that every look of the alerting changes."""
    return replace(alert, elapsed_s=0.0, seen=0.0)

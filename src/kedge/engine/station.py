"""Station of a process of this host: the ledger that it follows, and its row in the roster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kedge.core.stored.roster import Member
from kedge.engine.loop import Duty
from kedge.engine.pins import HostDisk
from kedge.ports import Ledger, Roster, Signal


@dataclass(frozen=True, slots=True)
class Station:
    """What a worker and a supervisor follow, and where they report their state."""

    duty: Duty
    member: Member
    """Its row, before the first heartbeat."""
    ledger: Ledger
    stamp: Callable[[], object]
    """Returns a value that changes when the ledger may have changed."""
    roster: Roster
    disk: HostDisk
    signal: Signal

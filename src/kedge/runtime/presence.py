"""Presence of a process in the roster: the station of any process, and the row of control."""

from __future__ import annotations

from functools import partial

import msgspec

from kedge.core.stored.roster import Member
from kedge.engine.loop import Duty, Loop
from kedge.engine.station import Station
from kedge.ports import Roster, Signal
from kedge.workspace import Workplace, new_member

BEAT_S = 1.0
"""Interval of the writes; the other processes use the same."""


def station_of(place: Workplace, duty: Duty, member: Member, signal: Signal) -> Station:
    """Return the station of a process: the parts of a state directory that it follows."""
    return Station(duty, member, place.ledger, place.ledger.stamp, place.roster, place.disk, signal)


class Presence:
    """Control's row in the roster: `kedge status` shows its faults and its refusals by bound."""

    def __init__(self, duty: Duty, roster: Roster) -> None:
        """Prepare writes to a roster that no other thread uses."""
        self._roster = roster
        self._duty = duty
        self._member = new_member("control", "control", duty.clock.now())
        self.loop = Loop(
            duty,
            "control.roster",
            self._beat,
            every_s=BEAT_S,
            rests_first=True,
            last=partial(roster.leave, self._member.name),
        )

    def _beat(self) -> None:
        self._roster.publish(
            msgspec.structs.replace(
                self._member,
                beat_at=self._duty.clock.unix(),
                faults=self._duty.faults.faults,
                limited=self._duty.faults.limited,
            )
        )

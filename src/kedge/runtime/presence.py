"""Control's presence in the roster: a row with its faults and what its bounds refused."""

from __future__ import annotations

from functools import partial

import msgspec

from kedge.engine.loop import Duty, Loop
from kedge.ports import Roster
from kedge.workspace import new_member

BEAT_S = 1.0
"""As often as the other processes write theirs."""


class Presence:
    """Control's row in the roster: `kedge status` shows its faults and what its bounds refused."""

    def __init__(self, duty: Duty, roster: Roster) -> None:
        """Write to a roster that no other thread uses."""
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

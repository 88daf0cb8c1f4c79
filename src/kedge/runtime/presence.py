"""Control's presence in the roster: a row with its faults and what its bounds refused."""

from __future__ import annotations

import threading
from functools import partial

import msgspec

from kedge.engine.process_faults import Net, ProcessFaults
from kedge.ports import Clock, Roster
from kedge.workspace import new_member

BEAT_S = 1.0
"""As often as the other processes write theirs."""


class Presence:
    """Control's row in the roster: `kedge status` shows its faults and what its bounds refused."""

    def __init__(self, roster: Roster, clock: Clock, faults: ProcessFaults) -> None:
        """Write to a roster that no other thread uses."""
        self._roster = roster
        self._clock = clock
        self._faults = faults
        self._net = Net(faults, clock)
        self._stopping = threading.Event()
        self._member = new_member("control", "control", clock.now())

    def stop(self) -> None:
        """Leave the roster, and end the thread."""
        self._stopping.set()

    def run(self) -> None:
        """Write the row once a second until stopped."""
        while not self._stopping.wait(BEAT_S):
            self._net.run("control.roster", self._beat)
        self._faults.attempt("control.roster", partial(self._roster.leave, self._member.name))

    def _beat(self) -> None:
        self._roster.publish(
            msgspec.structs.replace(
                self._member,
                beat_at=self._clock.unix(),
                faults=self._faults.faults,
                limited=self._faults.limited,
            )
        )

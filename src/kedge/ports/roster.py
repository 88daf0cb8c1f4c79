"""Roster: the known replicas."""

from __future__ import annotations

from typing import Protocol

from kedge.core.stored.roster import Member
from kedge.core.values import Beginning


class Roster(Protocol):
    """The known replicas. A replica is known until it leaves or is declared gone."""

    def publish(self, member: Member) -> None:
        """Write what a replica reports."""

    def leave(self, name: str) -> None:
        """Remove a replica that stopped in order, or whose supervisor saw it die."""

    def members(self) -> tuple[Member, ...]:
        """Return every known replica, by name."""

    def beginning(self) -> Beginning | None:
        """Return when the roster was made; None if that is not known."""

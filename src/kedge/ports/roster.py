"""Roster: the replicas that are known."""

from __future__ import annotations

from typing import Protocol

from kedge.core.stored.roster import Member
from kedge.core.values import Beginning


class Roster(Protocol):
    """The replicas that are known. One stays known until it leaves or is declared gone."""

    def publish(self, member: Member) -> None:
        """Write what a replica says of itself."""

    def leave(self, name: str) -> None:
        """Forget a replica: it stopped in order, or its supervisor saw it die."""

    def members(self) -> tuple[Member, ...]:
        """Everyone known, by name."""

    def beginning(self) -> Beginning | None:
        """When the roster was made; None where that is not known."""

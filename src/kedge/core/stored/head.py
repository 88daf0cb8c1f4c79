"""The head of the ledger's chain: what is kept of it outside of the ledger."""

from __future__ import annotations

from kedge.core.values import Value

SHORT = 12
"""Digits of a hash that are shown: an entry that is made to begin with them takes 2**48 attempts."""


class Head(Value, frozen=True):
    """The newest entry of the ledger as a process knew it: its hash stands for all before it."""

    seq: int
    hash: str

    @property
    def short(self) -> str:
        """As alerts and people have it."""
        return f"{self.seq}:{self.hash[:SHORT]}"

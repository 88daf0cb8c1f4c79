"""The head of the ledger's chain, as processes and alerts store it outside of the ledger."""

from __future__ import annotations

from kedge.core.errors import Refused
from kedge.core.names import read_number
from kedge.core.values import Value

SHORT = 12
"""Digits of a hash that are shown: forging an entry with the same ones takes 2**48 attempts."""


class Head(Value, frozen=True):
    """The newest entry of the ledger as a process saw it. Its hash covers all earlier entries."""

    seq: int
    hash: str

    @property
    def short(self) -> str:
        """The head as alerts and people write it."""
        return f"{self.seq}:{self.hash[:SHORT]}"


def read_head(text: str) -> Head:
    """Read a head as alerts write it.

    Raises:
        Refused: `bad_head`.
    """
    seq, _, of = text.partition(":")
    number = read_number(seq)
    if number is None or len(of) < SHORT or set(of) - set("0123456789abcdef"):
        raise Refused(
            f"{text[:80]!r} is not a head of the ledger",
            code="bad_head",
            hint="an alert has it: NUMBER:HASH",
        )
    return Head(number, of)

"""The contract of an endpoint's callers, as a snapshot carries it; the gateway compiles it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from kedge.typing import Columns


class CallerContract(Protocol):
    """Reads requests by the fields that callers were promised."""

    @property
    def encoded(self) -> bytes:
        """What it is made of, for another process."""

    def columns(self, request: Any, binary: memoryview | None) -> tuple[Columns, int]:
        """Check a request, as the gateway parsed it, and turn it into columns; return their rows.

        Raises:
            BadRequest: it does not fit.
        """

    def entity(self, columns: Columns, rows: int) -> str | None:
        """Return the entity of a request that names none in its header.

        Raises:
            BadRequest: it is none.
        """

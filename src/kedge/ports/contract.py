"""The contract of callers, as a snapshot carries it; the gateway compiles it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from kedge.typing import Columns


class CallerContract(Protocol):
    """Reads requests by the fields that callers promise to send."""

    @property
    def encoded(self) -> bytes:
        """The encoded contract, for another process."""

    def columns(self, request: Any, binary: memoryview | None) -> tuple[Columns, int]:
        """Check a parsed request and convert it to columns; return them and the number of rows.

        Raises:
            BadRequest: it breaks the contract.
        """

    def entity(self, columns: Columns, rows: int) -> str | None:
        """Return the entity of a request that names none in its header.

        Raises:
            BadRequest: the field holds no valid entity.
        """

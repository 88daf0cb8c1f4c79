"""The request, as the serving loop has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kedge.typing import Columns


class Request:
    """One parsed request. Routed whole; each row is one prediction."""

    __slots__ = ("asked", "chosen", "columns", "draw", "entity", "id", "probe", "rows")

    def __init__(
        self,
        *,
        id: str,  # noqa: A002
        columns: Columns,
        rows: int,
        entity: str | None,
        draw: int,
        asked: int | None = None,
        probe: bool = False,
        chosen: bool = False,
    ) -> None:
        self.chosen = chosen
        """Whether the caller chose the id; else the gateway made it."""
        self.id = id
        self.columns = columns
        self.rows = rows
        self.entity = entity
        self.draw = draw
        self.asked = asked
        self.probe = probe

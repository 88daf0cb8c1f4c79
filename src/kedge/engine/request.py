"""Request in the form that the serving loop uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kedge.typing import Columns


class Request:
    """One parsed request. It is routed as a whole; each row is one prediction."""

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
        """Whether the caller chose the id; otherwise the gateway did."""
        self.id = id
        self.columns = columns
        self.rows = rows
        self.entity = entity
        self.draw = draw
        self.asked = asked
        self.probe = probe

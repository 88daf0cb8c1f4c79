"""Unit costs of one window: callers, and requests without one. Bounded; the rest is counted."""

from __future__ import annotations

from kedge.core.evidence.cost_bets import bin_of, fewest
from kedge.core.evidence.windows import CallerCost, CostCell
from kedge.core.routing import unit_of

CALLERS = 512
"""Limit of callers in one window: 20 kB. Above it those with the smallest second hash are
stored."""
PAIRS = 1_024
"""Limit of cells in one window: 40 kB. Without pairs there are fewer bins; of pairs, later ones are
left out together, whatever they cost."""


class UnitCosts:
    """The costs of the units of one window, while it is counted."""

    __slots__ = ("_callers", "_cells", "_left_out", "_paired", "clips")

    def __init__(self, *, paired: bool) -> None:
        self._paired = paired
        self._callers: dict[str, list[float]] = {}
        self._cells: dict[tuple[int, int], list[float]] = {}
        self._left_out = 0
        self.clips = [0, 0]
        """Number of costs that were clipped, by arm."""

    def add(self, unit: str, requests: tuple[int, int], cost: tuple[float, float]) -> None:
        """Add one request: by arm whether it was answered, and its cost per inference."""
        if unit:
            cell = self._callers.setdefault(unit, [0, 0, 0.0, 0.0])
        elif self._paired:
            if len(self._cells) >= PAIRS:
                self._left_out += 1
                return
            cell = self._cells.setdefault((bin_of(cost[0]), bin_of(cost[1])), [0, 0, 0.0, 0.0])
        else:
            place = bin_of(cost[0] if requests[0] else cost[1])
            cell = self._cells.setdefault((place, place), [0, 0, 0.0, 0.0])
        for at, more in enumerate((*requests, *cost)):
            cell[at] += more

    def cells(self) -> tuple[CostCell, ...]:
        """Return the requests without a caller, by bin."""
        return tuple(
            CostCell(bins, (int(n0), int(n1)), (s0, s1))
            for bins, (n0, n1, s0, s1) in self._cells.items()
        )

    def callers(self, key: bytes) -> tuple[tuple[CallerCost, ...], int]:
        """Return the callers, and how many costs of callers and requests were left out.

        Args:
            key: of the comparison's salt, under which callers are hashed and assigned.
        """
        every = []
        for unit, (n0, n1, s0, s1) in self._callers.items():
            every.append(CallerCost(*unit_of(key, unit), (int(n0), int(n1)), (s0, s1)))
        kept = fewest(every, CALLERS)
        return kept, self._left_out + len(every) - len(kept)

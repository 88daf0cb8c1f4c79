"""Units that went bad: when each caller was counted last in each row, and its failures.

One table for all rows of a step. Only the time of a caller's last bad event is stored. An event
counts in a restart if and only if the last one was before that restart began.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf

import numpy as np
from numpy.typing import NDArray

from kedge.core.evidence.stats import Floats

UNITS = 200_000
"""Most callers (in all rows) of one step: 12 MB of numbers. Beyond it, half of the callers are
dropped and ignored from then on, chosen by a hash that is independent of the arm."""
_FIELDS = {
    "unit": np.uint64,
    "row": np.int32,
    "arm": np.int8,
    "last": np.float64,
    "ours": np.float32,
    "theirs": np.float32,
    "ours_1": np.float32,
    "ours_2": np.float32,
    "theirs_1": np.float32,
    "theirs_2": np.float32,
    "alarm": np.float32,
    "alarm_1": np.float32,
    "alarm_2": np.float32,
}
"""`last`: when the caller was counted, Unix seconds. `ours`, `theirs`: badness on production and on
the candidate since the step began, as a certificate counts it: without production's bursts.
`alarm`: on the caller's arm, as an alarm counts it: all of production's, and the candidate's
without its bursts. One cut for both would make a shared outage look like the candidate's. `_1` and
`_2` are the values at the last look and at the one before."""
_SUMS = ("ours", "theirs", "alarm")
_COUNTS = ("arm", *(f"{name}{when}" for name in _SUMS for when in ("", "_1", "_2")))
_MASK = (1 << 64) - 1
_ONE, _TWO = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def pick(unit: int) -> float:
    """Return a number in [0, 1) from a caller's hash, independent of its bucket (splitmix64).

    Every selection of callers uses it, so none depends on the arm.
    """
    z = ((unit ^ (unit >> 30)) * _ONE) & _MASK
    z = ((z ^ (z >> 27)) * _TWO) & _MASK
    return float((z ^ (z >> 31)) >> 11) / float(1 << 53)


def picks(units: Iterable[int]) -> NDArray[np.uint64]:
    """Return the numbers of many callers, scaled to 64 bits."""
    z = np.fromiter(units, dtype=np.int64).astype(np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_ONE)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_TWO)
    return np.asarray(z ^ (z >> np.uint64(31)))


class Units:
    """Table of units. It is bounded; `dropped` counts what the bound drops."""

    def __init__(self, limit: int = UNITS) -> None:
        self._limit = limit
        self._place: dict[tuple[int, int], int] = {}
        self._size = 0
        self._columns = {name: np.zeros(64, dtype) for name, dtype in _FIELDS.items()}
        self.sigma = 1.0
        """Limit of `pick` below which callers are counted."""
        self.dropped = 0

    def __len__(self) -> int:
        return self._size

    def column(self, name: str) -> NDArray[np.generic]:
        """Return one column of every caller."""
        return self._columns[name][: self._size]

    def ignored(self, unit: int) -> bool:
        """Return whether the bound dropped this caller."""
        return self.sigma < 1 and pick(unit) >= self.sigma

    def count(
        self,
        row: int,
        unit: int,
        arm: int,
        at: float,
        ours: float,
        theirs: float,
        alarm: float = 0.0,
    ) -> float:
        """Count a bad event; return the caller's previous time in this row (-inf: none)."""
        place = self.add(row, unit, arm, ours, theirs, alarm)
        if place < 0:
            return -inf
        last = self._columns["last"]
        before = float(last[place])
        last[place] = at
        return before

    def add(
        self, row: int, unit: int, arm: int, ours: float, theirs: float, alarm: float = 0.0
    ) -> int:
        """Add to a caller's badness and return its place; -1: the bound dropped it."""
        place = self._place.get((row, unit), -1)
        if place < 0:
            if self._size >= self._limit:
                self._thin()
                if self.ignored(unit):
                    self.dropped += 1
                    return -1
            place = self._place[row, unit] = self._size
            self._size += 1
            if place == len(self._columns["unit"]):
                self._columns = {
                    name: np.concatenate([old, np.zeros_like(old)])
                    for name, old in self._columns.items()
                }
            columns = self._columns
            columns["unit"][place], columns["row"][place], columns["arm"][place] = unit, row, arm
            columns["last"][place] = -inf
            for name in _COUNTS[1:]:
                columns[name][place] = 0
        self._columns["ours"][place] += ours
        self._columns["theirs"][place] += theirs
        self._columns["alarm"][place] += alarm
        return place

    def remove(self, rows: Iterable[int]) -> None:
        """Remove the callers of some rows."""
        kept = np.flatnonzero(~np.isin(self.column("row"), list(rows)))
        if len(kept) < self._size:
            self._fill({name: self.column(name)[kept].copy() for name in _FIELDS})

    def of_row(self, row: int) -> dict[str, Floats]:
        """Return the counts of one row's callers, as columns of float64, with their arms."""
        return self._taken(np.flatnonzero(self.column("row") == row))

    def by_row(self) -> Iterator[tuple[int, dict[str, Floats]]]:
        """Yield each row that has callers, with their counts."""
        rows = self.column("row")
        if not self._size:
            return
        order = np.argsort(rows, kind="stable")
        found, begins = np.unique(rows[order], return_index=True)
        for row, mine in zip(found.tolist(), np.split(order, begins[1:]), strict=True):
            yield row, self._taken(mine)

    def _taken(self, places: NDArray[np.intp]) -> dict[str, Floats]:
        return {name: self.column(name)[places].astype(np.float64) for name in _COUNTS}

    def looked(self) -> None:
        """Store the counts of this look."""
        for name in _SUMS:
            self._columns[f"{name}_2"] = self._columns[f"{name}_1"]
            self._columns[f"{name}_1"] = self._columns[name].copy()

    def _thin(self) -> None:
        while self._size > self._limit // 2 and self.sigma > 1e-6:
            self.sigma /= 2
            places = picks(self.column("unit").tolist()) >> np.uint64(11)
            kept = np.flatnonzero(places < np.uint64(int(self.sigma * (1 << 53))))
            self.dropped += self._size - len(kept)
            self._fill({name: self.column(name)[kept].copy() for name in _FIELDS})

    def _fill(self, columns: dict[str, NDArray[np.generic]]) -> None:
        self._columns = columns
        self._size = len(columns["unit"])
        rows, units = columns["row"].tolist(), columns["unit"].tolist()
        self._place = {key: at for at, key in enumerate(zip(rows, units, strict=True))}
        if not self._size:
            self._columns = {name: np.zeros(64, dtype) for name, dtype in _FIELDS.items()}

    def save(self) -> dict[str, bytes]:
        """Return the columns as bytes."""
        return {name: self.column(name).tobytes() for name in _FIELDS}

    def load(self, kept: dict[str, bytes], sigma: float, dropped: int) -> None:
        """Restore saved columns."""
        self._fill(
            {name: np.frombuffer(kept[name], dtype).copy() for name, dtype in _FIELDS.items()}
        )
        self.sigma, self.dropped = sigma, dropped

"""Rows of a comparison: one for each (metric, segment), with its part of alpha."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kedge.core.evidence.rules import JudgeRules, Key
from kedge.core.evidence.stats import Floats

SEGMENTS = 2_500
"""Most segments of a metric that are judged; the others count in the whole only."""
REFUSED = 10_000
"""Names beyond the bound that are stored, so that they are not looked up each second."""
SEGMENT_STAKE = 0.2
"""Share of each metric's weight that its segments have together. The i-th to appear gets 1/(i (i +
1)) of it, so that any number of segments stays within it."""


class Columns(NamedTuple):
    """Every row's metric by number, whether it is the whole, and the logarithm of its part."""

    metric: NDArray[np.intp]
    whole: NDArray[np.bool_]
    log_part: Floats


class Rows:
    """The rows, in the order in which they appeared. A row is never removed."""

    def __init__(self, rules: JudgeRules) -> None:
        self._rules = rules
        self.keys: list[Key] = []
        self.place: dict[str, dict[str, int]] = {name: {} for name in rules.rails}
        """By metric and segment; -1: beyond the bound."""
        self._parts: list[float] = []
        self._segments: dict[str, int] = {}
        self.left_out = 0
        """Segments beyond the bound."""
        self._columns = Columns(np.zeros(0, np.intp), np.zeros(0, np.bool_), np.zeros(0))

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, metric: str, segment: str) -> int:
        """Return the row of a key; -1: none."""
        return self.place.get(metric, {}).get(segment, -1)

    def make(self, metric: str, segment: str) -> int:
        """Return the row of a key, and add it where it is new; -1: beyond the bound."""
        rail = self._rules.rails.get(metric)
        if rail is None:
            return -1
        found = self.place[metric].get(segment)
        if found is not None:
            return found
        part = 1 - SEGMENT_STAKE
        if segment:
            ordinal = self._segments.get(metric, 0) + 1
            if ordinal > SEGMENTS:
                self.left_out += 1
                if len(self.place[metric]) - SEGMENTS < REFUSED:
                    self.place[metric][segment] = -1
                return -1
            self._segments[metric] = ordinal
            part = SEGMENT_STAKE / (ordinal * (ordinal + 1))
        row = self.place[metric][segment] = len(self.keys)
        self.keys.append((metric, segment))
        self._parts.append(log(part * rail.weight) if rail.weight else -inf)
        return row

    def columns(self) -> Columns:
        """Return the properties of every row, as columns."""
        if len(self._columns.whole) != len(self.keys):
            number = {name: n for n, name in enumerate(self._rules.rails)}
            self._columns = Columns(
                np.array([number[metric] for metric, _ in self.keys], dtype=np.intp),
                np.array([not segment for _, segment in self.keys]),
                np.array(self._parts),
            )
        return self._columns

    def load(self, keys: Iterable[Key], left_out: int) -> None:
        """Add saved rows again, in the same order."""
        for metric, segment in keys:
            self.make(metric, segment)
        self.left_out = left_out

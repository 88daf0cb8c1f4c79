"""Dependence of outcomes in time: how much less evidence they give than their number.

Batch means (Flegal and Jones, Annals of Statistics 2010): where outcomes are independent, the
variance of the sum of b of them is b times that of one. Where it is more, b of them give less
evidence, which is divided by that factor.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Outcomes in a batch: dependence can last for hours, which have so many outcomes."""
BATCHES, SURE = 20, 50
"""Least batches of one size for a useful variance: for an alarm, and for a certificate."""
DOUBT = 1.0
"""Standard errors of a variance that are subtracted for an alarm. By chance alone the largest of
nine ratios is above 1, and independent outcomes would lose a third of their evidence. For a
certificate they are added, since a pass can wait. Without them, pairs with dependent errors (lag-1
correlation 0.7) at exactly the margin are certified in 5 % of runs."""


class Dependence:
    """Batches of one step's outcomes, in the order of the predictions."""

    def __init__(self, kept: bytes = b"") -> None:
        self._sums = [[0.0] * 4 for _ in SIZES]
        """By size: outcomes in the open batch, their sum, closed batches, sum of their squares."""
        self._total = 0.0
        if kept:
            self._sums = np.frombuffer(kept[:-8]).reshape(len(SIZES), 4).tolist()
            self._total = float(np.frombuffer(kept[-8:])[0])

    def add(self, value: float) -> None:
        """Add one outcome: its evidence on the candidate, 0 where it has none."""
        value = float(value)
        self._total += value
        for size, sums in zip(SIZES, self._sums, strict=True):  # arrays of nine are slower
            sums[0] += 1
            sums[1] += value
            if sums[0] >= size:
                sums[2] += 1
                sums[3] += sums[1] * sums[1]
                sums[0] = sums[1] = 0.0

    def times(self, *, careful: bool = False) -> float:
        """Return the divisor of evidence, at least 1; `careful`: for a certificate."""
        _, _, total, squares = self._sums[0]
        least, doubt = (SURE, -DOUBT) if careful else (BATCHES, DOUBT)
        if total < least:
            return 1.0
        mean = self._total / total
        single = squares / total - mean * mean
        if single <= 0:
            return 1.0
        most = 1.0
        for size, (_, _, count, squares) in zip(SIZES[1:], self._sums[1:], strict=True):
            if count < least:
                break
            ratio = (squares / count - (mean * size) ** 2) / (size * single)
            most = max(most, ratio * (1 - doubt * sqrt(2 / count)))
        return most

    def save(self) -> bytes:
        """Return the batches as bytes."""
        return np.array(self._sums).tobytes() + np.array([self._total]).tobytes()

"""Contrast of two sets of answers: losses, their differences, and the part of model and features.

Shapes: n requests. A request whose truth or answer is not known is NaN, and is ignored. The
requests of one unit are not independent, so errors are taken from the sums of units.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kedge.core.diagnosis.findings import Estimate
from kedge.core.evidence.quality import LEAST_PROBABILITY, LOG_LOSS_CAP, loss_of, scale
from kedge.core.values import Output

Floats = NDArray[np.float64]
Units = NDArray[Any] | None
Cell = tuple[str, str]
"""The model that answered, and its features: each "new" or "old"."""
Swap = tuple[Floats | None, Floats | None]
"""Answers with one feature exchanged: of the old model with this feature new, and of the new
model with this feature old."""

LEAST = 50
"""Labelled units that a conclusion needs: a t interval of a skewed loss is wrong with fewer."""

Z = 3.5
"""Standard errors from which an effect counts: once in 4,000 healthy cases, one-sided. The judge
has used its error already, and a diagnosis asks five questions."""
FLOOR = 0.05
"""Part of the reference's loss below which a change is no incident."""
PROOF_LEVEL = 0.99
"""Level of the intervals that prove noise: their upper end must be below the tolerated rise."""
WORLD_MARGIN = 0.25
"""Rise by the world that noise has to exclude, as a part of the reference's loss. It is five times
the floor, since two windows hold different requests. With 2,000 labels now and 4,000 before the
standard error is about 4 % of the loss (an outcome's own chance, which no adjustment removes). So
2.6 of them and room for an estimate that is 3.5 off make 24 %. The release's contrast is paired,
has a tenth of that error, and is held to the floor."""
HINT = 3.0
"""Standard errors from which a rise by the world is not noise, unless surely below the floor."""
LOST = 0.05
"""Limit of the torn or dropped part of the log: with more, the rest may be a biased selection."""


# ---------------------------------------------------------------- losses


def losses(metric: str, output: Output, scores: Floats, truth: Floats) -> Floats:
    """Return the losses of many requests in the metric's unit, (n,); for `rmse` squared.

    Args:
        metric: a name in `quality.LOSSES`.
        output: the output that defines how an answer is read.
        scores: answers; NaN: not asked, infinity: asked, but no answer.
        truth: outcomes; NaN: not known. Number words in the same way in both.

    Raises:
        Refused: `metric_unfit`.
    """
    loss_of(metric, output)
    known = ~np.isnan(scores) & ~np.isnan(truth)
    if output.kind == "binary":
        known &= (truth == 0) | (truth == 1)
    if metric == "mape":
        known &= truth != 0
    failed = np.isinf(scores)
    s = np.where(known & ~failed, scores, 0.0)
    y = np.where(known, truth, 0.0)
    if metric == "error_rate":
        if output.kind == "binary":
            found = ((s >= output.threshold) != (y > 0.5)).astype(np.float64)
        else:
            found = (~(np.abs(s - y) <= output.tolerance)).astype(np.float64)
    elif metric == "log_loss":
        given = np.where(y > 0.5, s, 1 - s)
        found = -np.log(np.clip(given, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)) / LOG_LOSS_CAP
    elif metric == "brier":
        found = np.square(np.clip(s, 0, 1) - y)
    elif metric == "mape":
        found = np.minimum(np.abs(s - y) / np.abs(np.where(known, y, 1.0)), 1.0)
    else:
        found = np.minimum(np.abs(s - y) / scale(metric, output), 1.0)
    shown = scale(metric, output)
    if metric == "rmse":
        found, shown = np.square(found), shown**2
    return np.where(known, np.where(failed, 1.0, found), np.nan) * shown


# ---------------------------------------------------------------- means


def t_quantile(p: float, df: float) -> float:
    """Return the quantile of Student's t: Cornish and Fisher's expansion about the normal one.

    It is exact to 0.002 from 9 degrees of freedom (Abramowitz and Stegun, 26.7.5).
    """
    z = NormalDist().inv_cdf(p)
    if df == inf:
        return z
    one = (z**3 + z) / 4
    two = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    three = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    four = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + one / df + two / df**2 + three / df**3 + four / df**4


class Mean(NamedTuple):
    """A mean, its standard error, its degrees of freedom, and the requests and units in it."""

    mean: float
    se: float
    df: float
    n: int
    units: int

    @property
    def z(self) -> float:
        """Return the mean in standard errors; 0 without a spread."""
        return self.mean / self.se if self.se > 0 else 0.0

    @property
    def enough(self) -> bool:
        """Return whether there are enough units for a conclusion."""
        return self.units >= LEAST

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the two-sided interval by Student's t."""
        if self.df < 1:
            return -inf, inf
        half = t_quantile(0.5 + level / 2, max(self.df, 9)) * self.se
        return self.mean - half, self.mean + half

    def wanted(self, se: float) -> int:
        """Return about how many requests would reduce the standard error to `se`."""
        return int(min(round(self.n * max((self.se / se) ** 2, 1.5), -2), 10**9))

    def estimate(self) -> Estimate:
        """Return the mean with its 95 % interval, for display."""
        low, high = self.interval()
        return Estimate(self.mean, low, high, self.n)


def mean_of(values: Floats, units: Units = None, *, counts: bool = False) -> Mean:
    """Return the mean of the known values, with the error of their units' sums.

    Args:
        values: (n,); NaN is ignored.
        units: (n,), the unit of each request; None or "": the request itself. Without it, each
            request is its own unit.
        counts: the values are differences of errors, so -1, 0 or 1. Then half an error is added
            to each side and one request to those without. So "no difference was seen" is not
            taken for "there is none" (Agresti and Min, Statistics in Medicine 2005).
    """
    known = ~np.isnan(values)
    x = values[known]
    n = len(x)
    if n < 2:
        return Mean(float(x.mean()) if n else 0.0, inf, 0.0, n, n)
    whose = None if units is None else _numbered(units[known])
    more, extra = (2.0, 1.0) if counts else (0.0, 0.0)
    mean = float(x.sum() / (n + more))
    if whose is None:
        groups, squares = n, float(np.square(x - mean).sum())
    else:
        sums = np.bincount(whose, x - mean)
        groups, squares = len(sums), float(np.square(sums).sum())
    if groups < 2:
        return Mean(mean, inf, 0.0, n, groups)
    squares += extra + more * mean * mean
    groups += int(more)
    se = sqrt(squares * groups / (groups - 1)) / (n + more)
    return Mean(mean, se, groups - 1.0, n, groups - int(more))


def _numbered(units: NDArray[Any]) -> NDArray[np.int64] | None:
    """Return units as 0, 1, 2 ...; None where each is its own."""
    if units.dtype.kind != "O":
        _, whose = np.unique(units, return_inverse=True)
        return None if len(whose) == (whose.max(initial=-1) + 1) else whose.astype(np.int64)
    seen: dict[Any, int] = {}
    found = np.empty(len(units), dtype=np.int64)
    alone = len(units)
    for n, unit in enumerate(units.tolist()):
        if unit is None or unit == "":
            alone += 1
            found[n] = seen.setdefault((alone,), len(seen))
        else:
            found[n] = seen.setdefault(unit, len(seen))
    return None if len(seen) == len(units) else found


def difference(now: Mean, before: Mean) -> Mean:
    """Return the difference of two means of different requests (Welch)."""
    se = sqrt(now.se**2 + before.se**2)
    if not np.isfinite(se):
        return Mean(now.mean - before.mean, inf, 0.0, now.n, min(now.units, before.units))
    parts = [m.se**4 / m.df for m in (now, before) if m.df > 0]
    df = se**4 / sum(parts) if sum(parts) > 0 else inf
    return Mean(now.mean - before.mean, se, df, now.n, min(now.units, before.units))


# ---------------------------------------------------------------- model x features


class Shares(NamedTuple):
    """Parts of a release's loss that model and features add, per request (n,); they add up.

    `alone_*` is the change of this part only, with the other one old; NaN where it was not
    replayed. `both_paths`: all four cells were known, so these are Shapley values.
    """

    model: Floats
    features: Floats
    alone_model: Floats
    alone_features: Floats
    both_paths: bool


def shares(cells: Mapping[Cell, Floats]) -> Shares | None:
    """Divide L(new, new) - L(old, old) between model and features.

    With all four cells each part is the mean of its two ways of being added (the Shapley value of
    two players). With three it is the one way that was replayed. With two it returns None: the loss
    cannot be divided.
    """
    top, bottom = cells.get(("new", "new")), cells.get(("old", "old"))
    if top is None or bottom is None:
        return None
    nothing = np.full(len(top), np.nan)
    mixed = cells.get(("new", "old"))
    other = cells.get(("old", "new"))
    alone_model = mixed - bottom if mixed is not None else nothing
    alone_features = other - bottom if other is not None else nothing
    if mixed is not None and other is not None:
        model = (alone_model + top - other) / 2
        features = (alone_features + top - mixed) / 2
        return Shares(model, features, alone_model, alone_features, both_paths=True)
    if mixed is not None:
        return Shares(alone_model, top - mixed, alone_model, alone_features, both_paths=False)
    if other is not None:
        return Shares(top - other, alone_features, alone_model, alone_features, both_paths=False)
    return None


def swapped(
    cells: Mapping[Cell, Floats], exchanged: Mapping[str, Swap], units: Units, *, counts: bool
) -> list[tuple[str, Mean]]:
    """Return the loss that each feature's new version adds, the most first.

    That is the mean of two changes: the old release with this feature alone new, and the new
    release against itself with this feature alone old. Where only one was replayed, it is that one.

    Args:
        cells: losses of the two releases.
        exchanged: losses with one feature exchanged, by its name.
        units: the unit of each request.
        counts: as in `mean_of`.
    """
    top, bottom = cells.get(("new", "new")), cells.get(("old", "old"))
    found = []
    for name, (into_old, out_of_new) in exchanged.items():
        parts = []
        if into_old is not None and bottom is not None:
            parts.append(into_old - bottom)
        if out_of_new is not None and top is not None:
            parts.append(top - out_of_new)
        if parts:
            both = parts[0] if len(parts) == 1 else (parts[0] + parts[1]) / 2
            found.append((name, mean_of(both, units, counts=counts)))
    return sorted(found, key=lambda each: (-each[1].mean, each[0]))

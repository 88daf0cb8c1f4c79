"""Association of columns with each other and with the outcome, in both windows.

A stale or recoded column keeps plausible values, but loses its association with the other columns
of its request, and with the request's outcome. A changed world (`concept`) leaves the columns'
associations among themselves unchanged. Every relation here is fitted on the reference by one ridge
regression. The result of a regression without a column follows from blocks of the inverse Gram
matrix, so that twenty columns cost one inversion a fold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from math import inf, isfinite, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kedge.core.diagnosis.stretches import Column, Floats, Stretches

Ints = NDArray[np.intp]
Units = NDArray[Any] | None

FOLDS = 3
KNOTS = 6
"""Knots of a number's piecewise linear curve, at quantiles of the reference: a hump and two
tails."""
CODES = 40
"""Values up to which a column is a list of codes: hours, weekdays, states of a country."""
RARE = 0.005
"""Share of rows below which codes are merged into one code: a rarer one says little by itself."""
RIDGE = 3.0
"""Penalty of the squared weights: as if three rows opposed each."""
MOST_COLUMNS = 60
"""Most columns that are compared, the first in the given order: 60 make some 400 weights, and their
inversion takes a fifth of a second."""
MOST_INPUTS = 1_000
"""Most inputs of those columns: a column of codes has up to `CODES` of them. 80 MB a window."""
ROWS_EACH = 8
"""Labelled rows for each dimension of a test: with fewer its statistic is not chi-square."""


class Coding:
    """Coding of one column of the reference as inputs of a regression."""

    def __init__(self, column: Column) -> None:
        """Take the codes, or the knots, from the reference, (n,)."""
        self.words = column.dtype.kind == "O"
        known = column[column != None] if self.words else column[np.isfinite(column)]  # noqa: E711
        values, counts = np.unique(known.astype(str) if self.words else known, return_counts=True)
        self.codes: list[Any] = []
        self.knots: Floats = np.empty(0)
        self.few = self.words or len(values) <= CODES
        if self.few:
            often = counts >= max(RARE * len(column), 5)
            order = np.argsort(-counts[often], kind="stable")[:CODES]
            self.codes = values[often][order].tolist()
        else:
            self.knots = np.unique(np.quantile(known, np.linspace(0.02, 0.98, KNOTS)))
        self.mean = self._raw(column).mean(axis=0)

    def place(self, column: Column) -> Ints:
        """Return the number of each row's code, (n,); `len(codes)` for any other value."""
        count = len(self.codes)
        if self.words:
            at = {code: n for n, code in enumerate(self.codes)}
            return np.array([at.get(value, count) for value in column.tolist()], dtype=np.intp)
        found = np.full(len(column), count, dtype=np.intp)
        for n, value in enumerate(self.codes):
            found[column == value] = n
        return found

    def _raw(self, column: Column) -> Floats:
        if self.few:
            one: Floats = (self.place(column)[:, None] == np.arange(len(self.codes))).astype(
                np.float64
            )
            return one
        if len(self.knots) < 2:
            return np.empty((len(column), 0))
        filled = np.where(np.isfinite(column), column, np.median(self.knots))
        eye = np.eye(len(self.knots))
        return np.stack([np.interp(filled, self.knots, row) for row in eye[1:]], axis=1)

    def inputs(self, column: Column) -> Floats:
        """Return a column as inputs, (n, k), less the reference's mean."""
        found: Floats = self._raw(column) - self.mean
        return found


class RelationLeft(NamedTuple):
    """Remaining relation of a column to the others."""

    strength: float
    """Part of the column's variance that the others explained in the reference, 0 to 1."""
    slope: float
    """Today's slope on the others' prediction, relative to the reference's: 1 unchanged, 0 none."""
    se: float
    least: float
    """The least relative slope in any stretch of the reference as long as today."""


class Relations:
    """The columns of two windows, coded alike, as inputs of regressions."""

    def __init__(
        self, before: Mapping[str, Column], now: Mapping[str, Column], names: Sequence[str]
    ) -> None:
        """Code the columns.

        Args:
            before: columns of the reference, (n,) each, as `defects.plain` returns them.
            now: today's, (m,) each.
            names: the columns to code, the most important first.
        """
        self.names: list[str] = []
        self.codings: dict[str, Coding] = {}
        parts: list[tuple[Floats, Floats]] = []
        width = 0
        for name in names[:MOST_COLUMNS]:
            coding = Coding(before[name])
            width += len(coding.mean)
            if width > MOST_INPUTS:
                break
            self.names.append(name)
            self.codings[name] = coding
            parts.append((coding.inputs(before[name]), coding.inputs(now[name])))
        self.left_out = len(names) - len(self.names)
        """Columns beyond the two bounds, which are not examined."""
        ends = np.cumsum([0, *(part.shape[1] for part, _ in parts)])
        self.at = {name: np.arange(ends[k], ends[k + 1]) for k, name in enumerate(self.names)}
        self.x = np.concatenate([one for one, _ in parts], axis=1)
        self.x_now = np.concatenate([two for _, two in parts], axis=1)

    def rows(self, before: Ints, now: Ints) -> Relations:
        """Return the relations of some rows of either window."""
        found = copy(self)
        found.x = self.x if len(before) == len(self.x) else self.x[before]
        found.x_now = self.x_now if len(now) == len(self.x_now) else self.x_now[now]
        return found

    def split(self, names: Iterable[str]) -> tuple[Ints, Ints]:
        """Return the inputs of these columns, and those of the others, in their order."""
        own = np.sort(np.concatenate([np.empty(0, np.intp), *(self.at[name] for name in names)]))
        return own, np.setdiff1d(np.arange(self.x.shape[1]), own)


# ---------------------------------------------------------------- among the columns


class Structure:
    """Structure of the columns: their relations to each other in both windows."""

    def __init__(
        self, known: Relations, times: tuple[Floats, Floats] | None, without: Iterable[str] = ()
    ) -> None:
        """Add up the reference's Gram matrices, one a fold.

        Args:
            known: the columns.
            times: of the rows, Unix seconds; None: the rows are independent.
            without: columns that are left out of `whole`.
        """
        self.known = known
        rows = len(known.x)
        self._stretches = Stretches(times, (rows, len(known.x_now)))
        self._fold = np.arange(rows) % FOLDS
        grams = [known.x[self._fold == k].T @ known.x[self._fold == k] for k in range(FOLDS)]
        self._grams = [sum(grams) - gram for gram in grams]
        self.predicted: dict[str, tuple[Floats, Floats]] = {}
        """Each column's inputs as the others predict them, in both windows; (n, k) and (m, k)."""
        self.whole = self.held(without, keep=True)

    def held(self, without: Iterable[str] = (), *, keep: bool = False) -> dict[str, RelationLeft]:
        """Return how much of each column's relation to the others is left.

        Args:
            without: columns to leave out.
            keep: store the others' prediction of each column in `predicted`.
        """
        known, gone = self.known, set(without)
        _, kept = known.split(gone)
        place = np.full(known.x.shape[1], -1)
        place[kept] = np.arange(len(kept))
        own = {name: place[at] for name, at in known.at.items() if name not in gone and len(at)}
        if len(own) < 2:
            return {}
        x, now = known.x[:, kept], known.x_now[:, kept]
        before, after = np.empty_like(x), np.zeros_like(now)
        for k, gram in enumerate(self._grams):
            weights = _each_by_the_others(gram[np.ix_(kept, kept)], list(own.values()))
            before[self._fold == k] = x[self._fold == k] @ weights
            after += now @ weights / FOLDS
        if keep:
            self.predicted = {name: (before[:, at], after[:, at]) for name, at in own.items()}
        return {
            name: self._held(x[:, at], before[:, at], now[:, at], after[:, at])
            for name, at in own.items()
        }

    def _held(self, x: Floats, before: Floats, now: Floats, after: Floats) -> RelationLeft:
        top, bottom = _products(x, before)
        usual, error = _ratio(top, bottom)
        whole = float(np.square(x).sum())
        if usual <= 0 or whole <= 0:
            return RelationLeft(0.0, 1.0, inf, 1.0)
        slope, error_now = _ratio(*_products(now, after))
        rows = np.arange(len(top))
        parts = [_ratio(top[some], bottom[some])[0] / usual for some in self._stretches.of(rows)]
        apart = float(np.std(parts, ddof=1)) if len(parts) > 2 else 0.0
        return RelationLeft(
            max(1 - float(np.square(x - before).sum()) / whole, 0.0),
            slope / usual,
            sqrt((error_now / usual) ** 2 + max(error / usual, apart) ** 2),
            min(parts),
        )


def _each_by_the_others(gram: Floats, own: Sequence[Ints]) -> Floats:
    """Return weights, (k, k), that predict each column's inputs from the other columns'.

    The ridge regression of a block on the rest is -M[rest, block] M[block, block]^-1, where M is
    the inverse of the whole Gram matrix.
    """
    inverse = np.linalg.inv(gram + RIDGE * np.eye(len(gram)))
    weights = np.zeros_like(inverse)
    for at in own:
        weights[:, at] = -np.linalg.solve(inverse[np.ix_(at, at)], inverse[at]).T
        weights[np.ix_(at, at)] = 0.0
    return weights


def _products(actual: Floats, predicted: Floats) -> tuple[Floats, Floats]:
    """Return by row actual times predicted, and predicted squared, both centred in their window."""
    a, p = actual - actual.mean(axis=0), predicted - predicted.mean(axis=0)
    return (a * p).sum(axis=1), np.square(p).sum(axis=1)


def _ratio(top: Floats, bottom: Floats) -> tuple[float, float]:
    """Return a slope, and its standard error from the rows' residuals."""
    whole = float(bottom.sum())
    if whole <= 0:
        return 0.0, inf
    slope = float(top.sum()) / whole
    return slope, sqrt(float(np.square(top - slope * bottom).sum())) / whole


# ---------------------------------------------------------------- with the outcomes


class Effect(NamedTuple):
    """Remaining effect of a column on the outcome."""

    slope: float
    """Relative to the reference's: 1 unchanged, 0 nothing, below 0 the opposite."""
    se: float
    size: float
    """The effect in the reference, in its standard errors: how well it is known."""


class OutcomeAssociation:
    """Association of the columns with the outcomes, in both windows; labelled rows only."""

    def __init__(
        self, known: Relations, truth: tuple[Floats, Floats], units: tuple[Units, Units]
    ) -> None:
        """Fit the reference.

        Args:
            known: the columns of the labelled rows.
            truth: outcomes of the same rows, as numbers, (n, q) and (m, q).
            units: the units of the rows.
        """
        self.known, self.truth, self.units = known, truth, units
        self._mean = truth[0].mean(axis=0)
        k = known.x.shape[1]
        self._inverse = np.linalg.inv(known.x.T @ known.x + RIDGE * np.eye(k))
        self._weights = self._inverse @ (known.x.T @ (truth[0] - self._mean))

    def without(self, names: Iterable[str]) -> tuple[Ints, Floats]:
        """Return the inputs that remain without some columns, and their new weights."""
        own, rest = self.known.split(names)
        weights = self._weights[rest]
        if len(own):
            block = np.linalg.solve(self._inverse[np.ix_(own, own)], self._weights[own])
            weights = weights - self._inverse[np.ix_(rest, own)] @ block
        return rest, weights

    def _said(self, name: str) -> tuple[Floats, Floats]:
        """Return one column's part of the expected outcome, in both windows, (n, q) and (m, q)."""
        at = self.known.at[name]
        return self.known.x[:, at] @ self._weights[at], self.known.x_now[:, at] @ self._weights[at]

    def effect(self, name: str) -> Effect:
        """Return the remaining effect of a column on the outcome."""
        rest, weights = self.without([name])
        said = self._said(name)
        found = []
        for x, own, truth in (
            (self.known.x, said[0], self.truth[0]),
            (self.known.x_now, said[1], self.truth[1]),
        ):
            found.append(_partial(truth, x[:, rest] @ weights, own))
        (usual, error), (now, error_now) = found
        if usual <= 0 or not isfinite(error):
            return Effect(1.0, inf, 0.0)
        slope = now / usual
        return Effect(slope, sqrt(error_now**2 + (slope * error) ** 2) / usual, usual / error)

    def left(self, names: Iterable[str]) -> tuple[Floats, Floats]:
        """Return the outcomes less the prediction of all columns but these."""
        rest, weights = self.without(names)
        known = self.known
        return (
            self.truth[0] - self._mean - known.x[:, rest] @ weights,
            self.truth[1] - self._mean - known.x_now[:, rest] @ weights,
        )

    def changed(self, without: Iterable[str] = (), most: float = inf) -> float:
        """Return how surely the association of outcomes and columns changed, as a normal quantile.

        If some columns are false in any way, and nothing else happened, the association of the
        outcomes with the *other* columns is unchanged. Then this is about 0 without them. It is
        large where anything else changed as well.

        Args:
            without: columns to leave out.
            most: a bound beyond which the size does not matter.
        """
        gone = set(without)
        _, rest = self.known.split(gone)
        left = self.left(gone)
        found = 0.0
        rows = min(len(side) for side in left)
        for fine in (False, True):
            width = len(rest) if fine else sum(name not in gone for name in self.known.at)
            if left[0].shape[1] * (1 + width) * ROWS_EACH >= rows:
                continue
            pair = [
                self._moments(side, left[side], gone, rest if fine else None) for side in (0, 1)
            ]
            found = max(found, _quantile(*_distance(pair, self.units)))
            if found > most:
                break
        return found

    def _moments(self, side: int, left: Floats, gone: set[str], fine: Ints | None) -> Floats:
        """Return by row the rest times 1 and the inputs, or times each column's prediction."""
        x = self.known.x if side == 0 else self.known.x_now
        one = np.ones((len(x), 1))
        parts = []
        for output in range(left.shape[1]):
            if fine is not None:
                by = [x[:, fine]]
            else:
                by = [
                    x[:, at] @ self._weights[at, output, None]
                    for name, at in self.known.at.items()
                    if name not in gone
                ]
            parts.append(left[:, output, None] * np.concatenate([one, *by], axis=1))
        return np.concatenate(parts, axis=1)


def _partial(truth: Floats, rest: Floats, own: Floats) -> tuple[float, float]:
    """Return the slope of outcomes on `own` beside `rest`, over all outputs, and its error."""
    top, bottom = 0.0, 0.0
    pulls = np.zeros(len(truth))
    kept = []
    for k in range(truth.shape[1]):
        other = np.stack([np.ones(len(truth)), rest[:, k]], axis=1)
        project = np.linalg.lstsq(other, np.stack([truth[:, k], own[:, k]], axis=1), rcond=None)[0]
        y, s = (np.stack([truth[:, k], own[:, k]], axis=1) - other @ project).T
        top, bottom = top + float(y @ s), bottom + float(s @ s)
        kept.append((y, s))
    if bottom <= 1e-12 * len(truth):
        return 0.0, inf
    slope = top / bottom
    for y, s in kept:
        pulls += (y - slope * s) * s
    return slope, sqrt(float(pulls @ pulls)) / bottom


def _distance(pair: Sequence[Floats], units: tuple[Units, Units]) -> tuple[float, int]:
    """Return Hotelling's distance of the means of two windows' moments, and its dimensions."""
    gap = pair[1].mean(axis=0) - pair[0].mean(axis=0)
    spread = np.zeros((len(gap), len(gap)))
    for moments, whose in zip(pair, units, strict=True):
        centred = moments - moments.mean(axis=0)
        summed = centred if whose is None else _by_unit(centred, whose)
        spread += summed.T @ summed / len(moments) ** 2
    values, vectors = np.linalg.eigh(spread)
    sure = values > 1e-9 * values.max() if len(values) else values > 0
    turned = vectors[:, sure].T @ gap
    return float((np.square(turned) / values[sure]).sum()), int(sure.sum())


def _by_unit(rows: Floats, units: NDArray[Any]) -> Floats:
    """Return the sums of each unit's rows; a row without a unit is its own."""
    places: dict[Any, int] = {}
    at = np.array(
        [
            places.setdefault(unit if unit not in (None, "") else ("", n), len(places))
            for n, unit in enumerate(units.tolist())
        ],
        dtype=np.intp,
    )
    found = np.zeros((len(places), rows.shape[1]))
    np.add.at(found, at, rows)
    return found


def _quantile(distance: float, dimensions: int) -> float:
    """Return a chi-square value as a normal quantile (Wilson and Hilferty, PNAS 1931)."""
    if not dimensions:
        return 0.0
    part = 2 / (9 * dimensions)
    return float(((distance / dimensions) ** (1 / 3) - (1 - part)) / sqrt(part))

"""Shift of a loss, divided into harder inputs and other outcomes of the same inputs.

DISDE (Cai, Namkoong and Yadlowsky, Operations Research 2025, section 2). A rise of the loss from
a reference P to the present Q is divided at S, the inputs that both have. From P to S there are
more inputs that were always hard. At S, from P to Q, the same inputs have other outcomes. From S to
Q there are inputs that the reference hardly has. S comes from a classifier that separates present
and reference by the inputs. Each input is weighted by its likeness to the other side.

The model's own score and what it expects to lose are among the classifier's columns. "Harder" is a
movement along them, which a classifier on the columns alone underfits; it would count the rest as
other outcomes. For the same reason the loss of such inputs in the reference is subtracted first. So
only the surprise is weighted (a doubly robust mean: Robins, Rotnitzky and Zhao, JASA 1994).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import exp, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]

FOLDS = 3
KNOTS = 7
"""Knots of a column's piecewise linear curve, at quantiles: enough for a hump and two tails."""
PAIRED = 10
"""Columns of numbers whose products are inputs too: a boundary is seldom parallel to an axis."""
WORDS = 20
"""Words of a column that are distinguished; the rest counts as one more."""
PENALTY = 1.0
"""Penalty of the squared weights, for the sum over all requests: it limits a weight that few rows
support."""
MOST_ROWS = 20_000
"""Most rows of each side; evenly spaced ones where there are more. 2 x 20,000 rows x 150 weights is
50 MB."""
LEAST_OVERLAP = 100.0
"""Effective requests that the two windows must have in common, on either side."""
_STEPS = 12


class Terms(NamedTuple):
    """The two parts of a rise (their sum), their errors, and their overlap."""

    concept: float
    """At S, from P to Q: the same inputs lose more."""
    inputs: float
    """The rest: from P to S, and from S to Q."""
    concept_se: float
    inputs_se: float
    gap_se: float
    """Standard error of `concept` less `inputs`."""
    overlap: float
    """Requests in common with the other side, on the side with fewer of them.

    Kish's effective number, times the part of S in a window. Two windows without likeness have
    small, equal weights, for which Kish's number alone would be large.
    """

    @property
    def overlaps(self) -> bool:
        """Return whether the two sides have enough requests in common."""
        return self.overlap >= LEAST_OVERLAP


class ShiftWindow(NamedTuple):
    """One window's requests, (n,) each."""

    loss: Floats
    p: Floats
    """The classifier's probability that it is a present request."""
    expected: Floats
    """Expected loss of such inputs, from the reference."""


def terms(before: ShiftWindow, now: ShiftWindow) -> Terms:
    """Return the parts of mean(now.loss) - mean(before.loss).

    Only the difference from the expected loss is weighted. Where the expectation is right, wrong
    weights do no harm, and the reverse. The difference also has less variance.
    """
    w, v = before.p / before.p.sum(), (1 - now.p) / (1 - now.p).sum()
    left, right = before.loss - before.expected, now.loss - now.expected
    concept = float(v @ right) - float(w @ left)
    rise = float(now.loss.mean()) - float(before.loss.mean())
    pull_ref, pull_now = w * (left - w @ left), v * (right - v @ right)
    plain_ref = (before.loss - before.loss.mean()) / len(before.loss)
    plain_now = (now.loss - now.loss.mean()) / len(now.loss)

    def error(of_ref: Floats, of_now: Floats) -> float:
        return sqrt(float(of_ref @ of_ref) + float(of_now @ of_now))

    return Terms(
        concept=concept,
        inputs=rise - concept,
        concept_se=error(pull_ref, pull_now),
        inputs_se=error(pull_ref - plain_ref, plain_now - pull_now),
        gap_se=error(2 * pull_ref - plain_ref, 2 * pull_now - plain_now),
        overlap=min(
            min(2 * before.p.mean(), 1.0) / float(w @ w),
            min(2 * (1 - now.p).mean(), 1.0) / float(v @ v),
        ),
    )


# ---------------------------------------------------------------- the classifier


def spaced(count: int, most: int = MOST_ROWS) -> NDArray[np.int64]:
    """Return the places of the rows to use of `count`: all, or `most` evenly spaced ones."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).astype(np.int64)


def domain(reference: Columns, current: Columns) -> tuple[Floats, Floats]:
    """Return P(present | inputs) of all requests, each from folds that it was not in.

    Args:
        reference: columns of n requests: numbers with NaN for null, or words with None.
        current: the same columns of m requests; others are ignored.

    Returns:
        (n,) and (m,). All 0.5 where no column differs.
    """
    names = [name for name in reference if name in current]
    n = len(next(iter(reference.values()))) if reference else 0
    m = len(next(iter(current.values()))) if current else 0
    t = np.concatenate([np.zeros(n), np.ones(m)])
    x = inputs({k: np.concatenate([reference[k], current[k]]) for k in names}, t)
    fold = np.concatenate([np.arange(n) % FOLDS, np.arange(m) % FOLDS])
    # Both sides count the same, however many requests each has: S is then the middle of the two.
    weight = np.concatenate(
        [np.full(n, (n + m) / (2 * max(n, 1))), np.full(m, (n + m) / (2 * max(m, 1)))]
    )
    p = np.empty(n + m)
    for k in range(FOLDS):
        held = fold == k
        beta = logistic(x[~held], t[~held], weight[~held])
        p[held] = 1 / (1 + np.exp(-np.clip(x[held] @ beta, -30, 30)))
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return p[:n], p[n:]


def inputs(columns: Columns, by: Floats) -> Floats:
    """Return all columns for a regression, (n, k): a constant, curves, and pairs' products.

    Args:
        columns: (n,) each.
        by: the target of the first rows, (m,). The PAIRED columns that explain most of it, alone or
            squared, are multiplied with each other.
    """
    ranks = [ranked(c) for c in columns.values() if c.dtype.kind not in "OUS"]
    ranks = sorted(ranks, key=lambda rank: -_says(rank[: len(by)], by))[:PAIRED]
    pairs = [a * b for n, a in enumerate(ranks) for b in ranks[n + 1 :]]
    parts = [basis(column) for column in columns.values()]
    rows = len(parts[0]) if parts else len(by)
    found = [np.ones((rows, 1)), *parts]
    if pairs:
        found.append(np.stack(pairs, axis=1))
    return np.concatenate(found, axis=1)


def _says(rank: Floats, by: Floats) -> float:
    centred = by - by.mean()
    return max(abs(float(centred @ rank)), abs(float(centred @ np.square(rank))))


def ranked(column: NDArray[Any]) -> Floats:
    """Return the ranks of numbers, from -1 to 1; a null is in the middle."""
    x = column.astype(np.float64)
    seen = np.sort(x[np.isfinite(x)])
    at = np.searchsorted(seen, x) + np.searchsorted(seen, x, side="right")
    return np.where(np.isfinite(x), at / max(len(seen), 1) - 1, 0.0)


def basis(column: NDArray[Any]) -> Floats:
    """Return a column as inputs, (n, k): a piecewise linear curve and a null, or its words."""
    if column.dtype.kind in "OUS":
        return _words(column)
    x = column.astype(np.float64)
    null = ~np.isfinite(x)
    seen = x[~null]
    parts = [null[:, None].astype(np.float64)] if null.any() else []
    knots = np.unique(np.quantile(seen, np.linspace(0, 1, KNOTS))) if len(seen) else seen
    if len(knots) > 1:
        filled = np.where(null, np.median(seen), x)
        eye = np.eye(len(knots))
        parts.append(np.stack([np.interp(filled, knots, row) for row in eye[1:]], axis=1))
    return np.concatenate(parts, axis=1) if parts else np.empty((len(x), 0))


def _words(column: NDArray[Any]) -> Floats:
    words = column.tolist()
    top = {word: n for n, (word, _) in enumerate(Counter(words).most_common(WORDS))}
    place = np.array([top.get(word, len(top)) for word in words], dtype=np.int64)
    found: Floats = (place[:, None] == np.arange(1, len(top) + 1)).astype(np.float64)
    return found


def logistic(x: Floats, t: Floats, weight: Floats | None = None) -> Floats:
    """Fit a logistic regression with a ridge by Newton's method; the first column is constant.

    Args:
        x: (n, k). t: (n,), 0 or 1. weight: (n,), 1 each without.

    Returns:
        (k,). The penalised likelihood is strictly concave, so there is one answer; a step that
        does not improve it is halved.
    """
    c = np.ones(len(t)) if weight is None else weight
    ridge = np.full(x.shape[1], PENALTY)
    ridge[0] = 1e-6
    beta = np.zeros(x.shape[1])

    def value(b: Floats) -> float:
        eta = x @ b
        return float(c @ (t * eta - np.logaddexp(0, eta)) - 0.5 * (ridge * b) @ b)

    best = value(beta)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        gradient = x.T @ (c * (t - p)) - ridge * beta
        curve = (x * (c * p * (1 - p))[:, None]).T @ x + np.diag(ridge)
        step = np.linalg.solve(curve, gradient)
        size, found = 1.0, value(beta + step)
        while found < best and size > 1e-3:
            size /= 2
            found = value(beta + size * step)
        if found <= best + 1e-9 * abs(best):
            break
        beta, best = beta + size * step, found
    return beta


def expected(columns: Columns, loss: Floats, asked: Columns) -> tuple[Floats, Floats]:
    """Return the expected loss of inputs, by a ridge regression of the reference's losses.

    Args:
        columns: inputs of the reference, (n,) each. loss: (n,). asked: inputs of others, (m,).

    Returns:
        (n,), each from folds that it was not in, and (m,), the mean of the folds.
    """
    n = len(loss)
    names = [name for name in columns if name in asked]
    m = len(next(iter(asked.values()))) if asked else 0
    x = inputs({k: np.concatenate([columns[k], asked[k]]) for k in names}, loss)
    ridge = np.diag(np.full(x.shape[1], PENALTY))
    ours, theirs = np.empty(n), np.zeros(m)
    for k in range(FOLDS):
        held = np.arange(n) % FOLDS == k
        known = x[:n][~held]
        beta = np.linalg.solve(known.T @ known + ridge, known.T @ loss[~held])
        ours[held] = x[:n][held] @ beta
        theirs += x[n:] @ beta / FOLDS
    return ours, theirs


# ---------------------------------------------------------------- the label mix


def ks(a: Floats, b: Floats) -> tuple[float, float]:
    """Return Kolmogorov and Smirnov's distance of two samples, and its asymptotic p-value."""
    if not len(a) or not len(b):
        return 0.0, 1.0
    every = np.sort(np.concatenate([a, b]))
    below = np.searchsorted(np.sort(a), every, side="right") / len(a)
    other = np.searchsorted(np.sort(b), every, side="right") / len(b)
    distance = float(np.abs(below - other).max())
    x = distance * sqrt(len(a) * len(b) / (len(a) + len(b)))
    if x < 0.2:
        return distance, 1.0
    p = 2 * sum((-1) ** (k - 1) * exp(-2 * k * k * x * x) for k in range(1, 101))
    return distance, min(max(p, 0.0), 1.0)

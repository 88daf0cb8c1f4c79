"""Codes of a column: whether its values have changed places.

Examples are a renumbered list of kinds, a time zone that is added to an hour, or an inverted flag.
Each value is plausible, but one value now has the associations of another. Three things are
associated with a value: its frequency, the other columns of its requests, and the outcome. If one
assignment of today's values to the reference's makes them agree again, and they do not agree as
they stand, the values have changed places.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kedge.core.diagnosis.association import Coding, Ints
from kedge.core.diagnosis.stretches import Column, Floats

DRIFT = 0.1
"""Part by which an ordinary change can move a value's share, beside chance."""
SURE = 12.0
"""Points of chi-square by which one part must favour the assignment over the present values to
support it: 3.5 standard errors. No part must oppose it by more than `AGAINST`."""
AGAINST = 4.0
FITS = 4.0
"""Points of chi-square per dimension up to which an assignment fits: with drift, 1 is too
strict."""
BETTER = 0.3
"""Limit of the misfit that an assignment leaves, as a part of the present misfit."""


class Recoded(NamedTuple):
    """An assignment that makes today's values agree with the reference's."""

    moved: tuple[tuple[str, str], ...]
    """Today's values and those of the reference that they stand for, the most frequent first."""
    by: tuple[str, ...]
    """The parts that support it: frequency, columns, outcomes."""


def recoded(
    coding: Coding,
    columns: tuple[Column, Column],
    predicted: tuple[Floats, Floats] | None,
    left: tuple[Floats, Floats, Ints, Ints] | None,
) -> Recoded | None:
    """Return whether the values of a column have changed places.

    Args:
        coding: the coding of the reference's column.
        columns: the reference's and today's, (n,) and (m,).
        predicted: codes of either window's rows as the other columns predict them, (n, k) and (m,
            k).
        left: the outcome of labelled rows less what the other columns predict, (a, q) and (b, q),
            and the places of these rows.
    """
    codes = len(coding.codes)
    if not coding.few or codes < 2:
        return None
    places = [coding.place(column) for column in columns]
    counts = [
        np.bincount(place, minlength=codes + 1)[:codes].astype(np.float64) for place in places
    ]
    if counts[1].sum() < 0.9 * len(places[1]) * (counts[0].sum() / len(places[0])):
        return None  # many values are new: another question covers that
    parts = {"frequency": _frequency(*counts)}
    if predicted is not None and predicted[0].shape[1]:
        parts["columns"] = _means(places, [p - p.mean(axis=0) for p in predicted], codes)
    if left is not None:
        labelled = [places[0][left[2]], places[1][left[3]]]
        parts["outcomes"] = _means(labelled, [left[0], left[1]], codes)
    whole = sum(parts.values())
    to = assigned(np.asarray(whole))
    as_is = np.arange(codes)
    if (to == as_is).all():
        return None
    stays = {name: float(part[as_is, as_is].sum()) for name, part in parts.items()}
    moves = {name: float(part[as_is, to].sum()) for name, part in parts.items()}
    if any(moves[name] > stays[name] + AGAINST for name in parts):
        return None
    left_, was = sum(moves.values()), sum(stays.values())
    if left_ > BETTER * was or left_ > FITS * codes * len(parts):
        return None
    by = tuple(name for name in parts if stays[name] - moves[name] > SURE)
    order = np.argsort(-counts[1], kind="stable")
    moved = tuple((str(coding.codes[j]), str(coding.codes[to[j]])) for j in order if to[j] != j)
    return Recoded(moved, by) if by else None


def shifted(coding: Coding, columns: tuple[Column, Column]) -> bool:
    """Return whether the frequencies of a column's codes have surely changed."""
    codes = len(coding.codes)
    if not coding.few or not codes:
        return False
    counts = [
        np.bincount(coding.place(column), minlength=codes + 1)[:codes].astype(np.float64)
        for column in columns
    ]
    return bool(np.diag(_frequency(*counts)).max() > SURE)


def _frequency(before: Floats, now: Floats) -> Floats:
    """Return the chi-square of each of today's values for each of the reference's, (k, k)."""
    p, q = before / max(before.sum(), 1), now / max(now.sum(), 1)
    chance = p * (1 - p) / max(before.sum(), 1) + 1 / max(before.sum(), 1) ** 2
    chance_now = q * (1 - q) / max(now.sum(), 1) + 1 / max(now.sum(), 1) ** 2
    gap = q[:, None] - p[None, :]
    drift = np.square(DRIFT * np.maximum(p[None, :], q[:, None]))
    return np.asarray(np.square(gap) / (chance_now[:, None] + chance[None, :] + drift))


def _means(places: list[Ints], values: list[Floats], codes: int) -> Floats:
    """Return the chi-square of means of (n, k) and (m, k) values; all dimensions count as one."""
    means, errors = [], []
    for place, value in zip(places, values, strict=True):
        known = place < codes
        count = np.bincount(place[known], minlength=codes).astype(np.float64)[:, None]
        one = (place[known][:, None] == np.arange(codes)).astype(np.float64)
        mean = one.T @ value[known] / np.maximum(count, 1)
        spread = float(np.square(value[known] - mean[place[known]]).sum()) / max(known.sum(), 1)
        means.append(mean)
        errors.append(spread / np.maximum(count[:, 0], 0.5))
    gap = np.square(means[1][:, None, :] - means[0][None, :, :]).sum(axis=2)
    return np.asarray(gap / (errors[1][:, None] + errors[0][None, :]))


def assigned(cost: Floats) -> Ints:
    """Return the cheapest assignment of rows to columns (the Hungarian method), (k,).

    Args:
        cost: (k, k).
    """
    n = len(cost)
    u, v = np.zeros(n + 1), np.zeros(n + 1)
    row = np.zeros(n + 1, dtype=np.intp)
    for i in range(1, n + 1):
        row[0], j = i, 0
        least = np.full(n + 1, np.inf)
        came = np.zeros(n + 1, dtype=np.intp)
        used = np.zeros(n + 1, dtype=np.bool_)
        while True:
            used[j] = True
            reduced = cost[row[j] - 1] - u[row[j]] - v[1:]
            better = ~used[1:] & (reduced < least[1:])
            least[1:][better], came[1:][better] = reduced[better], j
            free = np.flatnonzero(~used[1:]) + 1
            nearest = int(free[least[free].argmin()])
            step = least[nearest]
            u[row[used]] += step
            v[used] -= step
            least[~used] -= step
            j = nearest
            if row[j] == 0:
                break
        while j:
            row[j] = row[came[j]]
            j = int(came[j])
    found = np.empty(n, dtype=np.intp)
    found[row[1:] - 1] = np.arange(n)
    return found

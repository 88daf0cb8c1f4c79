"""Defects of columns: changes that no ordinary change of the callers causes. They need no labels.

A population may grow older, richer or more difficult. But a fifth of its ages does not go missing,
its unit does not become cents, and its incomes do not become equal. `Code` lists the defects. Each
has a threshold of size as well as of proof, so that a tiny change in a million requests is no
defect. Later questions cover a change below the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import nan, sqrt
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kedge.core.diagnosis.stretches import COMMON, LEAST_ROWS, Column, Floats, Stretches, stays_away

Mask = NDArray[np.bool_]

PROOF = 5.0
"""Standard errors of proof: some twenty columns and eight questions are tested at once, and
often."""
SHARE = 0.01
"""Least share of rows of a defect: a smaller one hardly affects an endpoint's quality."""
MASS = 0.05
"""Share of rows on one value from which it is a new mass point, if it is also three times as large
as before."""
ALONE = 2.0
"""Factor over the next heap's share: a default that replaces lost values stands alone. Only equally
new heaps count: zeros that half the rows always had do not rule out a sentinel beside them."""
STEPS = 12
"""Most stretches of one value in a whole reference: the month has as many in a year."""
SCALE = 5.0
"""Factor of the spread that no season causes, but a unit does (cents, grams, milliseconds)."""
FEW = 20
"""Values up to which a column of numbers is read as a list of kinds, whose shares move normally."""
STAYS = 0.9
"""Share of rows since a column left its constant: a broken column, or a newly filled one, does not
return."""
GONE = 0.9
"""Share of nulls in a stretch: if no stretch had as many, a column of nulls is no usual spell."""
COMPLETE = 50
"""Words up to which a summary of the training set lists them all."""


class Code(StrEnum):
    """Code of a defect of a column."""

    MISSING = "missing"
    TYPE = "type"
    NULL = "null"
    CONSTANT = "constant"
    LEAVES_CONSTANT = "leaves_constant"
    SCALE = "scale"
    MASS_POINT = "mass_point"
    RANGE = "range"
    UNSEEN = "unseen"


WHOLE = frozenset({Code.MISSING, Code.TYPE, Code.SCALE, Code.CONSTANT})
"""Defects of every row: no part of the traffic is left to judge without them."""


class Trained(Protocol):
    """Statistics of a training set's column, such as `values.ColumnStatistics`."""

    @property
    def count(self) -> int: ...  # noqa: D102 - as there
    @property
    def nulls(self) -> int: ...  # noqa: D102
    @property
    def minimum(self) -> float | None: ...  # noqa: D102
    @property
    def maximum(self) -> float | None: ...  # noqa: D102
    @property
    def std(self) -> float | None: ...  # noqa: D102
    @property
    def values(self) -> dict[str, int]: ...  # noqa: D102
    @property
    def distinct(self) -> int: ...  # noqa: D102


class Defect(NamedTuple):
    """One fault of one column, in figures and in words."""

    column: str
    code: Code
    before: float
    now: float
    text: str
    at: tuple[float, float] = (nan, nan)
    """The allowed range of `range`; the value, twice, of `mass_point`."""


def defects(
    reference: Mapping[str, Column],
    current: Mapping[str, Column],
    ranges: Mapping[str, tuple[float | None, float | None]] | None = None,
    *,
    times: tuple[Floats, Floats] | None = None,
    training: Mapping[str, Trained] | None = None,
) -> list[Defect]:
    """Return the defects of the present columns, compared with those of a reference.

    Args:
        reference: columns, (n,) each: numbers with NaN for null, or words with None.
        current: the present columns, (m,) each. A column that is missing in the reference is
            skipped.
        ranges: the least and the largest value that a schema allows, if it has a range.
        times: of the rows of both, seconds, (n,) and (m,). With them a column is sound if it was
            alike in a stretch of the reference as long as today (`stretches`): requests of one hour
            share its weather. Without them each row is independent.
        training: columns of the training set: its values are in range in every season.
    """
    found = []
    stretches: Stretches | None = None
    for name, before in reference.items():
        if len(before) < LEAST_ROWS:
            continue
        now = current.get(name)
        if now is None:
            found.append(Defect(name, Code.MISSING, 0.0, 1.0, f"{name} is missing"))
        elif len(now) >= LEAST_ROWS:
            # Every column has the same rows.
            stretches = stretches or Stretches(times, (len(before), len(now)))
            found += _Comparing(
                name,
                plain(before),
                plain(now),
                times,
                stretches,
                (ranges or {}).get(name),
                (training or {}).get(name),
            ).faults()
    return found


def _runs(column: Column, times: Floats) -> NDArray[np.intp]:
    """Return the rows of each stretch of one value, in the order of time, without nulls."""
    known = ~nulls(column)
    values = column[known][np.argsort(times[known], kind="stable")]
    begins = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
    return np.diff(np.append(begins, len(values)))


def stepped(
    before: Column, now: Column, times: tuple[Floats | None, Floats | None] = (None, None)
) -> bool:
    """Return whether a column changes by steps, and has another value now.

    It had one value all the time and has another one. Or, where the times of its rows are known, it
    changed a few times only, and does so now. A calendar does that at midnight and at New Year, so
    it is no fault. Where the value is new, the two windows have nothing in common.
    """
    one, two = plain(before), plain(now)
    if one.dtype.kind == "O" or two.dtype.kind == "O":
        return False
    held, holds = one[~nulls(one)], two[~nulls(two)]
    if not len(held) or not len(holds) or (held.min() == held.max() == holds.min() == holds.max()):
        return False
    # Today first: it has fewer rows to sort, and most columns fail there.
    return _by_steps(two, holds, times[1]) and _by_steps(one, held, times[0])


def _by_steps(column: Column, held: Floats, times: Floats | None) -> bool:
    """Return whether a column changed a few times and stayed: a rare flag does not stay."""
    if held.min() == held.max():
        return True
    if times is None:
        return False
    runs = _runs(column, times)
    return len(runs) <= STEPS and bool((runs[1:-1] >= SHARE * len(held)).all())


def mismatches(training: Mapping[str, Trained], served: Mapping[str, Column]) -> list[Defect]:
    """Return nulls, scales and words of production that the training set did not have.

    A null that the training set never had is a new value for the model.
    """
    found = []
    for name, known in training.items():
        now = served.get(name)
        if now is None or known.count < LEAST_ROWS or len(now) < LEAST_ROWS:
            continue
        column = plain(now)
        null = nulls(column)
        share, rows = known.nulls / known.count, (known.count, len(column))
        # A model that learned from many nulls knows what one means, and seasons bring more or
        # fewer.
        few = share < COMMON and 3 * share < null.mean()
        if few and risen(share, float(null.mean()), rows):
            found.append(_null(name, share, float(null.mean()), "in the training set"))
        if column.dtype.kind == "O":
            if known.values and known.distinct <= min(COMPLETE, len(known.values)):
                found += _unseen(name, set(known.values), known.count, column)
        elif known.std and known.distinct > FEW and not familiar(known, column[~null]):
            spread = float(np.std(column[~null])) if (~null).any() else 0.0
            if spread and not 1 / SCALE < spread / known.std < SCALE:
                found.append(_scale(name, known.std, spread, "in the training set"))
    return found


def affected(defect: Defect, column: Column, reference: Column) -> Mask:
    """Return which rows have the fault, (m,); all of them for those in `WHOLE`."""
    now = plain(column)
    if defect.code in WHOLE:
        return np.ones(len(now), dtype=np.bool_)
    if defect.code is Code.NULL:
        # Where most nulls are as usual, a null says little of its row.
        return nulls(now) & (defect.now - defect.before > defect.now / 2)
    if defect.code is Code.MASS_POINT:
        return np.asarray(now == defect.at[0])
    if defect.code is Code.UNSEEN:
        known = set(plain(reference).tolist()) | {None}
        return np.array([word not in known for word in now.tolist()], dtype=np.bool_)
    if defect.code is Code.RANGE:
        low, high = defect.at
        with np.errstate(invalid="ignore"):
            return np.asarray((now < low) | (now > high))
    return np.zeros(len(now), dtype=np.bool_)


def touched(
    found: Sequence[Defect],
    current: Mapping[str, Column],
    reference: Mapping[str, Column],
    rows: int,
) -> Mask:
    """Return which rows any of these defects explains, (m,)."""
    every = np.zeros(rows, dtype=np.bool_)
    for fault in found:
        if fault.column in current and fault.column in reference:
            every |= affected(fault, current[fault.column], reference[fault.column])
    return every


# ---------------------------------------------------------------- columns


def plain(column: Column) -> Column:
    """Return numbers as float64 with NaN for null, words as objects with None for it."""
    if column.dtype.kind in "fiub":
        return column.astype(np.float64, copy=False)
    values = column.tolist()
    if all(v is None or isinstance(v, (int, float)) for v in values):
        return np.array([np.nan if v is None else float(v) for v in values], np.float64)
    found = np.empty(len(values), dtype=object)
    found[:] = [None if v is None or v != v else str(v) for v in values]  # noqa: PLR0124 - a NaN
    return found


def nulls(column: Column) -> Mask:
    """Return which rows of a plain column are null, (n,); an infinity counts as null."""
    if column.dtype.kind == "O":
        return np.asarray(column == None)  # noqa: E711 - of every element
    return ~np.isfinite(column)


def familiar(known: Trained, column: Floats) -> bool:
    """Return whether a training column varied, and about as far as today's values, (m,).

    Twice the width is allowed on either side, since a record is no fault; another unit exceeds it.
    """
    if not known.std or known.minimum is None or known.maximum is None or not len(column):
        return False
    low, high = _wide(np.array([known.minimum, known.maximum]))
    return bool(((column >= low) & (column <= high)).mean() > 1 - SHARE)


def risen(before: float, now: float, rows: tuple[int, int]) -> bool:
    """Return whether a share of rows rose by enough to matter, and surely."""
    rise = now - before
    error = sqrt(before * (1 - before) / rows[0] + now * (1 - now) / rows[1] + 1e-12)
    return rise > SHARE and rise / error > PROOF


# ---------------------------------------------------------------- one column


class _Comparing:
    """One column of two windows, and the tests for its defects."""

    def __init__(
        self,
        name: str,
        before: Column,
        now: Column,
        times: tuple[Floats, Floats] | None,
        stretches: Stretches,
        allowed: tuple[float | None, float | None] | None,
        trained: Trained | None,
    ) -> None:
        self.name, self.before, self.now = name, before, now
        self.times, self.allowed, self.trained = times, allowed, trained
        self.stretches = stretches
        self.was, self.null = nulls(before), nulls(now)

    def faults(self) -> list[Defect]:
        """Return all defects of the column."""
        before, now = self.before, self.now
        share, share_now = float(self.was.mean()), float(self.null.mean())
        found = []
        twice = share_now > 2 * share or 1 - share_now < (1 - share) / 2
        if twice and (self._risen(self.was, share_now, len(now)) or self._gone(share_now)):
            found.append(_null(self.name, share, share_now, "before"))
        if self.null.all() or self.was.all():
            return found
        if (before.dtype.kind == "O") is not (now.dtype.kind == "O"):
            kinds = ("words", "numbers") if before.dtype.kind == "O" else ("numbers", "words")
            text = f"{self.name} was {kinds[0]} and is {kinds[1]}"
            return [*found, Defect(self.name, Code.TYPE, 0.0, 1.0, text)]
        if before.dtype.kind == "O":
            return found + _unseen(self.name, set(before[~self.was].tolist()), len(before), now)
        if stepped(before, now, self.times or (None, None)):
            return found
        return found + self._numbers(before[~self.was], now[~self.null])

    def _risen(self, held: Mask, now: float, rows: int) -> bool:
        """Return whether a share rose by enough to matter, and by more than stretches lie apart."""
        rise, error = self.stretches.rise(held, now, rows)
        return rise > SHARE and rise / error > PROOF

    def _gone(self, share: float) -> bool:
        """Return whether nearly all rows are null, beyond any stretch of the reference."""
        if share <= 1 - SHARE:
            return False
        return all(float(part.mean()) < GONE for part in self.stretches.of(self.was))

    def _numbers(self, before: Floats, now: Floats) -> list[Defect]:
        if before.min() == before.max():
            return self._leaves(float(before[0]), now)
        if now.min() == now.max():
            clump = self.stretches.clump(self.before, float(now[0]), len(now))
            if clump.usual**clump.draws > 1e-6:  # a rare event that did not happen
                return []
            usual = float((before == now[0]).mean())
            text = f"{self.name} is always {now[0]:g}, which it was in {usual:.1%} before"
            return [Defect(self.name, Code.CONSTANT, usual, 1.0, text)]
        spread = self._spreads(before, now)
        found = []
        if spread is not None:
            found.append(_scale(self.name, *spread, "before"))
        else:
            found += self._range(before)
        point = self._mass_point(before, now)
        return found if point is None else [*found, point]

    def _leaves(self, usual: float, now: Floats) -> list[Defect]:
        """Return a defect if the column had one value, and has others."""
        away = float((now != usual).mean())
        if not risen(0.0, away, (len(self.before), len(self.now))):
            return []
        if self.times is not None:
            when = self.times[1][~self.null]
            # An event comes and goes; a calendar is excluded already (`stepped`).
            if stays_away(now, usual, when) < STAYS:
                return []
            if self.trained is not None and familiar(self.trained, now):
                return []
        text = f"{self.name} was always {usual:g}, and is not in {away:.1%} of the requests"
        return [Defect(self.name, Code.LEAVES_CONSTANT, 0.0, away, text)]

    def _spreads(self, before: Floats, now: Floats) -> tuple[float, float] | None:
        """Return both standard deviations if they are a unit apart in each stretch, else None.

        The middle half has to agree, where it has a width: a single row of 10**9 is an outlier and
        not a unit.
        """
        one, two = float(np.std(before)), float(np.std(now))
        least, most = self.stretches.spreads(self.before)
        if not two or least / SCALE < two < most * SCALE:
            return None
        if self.trained is not None and familiar(self.trained, now) and two > most:
            return None
        middle = float(np.subtract(*np.quantile(now, (0.75, 0.25))))
        low, high = self.stretches.middles(self.before)
        if high and middle and low / SCALE < middle < high * SCALE:
            return None
        return one, two

    def _range(self, before: Floats) -> list[Defect]:
        low, high = _wide(before)
        known = self.trained
        if known is not None and known.minimum is not None and known.maximum is not None:
            low, high = min(low, known.minimum), max(high, known.maximum)
        if self.allowed is not None:
            low = low if self.allowed[0] is None else max(low, self.allowed[0])
            high = high if self.allowed[1] is None else min(high, self.allowed[1])
        with np.errstate(invalid="ignore"):
            outside = (self.before < low) | (self.before > high)
            share = float(((self.now < low) | (self.now > high)).mean())
        if not self._risen(outside, share, len(self.now)):
            return []
        text = (
            f"{self.name} lies outside {low:g} to {high:g} in {share:.1%} of the requests, "
            f"{outside.mean():.1%} before"
        )
        return [Defect(self.name, Code.RANGE, float(outside.mean()), share, text, (low, high))]

    def _mass_point(self, before: Floats, now: Floats) -> Defect | None:
        values, counts = np.unique(now, return_counts=True)
        shares, usual = counts / len(now), _shares(before, values)
        # The heap that grew most: the largest one may be an old one, such as zeros.
        most = int((shares - usual).argmax())
        value, share, was = float(values[most]), float(shares[most]), float(usual[most])
        common = self.stretches.clump(self.before, value, len(now)).usual
        if share <= MASS or common >= share / 3 or not risen(was, share, (len(before), len(now))):
            return None
        # Values that many requests share, such as an hour's weather, come in several large heaps.
        grown = np.delete(shares - usual, most)
        if share < ALONE * float(grown.max(initial=0.0)):
            return None
        if len(np.unique(before[:10_000])) <= FEW and was > 0:
            return None
        text = (
            f"{self.name} has one value in {share:.1%} of the requests, {was:.1%} before: {value:g}"
        )
        return Defect(self.name, Code.MASS_POINT, was, share, text, (value, value))


def _shares(column: Floats, values: Floats) -> Floats:
    """Return the share of each of some values in a column, (k,)."""
    known, counts = np.unique(column, return_counts=True)
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[at] == values, counts[at] / len(column), 0.0)


def _null(name: str, before: float, now: float, when: str) -> Defect:
    text = f"{name} is null in {now:.1%} of the requests, {before:.1%} {when}"
    return Defect(name, Code.NULL, before, now, text)


def _unseen(name: str, known: set[str], rows: int, now: Column) -> list[Defect]:
    words = [word for word in now.tolist() if word is not None and word not in known]
    share = len(words) / len(now)
    if not risen(0.0, share, (rows, len(now))):
        return []
    # A name or an id is new all the time: only a list of kinds can have an unseen one.
    if len(known) > max(COMPLETE, rows // 20):
        return []
    most = max(sorted(set(words)), key=words.count) if len(set(words)) <= COMPLETE else words[0]
    text = (
        f"{name} has values never seen before in {share:.1%} of the requests, such as {most!r:.40}"
    )
    return [Defect(name, Code.UNSEEN, 0.0, share, text)]


def _scale(name: str, before: float, now: float, when: str) -> Defect:
    text = f"{name} spreads {now / before:.3g} times as wide as {when}, as after a change of unit"
    return Defect(name, Code.SCALE, before, now, text)


def _wide(before: Floats) -> tuple[float, float]:
    """Return the reference's range, widened by its own width on either side."""
    seen = before[np.isfinite(before)]
    low, high = float(seen.min()), float(seen.max())
    return low - (high - low), high + (high - low)

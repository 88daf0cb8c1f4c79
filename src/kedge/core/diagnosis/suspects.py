"""Suspects: columns that may be stale or recoded, where a changed world would look the same.

Plausible values hide a fault. Three kinds of evidence show it, from the surest to the weakest.
First, a column repeats earlier values (`staleness`). Second, a column is no longer associated with
the other columns of its request, while those keep their association (`association`). Or it is
associated again once its codes change places (`codes`). Third, the outcomes are associated as
before with everything but this column. The third alone proves nothing: a world in which one column
means less looks like that too. Then the column is a suspect, and neither the world nor the data is
named.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kedge.core.diagnosis.association import (
    Effect,
    OutcomeAssociation,
    RelationLeft,
    Relations,
    Structure,
    Units,
)
from kedge.core.diagnosis.codes import Recoded, recoded, shifted
from kedge.core.diagnosis.contrast import LEAST
from kedge.core.diagnosis.defects import PROOF
from kedge.core.diagnosis.findings import Suspect
from kedge.core.diagnosis.shift import spaced
from kedge.core.diagnosis.stretches import Column, Floats

BROKEN = 0.65
"""Part of a column's relation to the others below which it is broken. Harder inputs alone left
three quarters and more."""
HALF = 0.5
"""Largest part of the relation that the worst such column keeps when the data is to blame. At 0.56
other callers had come, and no column was broken."""
SPARE = 0.15
"""Part by which the relation must be lower than in any stretch of the reference."""
RELATED = 0.005
"""Least part of a column's variance that the others explain: below it, chance makes a relation."""
HOLDS = 0.8
"""Part of the relation above which a column is neither stale nor recoded: fewer than a fifth of the
rows can be."""
CHANGED = 4.0
"""Normal quantile from which the association of outcomes with the columns has changed."""
SAME = 3.0
"""Normal quantile up to which their association with the other columns is unchanged."""
EXPLAINED = 1 / 3
"""Part of the change that can remain without the broken columns: a fitted curve leaves some."""
GONE = 0.4
"""Limit of a column's remaining relation to the others where no outcome can confirm that it is
broken."""
KNOWN = 4.0
"""Standard errors from which a column is known to have an effect on the outcome."""
FADED = 0.85
"""Largest part of its effect on the outcome that a stale column keeps: if few rows are stale,
little is lost."""
LEAST_LABELS = 4 * LEAST
"""Least labelled rows of either window: a regression on a dozen columns needs them."""
MOST_ROWS = 10_000
"""Rows of either window that are used, labelled ones first: they show a relation of half a per
cent, and take 30 MB."""
ASKED = 8
"""Broken columns that are tried in pairs, those that lost the most: 28 pairs."""
MOST = 4
"""Most columns that are broken at once, as those of one source; with more, the world has
changed."""


class SuspectFindings(NamedTuple):
    """Stale, recoded and suspect columns of two windows."""

    proven: tuple[Suspect, ...]
    """Columns that are stale or recoded."""
    alike: tuple[Suspect, ...]
    """Columns that may be stale or recoded, where a changed world would look the same."""
    text: str
    """The result in words, for the table of evidence."""
    explained: bool = False
    """Whether columns that are broken in another way account for all that changed."""
    asked: bool = False
    """Whether the outcomes were used: that needs `LEAST_LABELS` labelled rows of either window."""
    left_out: int = 0
    """Columns that were not examined: more than a regression can hold."""


NOTHING = SuspectFindings((), (), "")


class SuspectWindow(NamedTuple):
    """One window: its columns as `defects.plain` has them, (n,) each, and its outcomes."""

    columns: Mapping[str, Column]
    truth: Floats
    """(n, q); NaN where no label came."""
    units: Units
    at: Floats | None


def judged(
    before: SuspectWindow, now: SuspectWindow, names: Sequence[str], broken: Collection[str] = ()
) -> SuspectFindings:
    """Return which columns are stale or recoded, and which may be.

    Args:
        before: the reference.
        now: today.
        names: columns to examine, the most important first.
        broken: columns of them that are known to be broken in another way.
    """
    if not names:
        return NOTHING
    return _Judging(before, now, names, broken).judged()


class _Judging:
    """One examination of all columns."""

    def __init__(
        self,
        before: SuspectWindow,
        now: SuspectWindow,
        names: Sequence[str],
        broken: Collection[str],
    ) -> None:
        self.sides = [_spaced(side) for side in (before, now)]
        one, two = self.sides
        times = None if one.at is None or two.at is None else (one.at, two.at)
        self.relations = Relations(one.columns, two.columns, names)
        self.known = [name for name in self.relations.names if name in broken]
        self.names = [
            name
            for name in self.relations.names
            if name not in broken and len(self.relations.at[name])
        ]
        self.structure = Structure(self.relations, times, self.known)
        self.outcomes: OutcomeAssociation | None = None
        self.changed = 0.0
        self.explained = False
        self.labelled = [np.flatnonzero(_labelled(side)) for side in self.sides]
        if min(len(rows) for rows in self.labelled) >= LEAST_LABELS:
            self._with_outcomes()

    def _with_outcomes(self) -> None:
        (one, two), (rows, rows_now) = self.sides, self.labelled
        self.outcomes = OutcomeAssociation(
            self.relations.rows(rows, rows_now),
            (one.truth[rows], two.truth[rows_now]),
            (_of(one.units, rows), _of(two.units, rows_now)),
        )
        self.changed = self._changed()
        if self.known:
            whole = self.outcomes.changed()
            self.explained = whole >= CHANGED and self.changed <= max(SAME, EXPLAINED * whole)

    def _changed(self, without: Sequence[str] = (), most: float = np.inf) -> float:
        assert self.outcomes is not None
        return self.outcomes.changed([*self.known, *without], most)

    def judged(self) -> SuspectFindings:
        """Return the findings: first among the columns, then with the outcomes."""
        proven = self._proven()
        if not proven:
            proven = [found for name in self.names if (found := self._moved(name)) is not None][:1]
        alike = [] if proven else self._alike()
        told = "; ".join(each.text for each in proven or alike)
        return SuspectFindings(
            tuple(proven),
            tuple(alike),
            told,
            self.explained,
            asked=self.outcomes is not None,
            left_out=self.relations.left_out,
        )

    # ------------------------------------------------------------ among the columns

    def _broken(self) -> list[str]:
        """Return the fewest columns without which the others' relations are unchanged.

        Several choices may fit, as with two columns that are associated with each other only. Then
        the outcomes decide: without the false columns, their association with all others is
        unchanged.
        """
        whole = self.structure.whole
        fallen = self._fallen(())
        if fallen and self.outcomes is not None and self.changed >= CHANGED:
            most = max(SAME, EXPLAINED * self.changed)
            pool = sorted(
                (n for n, one in whole.items() if _weaker(one)), key=lambda n: whole[n].slope
            )[:ASKED]
            # Columns of one source may be associated with each other, so that none looks weaker.
            pool += [n for n in self.names if n not in pool and self._changed([n], most) <= most]
            for size in (1, 2):
                left = {
                    some: self._changed(some, most)
                    for some in combinations(pool[: ASKED + 2], size)
                }
                for some in sorted(left, key=lambda some: left[some]):
                    if left[some] <= most and not self._fallen(some):
                        return list(some)
        gone: list[str] = []
        while fallen:
            if len(gone) == MOST:
                return []
            left_ = {name: self._misfit([*gone, name]) for name in fallen[:MOST]}
            gone.append(min(left_, key=lambda name: left_[name]))
            fallen = self._fallen(gone)
        return gone

    def _fallen(self, without: Sequence[str]) -> list[str]:
        held = self.structure.held([*self.known, *without])
        return sorted((n for n, one in held.items() if _fallen(one)), key=lambda n: held[n].slope)

    def _misfit(self, without: Sequence[str]) -> float:
        """Return how much is still broken, in squared standard errors."""
        held = self.structure.held([*self.known, *without]).values()
        return float(sum(np.square((1 - one.slope) / one.se) for one in held if _fallen(one)))

    def _proven(self) -> list[Suspect]:
        """Return the columns that lost their relation to the others, and to a known outcome."""
        broken = self._broken()
        if not broken or not self._harm(broken):
            return []
        found = []
        for name in broken:
            slope = self._held(name, broken).slope
            moved = self._recoded(name)
            text = (
                f"{name} relates to the other columns of its request {max(slope, 0):.0%} as much as"
                " before, and these to each other as before"
            )
            text += f": {_said(moved)}" if moved is not None else ""
            found.append(Suspect(name, "recoded" if moved is not None else "stale", text))
        return found

    def _held(self, name: str, broken: Sequence[str]) -> RelationLeft:
        """Return a broken column's relation to those that are not broken."""
        others = [each for each in broken if each != name]
        return self.structure.held([*self.known, *others]).get(
            name, RelationLeft(0.0, 0.0, np.inf, 1.0)
        )

    def _harm(self, broken: Sequence[str]) -> bool:
        """Return whether the outcomes show these columns to be false: the rest is unchanged.

        Where labels are too few, or something else changed as well, the columns themselves must be
        surer.
        """
        held = [self._held(name, broken) for name in broken]
        if min(one.slope for one in held) > HALF:
            return False
        surely = all(one.slope < GONE for one in held)
        if self.outcomes is None:
            return surely
        if self.changed < CHANGED:
            return False
        if self._changed(broken) <= max(SAME, EXPLAINED * self.changed):
            return True
        effects = [self.outcomes.effect(name) for name in broken]
        return surely and all(effect.size > KNOWN and _less(effect) for effect in effects)

    def _moved(self, name: str) -> Suspect | None:
        """Return the column as recoded if two of the three associations of its codes show it."""
        moved = self._recoded(name)
        if moved is None or len(moved.by) < 2:
            return None
        return Suspect(name, "recoded", f"{name}: {_said(moved)}")

    def _recoded(self, name: str) -> Recoded | None:
        coding = self.relations.codings[name]
        if not coding.few:
            return None
        left = None
        if self.outcomes is not None:
            left = (*self.outcomes.left([*self.known, name]), *self.labelled)
        columns = self.sides[0].columns[name], self.sides[1].columns[name]
        return recoded(coding, columns, self.structure.predicted.get(name), left)  # type: ignore[arg-type]

    # ------------------------------------------------------------ with the outcomes

    def _alike(self) -> list[Suspect]:
        """Return the columns without which the outcomes' other relations are unchanged."""
        if self.outcomes is None or self.changed < CHANGED:
            return []
        found = []
        for name in self.names:
            if self._changed([name], SAME) > SAME:
                continue
            suspect = self._suspect(name)
            if suspect is not None:
                found.append(suspect)
        return found

    def _suspect(self, name: str) -> Suspect | None:
        assert self.outcomes is not None
        held, effect, moved = (
            self.structure.whole.get(name),
            self.outcomes.effect(name),
            self._recoded(name),
        )
        if moved is not None:
            return Suspect(name, "recoded", f"{name}: {_said(moved)}, or the world changed alike")
        if held is not None and held.strength > RELATED and held.slope - 3 * held.se > HOLDS:
            return None
        coding = self.relations.codings[name]
        columns = self.sides[0].columns[name], self.sides[1].columns[name]
        if effect.size > KNOWN and _less(effect) and shifted(coding, columns):
            return Suspect(
                name,
                "recoded",
                f"{name}: the frequencies of its codes and their relation to the outcome "
                "changed, while the other columns are unchanged",
            )
        if effect.slope + 3 * effect.se < 0 or effect.slope > FADED or effect.size < KNOWN:
            return None  # an old value carries no information on the outcome, never the opposite
        return Suspect(
            name,
            "stale",
            f"{name} predicts the outcome {max(effect.slope, 0):.0%} as much as before, and the"
            " other columns as before: consistent with stale values",
        )


def _fallen(held: RelationLeft) -> bool:
    """Return whether a column's relation to the others is broken."""
    return (
        held.strength > RELATED
        and held.slope < min(BROKEN, held.least - SPARE)
        and (1 - held.slope) > PROOF * held.se
    )


def _weaker(held: RelationLeft) -> bool:
    """Return whether a column's relation to the others is surely weaker than it was."""
    return held.strength > RELATED and (1 - held.slope) > PROOF * held.se


def _less(effect: Effect) -> bool:
    """Return whether a column says less of the outcome than it did."""
    return effect.slope < 0.5 and 1 - effect.slope > PROOF * effect.se


def _said(moved: Recoded) -> str:
    shown = ", ".join(f"{now} was {was}" for now, was in moved.moved[:3])
    more = f" and {len(moved.moved) - 3} more" if len(moved.moved) > 3 else ""
    return f"its codes were exchanged, by {' and '.join(moved.by)} ({shown}{more})"


def _of(units: Units, rows: NDArray[np.intp]) -> Units:
    return None if units is None else units[rows]


def _labelled(side: SuspectWindow) -> NDArray[np.bool_]:
    return np.asarray(~np.isnan(side.truth).any(axis=1))


def _spaced(side: SuspectWindow) -> SuspectWindow:
    """Return at most `MOST_ROWS` rows, those with a label first."""
    known = _labelled(side)
    with_, without = np.flatnonzero(known), np.flatnonzero(~known)
    rows = with_[spaced(len(with_), MOST_ROWS)]
    room = min(MOST_ROWS, len(known)) - len(rows)
    rows = np.sort(np.concatenate([rows, without[spaced(len(without), max(room, 0))]]))
    return SuspectWindow(
        {name: column[rows] for name, column in side.columns.items()},
        side.truth[rows],
        _of(side.units, rows),
        None if side.at is None else side.at[rows],
    )

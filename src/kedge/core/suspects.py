"""Suspects: columns that may be stale or recoded, where a changed world would look the same.

Values that are plausible hide a fault. Three kinds of evidence betray it, from the surest to the
weakest: a column repeats earlier values (`staleness`); it went with the other columns of its
request and does no more, while those go with each other as they did (`association`), or does so
again once its codes change places (`recoding`); the outcomes go with everything but this column as
they did. The last alone proves nothing: a world in which one column means less looks like that too.
Then the column is a suspect, and neither the world nor the data is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kedge.core.association import Effect, Held, Outcomes, Relations, Structure, Units
from kedge.core.contrast import LEAST
from kedge.core.defects import PROOF
from kedge.core.disde import spaced
from kedge.core.findings import Suspect
from kedge.core.recoding import Recoded, recoded
from kedge.core.stretches import Column, Floats

BROKEN = 0.65
"""Of a column's relation to the others, what is left of it when it is called broken. Harder inputs
alone left three quarters and more."""
SPARE = 0.15
"""By how much more it must have fallen than in any stretch of the reference."""
RELATED = 0.005
"""Of a column's variance, what the others have to explain: of less, chance makes a relation."""
HOLDS = 0.8
"""Of the relation, what is surely left when a column is neither stale nor recoded: less than a
fifth of the rows can be."""
CHANGED = 4.0
"""From here on (a normal quantile), outcomes go with the columns in another way than they did."""
SAME = 3.0
"""Up to here they go with the other columns as they did."""
KNOWN = 4.0
"""Standard errors of a column's effect on the outcome, from which it is known to have one."""
LEAST_LABELS = 4 * LEAST
"""Labelled rows of either window: a regression on a dozen columns says nothing with fewer."""
MOST = 4
"""Columns that may be broken at once, as those of one source; where more are, the world is another."""


class Judged(NamedTuple):
    """What was found."""

    proven: tuple[Suspect, ...]
    """Columns that are stale or recoded."""
    alike: tuple[Suspect, ...]
    """Columns that may be, where a changed world would look the same."""
    text: str
    """In words, for the table of evidence."""


NOTHING = Judged((), (), "")


class Side(NamedTuple):
    """One window: its columns as `defects.plain` has them, (n,) each, and its outcomes."""

    columns: Mapping[str, Column]
    truth: Floats
    """(n, q); NaN where no label came."""
    units: Units
    at: Floats | None


def judged(before: Side, now: Side, names: Sequence[str]) -> Judged:
    """Return which columns are stale or recoded, and which may be.

    Args:
        before: the reference.
        now: today.
        names: columns to look at, the most important first; without those known to be broken.
    """
    if not names:
        return NOTHING
    return _Judging(before, now, names).judged()


class _Judging:
    """One look at all columns."""

    def __init__(self, before: Side, now: Side, names: Sequence[str]) -> None:
        sides = [_spaced(side) for side in (before, now)]
        self.sides = sides
        times = None if before.at is None or now.at is None else (sides[0].at, sides[1].at)
        self.relations = Relations(sides[0].columns, sides[1].columns, names)
        self.structure = Structure(self.relations, times)  # type: ignore[arg-type]
        self.names = [name for name in self.relations.names if len(self.relations.at[name])]
        self.outcomes: Outcomes | None = None
        self.changed = 0.0
        self.labelled = [np.flatnonzero(~np.isnan(side.truth).any(axis=1)) for side in sides]
        if min(len(rows) for rows in self.labelled) >= LEAST_LABELS:
            self.outcomes = Outcomes(
                self.relations.rows(*self.labelled),
                (sides[0].truth[self.labelled[0]], sides[1].truth[self.labelled[1]]),
                (_of(sides[0].units, self.labelled[0]), _of(sides[1].units, self.labelled[1])),
            )
            self.changed = self.outcomes.changed()

    def judged(self) -> Judged:
        """Ask the columns among themselves first, then with the outcomes."""
        broken = self._broken()
        proven = [found for name in broken if (found := self._proven(name, broken)) is not None]
        if not proven:
            proven = [found for name in self.names if (found := self._moved(name)) is not None][:1]
        if proven:
            return Judged(tuple(proven), (), "; ".join(each.text for each in proven))
        alike = self._alike(broken)
        return Judged((), tuple(alike), "; ".join(each.text for each in alike))

    # ------------------------------------------------------------ among the columns

    def _broken(self) -> list[str]:
        """The fewest columns without which the others hang together as they did."""
        gone: list[str] = []
        held = self.structure.whole
        while True:
            fallen = sorted((name for name, one in held.items() if _fallen(one)),
                            key=lambda name: held[name].slope)  # fmt: skip
            if not fallen:
                return gone
            if len(gone) == MOST:
                return []
            left = {name: self.structure.held([*gone, name]) for name in fallen[:MOST]}
            best = min(left, key=lambda name: (_misfit(left[name]), held[name].slope))
            gone.append(best)
            held = left[best]

    def _proven(self, name: str, broken: Sequence[str]) -> Suspect | None:
        """A column that no longer goes with the others; nor with the outcome, where that is known."""
        held = self.structure.held([each for each in broken if each != name]).get(name)
        if held is None or not _fallen(held):
            return None
        moved = self._recoded(name)
        if self.outcomes is not None:
            effect = self.outcomes.effect(name)
            if effect.size < KNOWN:
                return None  # it says nothing of the outcome, so it can do no harm
            if self.changed < CHANGED or not _less(effect):
                return None
        kind: Literal["stale", "recoded"] = "recoded" if moved is not None else "stale"
        text = (f"{name} goes with the other columns of its request {max(held.slope, 0):.0%} as much as it did, "
                "and these with each other as they did")  # fmt: skip
        return Suspect(name, kind, text + (f": {_said(moved)}" if moved is not None else ""))

    def _moved(self, name: str) -> Suspect | None:
        """A column whose codes have changed places, by two of the three things that go with them."""
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
            left = (*self.outcomes.left([name]), *self.labelled)
        columns = self.sides[0].columns[name], self.sides[1].columns[name]
        return recoded(coding, columns, self.structure.predicted.get(name), left)  # type: ignore[arg-type]

    # ------------------------------------------------------------ with the outcomes

    def _alike(self, broken: Sequence[str]) -> list[Suspect]:
        """Columns without which the outcomes go with everything as they did."""
        if self.outcomes is None or self.changed < CHANGED:
            return []
        found = []
        for name in self.names:
            if self.outcomes.changed([name], SAME) > SAME:
                continue
            suspect = self._suspect(name)
            if suspect is not None:
                found.append(suspect)
        return found

    def _suspect(self, name: str) -> Suspect | None:
        assert self.outcomes is not None
        held, effect, moved = self.structure.whole.get(name), self.outcomes.effect(name), self._recoded(name)
        if moved is not None:
            return Suspect(name, "recoded", f"{name}: {_said(moved)}, or the world changed alike")
        if held is not None and held.strength > RELATED and held.slope - 3 * held.se > HOLDS:
            return None
        if effect.slope + 3 * effect.se < 0 or effect.size < KNOWN:
            return None  # an old value says nothing of the outcome, and never the opposite
        return Suspect(
            name, "stale",
            f"{name} says {max(effect.slope, 0):.0%} of what it said of the outcome, and all else as much as it "
            "did: so would old values",
        )  # fmt: skip


def _fallen(held: Held) -> bool:
    """Whether a column's relation to the others is broken."""
    return (
        held.strength > RELATED
        and held.slope < min(BROKEN, held.least - SPARE)
        and (1 - held.slope) > PROOF * held.se
    )


def _misfit(held: Mapping[str, Held]) -> float:
    """How much is broken still, in squared standard errors."""
    return float(sum(np.square((1 - one.slope) / one.se) for one in held.values() if _fallen(one)))


def _less(effect: Effect) -> bool:
    """Whether a column says less of the outcome than it did."""
    return 1 - effect.slope > 2 * effect.se


def _said(moved: Recoded) -> str:
    shown = ", ".join(f"{now} was {was}" for now, was in moved.moved[:3])
    more = f" and {len(moved.moved) - 3} more" if len(moved.moved) > 3 else ""
    return f"its codes have changed places, by {' and '.join(moved.by)} ({shown}{more})"


def _of(units: Units, rows: NDArray[np.intp]) -> Units:
    return None if units is None else units[rows]


def _spaced(side: Side) -> Side:
    """At most as many rows as are looked at; first those with a label."""
    known = ~np.isnan(side.truth).any(axis=1)
    with_, without = np.flatnonzero(known), np.flatnonzero(~known)
    rows = with_[spaced(len(with_))]
    room = len(spaced(len(known))) - len(rows)
    rows = np.sort(np.concatenate([rows, without[spaced(len(without), room)]])) if room else rows
    return Side(
        {name: column[rows] for name, column in side.columns.items()}, side.truth[rows],
        _of(side.units, rows), None if side.at is None else side.at[rows],
    )  # fmt: skip

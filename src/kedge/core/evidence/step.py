"""Step of a comparison: its restarts, counts and certificates.

A step is the time at one weight. Only callers whose assignment it decides count in it: those whose
bucket lies between the next smaller and the next larger weight so far (`low`, `high`).
Their designed share is (weight - low) / (high - low). Requests without an entity are assigned anew
each time, with the weight itself; in pairs both releases answer, and the share is one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kedge.core.evidence import bets, stats
from kedge.core.evidence.dependence import Dependence
from kedge.core.evidence.stats import BETS, Floats
from kedge.core.evidence.units import Units
from kedge.core.values import BUCKETS, Value

HOUR, DAY = 6, stats.DAY_RESTARTS
"""Restarts in an hour, in a day."""
DAYS = 60
"""Restarts on a full day that are kept: twice the longest wait for a label."""
TRACKED = 100_000
"""Callers of one step whose first request is known, 8 bytes each. Beyond it the realised share is
not used. Later callers are not tracked, whatever their arm."""
SECONDS = 3
"""Separate seconds with a bad unit of the candidate before an alarm."""

Ints = NDArray[np.int64]


TAIL = 9
"""Number of the last places of a row of `means`: units, losses and squares of production, of the
candidate, and of the pairs' differences."""


class Span(NamedTuple):
    """The callers that a step decides on, in buckets, and the designed shares."""

    low: int
    high: int
    callers: float
    """The designed share of callers in [low, high); 0 or 1: the step decides on none."""
    keyless: float
    paired: bool = False

    def decides(self, bucket: int) -> bool:
        """Return whether this step decided the arm of a caller with this bucket."""
        return self.paired or self.low <= bucket < self.high


def span(weight: int, known: Sequence[int], *, paired: bool) -> Span:
    """Return the callers that a step at this weight decides on, given the other weights so far."""
    if paired:
        return Span(0, BUCKETS, 0.5, 0.5, paired=True)
    low = max((w for w in known if w < weight), default=0)
    high = min((w for w in known if w > weight), default=BUCKETS)
    share = (weight - low) / (high - low) if high > low else 0.0
    return Span(low, high, share, weight / BUCKETS)


def live(elapsed: float) -> list[int]:
    """Return which restarts are alive after so many seconds, in order.

    Restarts on ten minutes live an hour, those on a full hour a day. Those on a full day live for
    ever (the newest `DAYS`). So bets that are a sixth of its age find a late regression.
    """
    newest = stats.restarts(elapsed)
    found = set(range(0, newest + 1, DAY)[-DAYS:])
    found |= {0}
    found |= {k for k in range(max(newest - DAY + 1, 0), newest + 1) if k % HOUR == 0}
    found |= set(range(max(newest - HOUR + 1, 0), newest + 1))
    return sorted(found)


class KeptStep(Value, frozen=True, kw_only=True):
    """A step as it is saved."""

    weight: int
    span: tuple[int, int, float, float, bool]
    began: float
    share: float
    looks: int
    restarts: tuple[int, ...]
    rows: int
    arrays: dict[str, bytes]
    units: dict[str, bytes]
    sigma: float
    dropped: int
    tracked: bytes
    heard: bytes
    leads: dict[int, bytes]
    wealth: dict[int, bytes]
    means: dict[int, bytes]
    dependence: bytes
    given: tuple[int, int]
    labelled: tuple[int, int]


_ARRAYS: dict[str, tuple[tuple[int, ...], type[Any]]] = {
    "seconds": ((SECONDS,), np.float64),
    "bad": ((2,), np.int64),
    "steady": ((2,), np.int64),
    "both": ((), np.int64),
    "met": ((2,), np.int64),
    "asked": ((2,), np.int64),
    "first": ((2,), np.int64),
    "went": ((2,), np.int64),
    "lead": ((3,), np.int64),
    "best": ((), np.float64),
    "uneven": ((), np.bool_),
}
"""Arrays of a step, one row for each (metric, segment):
seconds -- the newest separate seconds in which a unit of the candidate went bad
bad     -- bad requests without an entity, by arm
steady  -- the same without production's bursts, for the certificate
both    -- labelled pairs without an entity that both releases had wrong
met     -- requests without an entity, by arm
asked   -- callers that the step decides on and that asked, by arm
first   -- all callers of the candidate that asked, and those whose first request went bad
went    -- callers that went bad at least once, by arm
lead    -- callers that the step decides on whose first request, or first label, was bad: of production, of
           the candidate, and in pairs of both
best    -- logarithm of the alarm's evidence, scaled so that it sounds at 1/alpha
uneven  -- whether labels that come by arm and outcome could explain this row's alarm
"""


_NOTHING = {"seconds": -inf, "best": -inf}
"""Initial values of the arrays where they are not 0."""


class Step:
    """Counts and bets of one step."""

    def __init__(
        self, weight: int, of: Span, began: float, share: float, tracked: int = TRACKED
    ) -> None:
        self.weight = weight
        self.span = of
        self.began = began
        self.share = share
        """Its part of alpha."""
        self.looks = 0
        self.restarts: list[int] = [0]
        self.rows = 0
        self.counts: NDArray[np.int32] = np.zeros((0, 1, bets.LABELS), np.int32)
        self.arrays: dict[str, NDArray[Any]] = {
            name: np.zeros((0, *shape), dtype) for name, (shape, dtype) in _ARRAYS.items()
        }
        self.units = Units()
        self._room = tracked
        self._tracked: set[int] = set()
        self._heard: set[int] = set()
        self.leads: dict[int, Floats] = {}
        """By row of losses: the certificate's log-wealth of callers' first labels, (MEANS,)."""
        self.wealth: dict[int, Floats] = {}
        """By row of losses: log-wealth of the bets of each restart, (K, BETS)."""
        self.means: dict[int, Floats] = {}
        """By row of labels: the certificate's log-wealth of requests without an entity, then sums
        of every label (`TAIL`)."""
        self.dependence = Dependence()
        self.given: Ints = np.zeros(2, dtype=np.int64)
        """Answered predictions, by arm."""
        self.labelled: Ints = np.zeros(2, dtype=np.int64)
        """Answered predictions with a label, by arm."""
        self.proof: dict[tuple[str, int], float] = {}
        """By guardrail and row: the callers' certificate at the newest look."""
        self._ticks()

    # ------------------------------------------------------------ time

    def _ticks(self) -> None:
        self.begins = self.began + stats.RESTART_S * np.array(self.restarts, dtype=np.float64)
        self.log_stakes = np.log([stats.stake(k) for k in self.restarts])

    def advance(self, at: float) -> None:
        """Begin the restarts that are due and drop those that are too old."""
        if at - self.began < (self.restarts[-1] + 1) * stats.RESTART_S:
            return
        now = live(at - self.began)
        old = {k: place for place, k in enumerate(self.restarts)}
        kept = [(new, old[k]) for new, k in enumerate(now) if k in old]
        to, of = [new for new, _ in kept], [before for _, before in kept]
        counts = np.zeros((self.rows, len(now), bets.LABELS), np.int32)
        counts[:, to] = self.counts[:, of]
        for row, wealth in self.wealth.items():
            more = np.zeros((len(now), BETS))
            more[to] = wealth[of]
            self.wealth[row] = more
        self.counts, self.restarts = counts, now
        self._ticks()

    def look_due(self, at: float) -> bool:
        """Return whether a look at callers' counts is due; missed looks count as one."""
        due = self.looks
        while due < bets.LOOKS and at - self.began >= bets.LOOK_S[due]:
            due += 1
        if due == self.looks:
            return False
        self.looks = due
        return True

    # ------------------------------------------------------------ rows

    def grow(self, rows: int) -> None:
        """Make room for new rows."""
        more = rows - self.rows
        if more <= 0:
            return
        self.counts = np.concatenate(
            [self.counts, np.zeros((more, len(self.restarts), bets.LABELS), np.int32)]
        )
        for name, (shape, dtype) in _ARRAYS.items():
            new: NDArray[Any] = np.full((more, *shape), _NOTHING.get(name, 0), dtype)
            self.arrays[name] = np.concatenate([self.arrays[name], new])
        self.rows = rows

    def fresh_from(self, before: float) -> int:
        """Return the first restart in which a caller counts that was last counted at this time."""
        return int(np.searchsorted(self.begins, before, side="right"))

    def caller(
        self,
        rows: Sequence[int],
        unit: int,
        arm: int,
        at: float,
        *,
        ours: float,
        theirs: float,
        labelled: bool = True,
        alarm: float | None = None,
    ) -> None:
        """Count a caller's badness in some rows.

        Args:
            rows: rows of the metric.
            unit: the caller.
            arm: its arm.
            at: time of the event.
            ours: badness on production, for the certificate.
            theirs: badness on the candidate.
            labelled: whether it is an event of the alarm.
            alarm: badness for the alarm, by default both.
        """
        if self.units.ignored(unit):
            return
        for row in rows:
            if not labelled:
                self.units.add(row, unit, arm, ours, theirs)
                continue
            before = self.units.count(
                row, unit, arm, at, ours, theirs, ours + theirs if alarm is None else alarm
            )
            if before == -inf:
                self.arrays["went"][row, arm] += 1
            begin = self.fresh_from(before)
            self.counts[row, begin:, bets.CALLERS] += 1
            if arm:
                self.counts[row, begin:, bets.CANDIDATE] += 1

    def burst(
        self, rows: Sequence[int], unit: int, arm: int, at: float, ours: float, theirs: float
    ) -> None:
        """Count many bad units of one arm in one second as one event with a share of a half."""
        if self.units.ignored(unit):
            return
        for row in rows:
            before = self.units.count(row, unit, arm, at, ours, theirs, 0.0)
            self.arrays["went"][row, arm] += before == -inf
            begin = self.fresh_from(before)
            self.counts[row, begin:, bets.BURSTS] += 1
            self.counts[row, begin:, bets.CANDIDATE] += arm

    def bursts(self, rows: NDArray[np.intp], arm: int) -> None:
        """Count a burst of requests without an entity as one event."""
        self.counts[rows, :, bets.BURSTS] += 1
        self.counts[rows, :, bets.CANDIDATE] += arm

    def spread(self, rows: Sequence[int] | NDArray[np.intp], at: float) -> None:
        """Remember the second in which a unit of the candidate went bad."""
        seconds = self.arrays["seconds"]
        of = np.asarray(rows, dtype=np.intp)
        of = of[seconds[of, 0] != at]
        seconds[of, 1:] = seconds[of, :-1]
        seconds[of, 0] = at

    def keyless(self, rows: NDArray[np.intp], cells: Ints) -> None:
        """Count bad requests without an entity: rows (n,), cells (n, 2) by arm."""
        self.counts[rows, :, bets.KEYLESS] += cells.sum(axis=1).astype(np.int32)[:, None]
        self.counts[rows, :, bets.CANDIDATE] += cells[:, 1].astype(np.int32)[:, None]

    def track(self, unit: int) -> bool:
        """Track a caller at its first request in this step; False: already tracked or no room."""
        if unit in self._tracked or len(self._tracked) >= self._room:
            return False
        self._tracked.add(unit)
        return True

    def ask(
        self,
        rows: Sequence[int],
        bucket: int,
        arm: int,
        *,
        bad: bool,
        ours: bool = False,
        steady: bool = True,
    ) -> None:
        """Count a tracked caller's first request in some rows of one metric.

        `ours`: in a pair, that production's answer was bad; `steady`: it was no burst of production's.
        """
        decided, theirs = self.span.decides(bucket), bool(arm) or self.span.paired
        leads = self.arrays["lead"]
        for row in rows:
            if self.span.paired:
                leads[row, 0] += ours and steady
                leads[row, 1] += bad
            elif decided and bad and (arm or steady):
                leads[row, arm] += 1
            if self.span.paired:
                self.arrays["asked"][row] += 1
            elif decided:
                self.arrays["asked"][row, arm] += 1
            if theirs:
                self.arrays["first"][row, 0] += 1
                self.arrays["first"][row, 1] += bad

    def heard(self, unit: int) -> bool:
        """Return whether this is a caller's first label in this step; false beyond the bound."""
        if unit in self._heard or len(self._heard) >= self._room:
            return False
        self._heard.add(unit)
        return True

    @property
    def tracked(self) -> int:
        """Return how many callers asked in this step, up to the bound."""
        return len(self._tracked)

    @property
    def heard_of(self) -> int:
        """Return how many callers have a label in this step, up to the bound."""
        return len(self._heard)

    @property
    def uneven(self) -> bool:
        """Return whether only production's missing labels keep an alarm of labels from sounding."""
        return bool(self.arrays["uneven"].any())

    def known(self, row: int) -> tuple[int, int] | None:
        """Return how many callers asked, by arm; None where not all of them are known."""
        if self.units.sigma < 1 or len(self._tracked) >= self._room:
            return None
        ours, theirs = self.arrays["asked"][row].tolist()
        return ours, theirs

    def theirs(self, rows: NDArray[np.intp], *, losses: bool) -> Ints:
        """Return the candidate's bad units by row and restart, (n, K); of losses, its labels."""
        if losses:
            labels = self.arrays["met"][rows, 1].astype(np.int64)
            return np.repeat(labels[:, None], len(self.restarts), axis=1)
        return self.counts[rows, :, bets.CANDIDATE].astype(np.int64)

    # ------------------------------------------------------------ losses

    @property
    def kind(self) -> int:
        """Return the count that takes labels of unknown units: the callers' where there are any."""
        return bets.CALLERS if len(self.units) else bets.KEYLESS

    def missing(self, arm: int) -> float:
        """Return how many labels more one arm would have at the other one's coverage.

        One standard error is added. By chance alone half of the arms with missing labels look
        covered. Production's wrong labels that come two hours late would then still fail in 4 % of
        days.
        """
        other = 1 - arm
        given, labelled = self.given.astype(np.float64), self.labelled.astype(np.float64)
        if not given.all():
            return float(given[arm] - labelled[arm]) if given[arm] else 0.0
        both = min(float(labelled.sum() / given.sum()), 1.0)
        spread = float(given[arm]) * sqrt(both * (1 - both) * float((1 / given).sum()))
        covered = float(labelled[other] / given[other] * given[arm]) + spread
        return max(0.0, min(covered, float(given[arm])) - float(labelled[arm]))

    def part_of_labels(self, rows: NDArray[np.intp], arm: int) -> Floats:
        """Return each row's part of an arm's labels, (n,); 1 where there are none yet."""
        if not self.labelled[arm]:
            return np.ones(len(rows))
        return np.asarray(np.minimum(self.arrays["met"][rows, arm] / self.labelled[arm], 1.0))

    def wealth_of(self, row: int) -> Floats:
        """Return the log-wealth of the bets on losses of a row, (K, BETS)."""
        if row not in self.wealth:
            self.wealth[row] = np.zeros((len(self.restarts), BETS))
        return self.wealth[row]

    def sums_of(self, row: int) -> Floats:
        """Return the sums of a row that is judged by labels."""
        if row not in self.means:
            self.means[row] = np.zeros(bets.MEANS + TAIL)
        return self.means[row]

    def answer(self, rows: Sequence[int], arm: int, ours: float, theirs: float) -> None:
        """Count one labelled prediction for the figures that are shown."""
        more = np.zeros(TAIL)
        if self.span.paired:
            apart = theirs - ours
            more[:] = 1, ours, ours * ours, 1, theirs, theirs * theirs, 1, apart, apart * apart
            wrong = (int(ours > theirs), int(theirs > ours))
            labels = (1, 1)
        else:
            loss = theirs if arm else ours
            more[3 * arm : 3 * arm + 3] = 1, loss, loss * loss
            wrong = (int(not arm and loss > 0), int(arm and loss > 0))
            labels = (1 - arm, arm)
        for row in rows:
            self.sums_of(row)[-TAIL:] += more
            self.arrays["met"][row] += labels
            self.arrays["bad"][row] += wrong

    def loss(
        self,
        rows: Sequence[int],
        unit: int | None,
        arm: int,
        at: float,
        ours: float,
        theirs: float,
        share: float,
        worse_by: float,
        *,
        first: bool = False,
    ) -> None:
        """Bet on one unit's loss by its first label in each restart; `first`: also in the step."""
        paired = self.span.paired
        more = (
            bets.pair_steps(theirs - ours)
            if paired
            else bets.mean_steps(theirs if arm else ours, arm, share)
        )
        for row in rows:
            wealth, means = self.wealth_of(row), self.sums_of(row)
            if unit is None:
                wealth += more
                means[:-TAIL] += bets.mean_certificate(ours, theirs, share, worse_by, paired=paired)
                continue
            if first:
                lead = self.leads.setdefault(row, np.zeros(bets.MEANS))
                lead += bets.mean_certificate(ours, theirs, share, worse_by, paired=paired)
            if self.units.ignored(unit):
                continue
            wealth[self.fresh_from(self.units.count(row, unit, arm, at, ours, theirs, 0.0)) :] += (
                more
            )

    def forget_labels(self, rows: Sequence[int]) -> None:
        """Drop every label, and the evidence of the rows that labels judge."""
        of = [row for row in rows if row < self.rows]
        self.counts[of] = 0
        for name, array in self.arrays.items():
            array[of] = _NOTHING.get(name, 0)
        for row in of:
            self.leads.pop(row, None)
            self.wealth.pop(row, None)
            self.means.pop(row, None)
            self.proof = {key: value for key, value in self.proof.items() if key[1] != row}
        self.units.remove(of)
        self._heard.clear()
        self.dependence = Dependence()
        self.labelled[:] = 0

    # ------------------------------------------------------------ keeping

    def save(self) -> KeptStep:
        """Return everything as bytes and numbers."""
        arrays = {name: self.arrays[name].tobytes() for name in _ARRAYS}
        return KeptStep(
            weight=self.weight,
            span=(*self.span,),
            began=self.began,
            share=self.share,
            looks=self.looks,
            restarts=tuple(self.restarts),
            rows=self.rows,
            arrays={**arrays, "counts": self.counts.tobytes()},
            units=self.units.save(),
            sigma=self.units.sigma,
            dropped=self.units.dropped,
            tracked=np.array(sorted(self._tracked), dtype=np.uint64).tobytes(),
            heard=np.array(sorted(self._heard), dtype=np.uint64).tobytes(),
            leads={row: found.tobytes() for row, found in self.leads.items()},
            wealth={row: found.tobytes() for row, found in self.wealth.items()},
            means={row: found.tobytes() for row, found in self.means.items()},
            dependence=self.dependence.save(),
            given=(int(self.given[0]), int(self.given[1])),
            labelled=(int(self.labelled[0]), int(self.labelled[1])),
        )


def load(kept: KeptStep) -> Step:
    """Return the step that was saved."""
    step = Step(kept.weight, Span(*kept.span), kept.began, kept.share)
    step.looks, step.restarts, step.rows = kept.looks, list(kept.restarts), kept.rows
    count = len(step.restarts)
    step.counts = (
        np.frombuffer(kept.arrays["counts"], np.int32).reshape(kept.rows, count, bets.LABELS).copy()
    )
    for name, (shape, dtype) in _ARRAYS.items():
        found: NDArray[Any] = np.frombuffer(kept.arrays[name], dtype)
        step.arrays[name] = found.reshape(kept.rows, *shape).copy()
    step.units.load(kept.units, kept.sigma, kept.dropped)
    # The fields belong to this module.
    step._tracked = set(np.frombuffer(kept.tracked, np.uint64).tolist())  # noqa: SLF001
    # The fields belong to this module.
    step._heard = set(np.frombuffer(kept.heard, np.uint64).tolist())  # noqa: SLF001
    step.leads = {row: np.frombuffer(found).copy() for row, found in kept.leads.items()}
    step.wealth = {
        row: np.frombuffer(found).reshape(count, BETS).copy() for row, found in kept.wealth.items()
    }
    step.means = {row: np.frombuffer(found).copy() for row, found in kept.means.items()}
    step.dependence = Dependence(kept.dependence)
    step.given, step.labelled = np.array(kept.given), np.array(kept.labelled)
    step._ticks()  # noqa: SLF001 - its own module
    return step

"""Observations into windows: off the way of a request, bounded, a second at a time.

The serving loop only appends a tuple to a list (`offer`). A thread of its own takes the list once
a second and counts: distinct units exposed, units gone bad, pairs that agree, by segment. What does
not fit is dropped and counted, never waited for.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from kedge.core.costs import cost_of, prices_of
from kedge.core.records import JoinRow
from kedge.core.route import key_of
from kedge.core.values import Output, Prices, State
from kedge.core.windows import (
    CANDIDATE,
    METRICS,
    PRODUCTION,
    Agreement,
    BadUnit,
    Example,
    Spent,
    Window,
)
from kedge.engine.agreement import NUMBERS, Said, all_said, bin_of, judge_of
from kedge.engine.custom import Agree

if TYPE_CHECKING:
    from kedge.engine.serving import Request
    from kedge.ports import Columns

BOUND = 16_384
"""Observations waiting in one worker: more than a second of what one worker can answer."""
ROWS = 50_000
"""Rows in them: some 40 MB, and half a second of counting. A batch job would fill the first bound
with a thousand times as much."""
EXPOSURE_S = 10
"""A unit is exposed once in so many seconds: a caller that asks a thousand times a second is one
unit at risk, and would otherwise weigh as a thousand against its one possible failure."""
VALUES = 200
"""Values of one segment field that a worker tells apart; the rest is `other`. A thousand cells a
window is what a second may cost to write."""
UNITS = 512
"""Bad units in one window. Above it the smallest hashes are kept: the same rule for both arms."""
FRESH = 200_000
"""Units whose first request is remembered for checking the split: 20 MB at most, then it rests."""
EXAMPLES = 3
"""Disagreements kept as examples in one window."""
SLOW_FLOOR_US = 5_000
"""A request is slow only if it is this much above the quantile: less than that, a caller across a
network cannot feel, and a process woken up from sleep already differs from code inline."""


VIOLATIONS = METRICS.index("violations")
PAIR = 2
"""Beside the two arms: a request that counts for both."""

_pack = msgspec.msgpack.Encoder().encode


class Seen(NamedTuple):
    """One answered request, as the serving loop saw it."""

    at: float
    request: Request
    arm: int
    micros: int
    failed: bool
    weight: int
    """The stratum it was answered in, in buckets."""
    ours: Columns | None = None
    mirrored: bool = False
    theirs: Columns | None = None
    their_micros: int = 0
    dropped: bool = False
    """The copy was never asked, for our own bounds' sake: nobody's failure, but no coverage."""
    again: bool = False
    """`theirs` is production's own second answer: its noise, and nobody's evidence."""
    violated: bool = False
    """A feature of it was not as its schema promises."""
    their_violated: bool = False


class Bounds(NamedTuple):
    """Above these a request is slow, in microseconds; 0 while production's own are unknown."""

    p50: int = 0
    p99: int = 0


Cut = tuple[list[tuple[str, ...]], tuple[str, ...]]
"""The segments of each row, and where the request counts."""

Answers = tuple[list[Said] | None, list[Said] | None]
"""What production and the copy say, by row; None where there is no answer."""


class Slices:
    """The segments of requests, with a bound on how many values each field may have."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        self._known: dict[str, dict[Any, str]] = {field: {} for field in fields}
        # One more "=" in a field, and two fields could share a segment.
        self._plain = not any("=" in field for field in fields)
        self.other = 0

    def cut(self, columns: Columns, rows: int) -> Cut:
        """The segments of each row of a request, and where the request counts.

        That is everywhere (`""`), then in each of its rows' segments once.
        """
        if rows != 1 or not self._plain:
            segments = [self.of(columns, row) for row in range(rows)]
            return segments, ("", *sorted({name for row in segments for name in row}))
        try:
            names = tuple([known[columns[field].item()] for field, known in self._known.items()])
        except (KeyError, TypeError, ValueError):  # a new value, a list, a field that is not there
            names = self.of(columns, 0)
        return [names], ("", *names)

    def of(self, columns: Columns, row: int) -> tuple[str, ...]:
        """The segments of one row, as `field=value`."""
        found = []
        for field, known in self._known.items():
            column = columns.get(field)
            if column is None or row >= len(column):
                continue
            # Python's own values are hashed several times faster than NumPy's.
            value = column.item(row) if column.ndim == 1 else str(column[row])
            try:
                label = known.get(value)
            except TypeError:  # a list in a column of objects
                value = str(value)
                label = known.get(value)
            if label is None:
                label = self._learnt(field, value, column[row])
            found.append(label)
        return tuple(found)

    def _learnt(self, field: str, value: Any, shown: Any) -> str:
        known = self._known[field]
        if value is None or value != value:  # noqa: PLR0124 - NaN, which no dict finds again
            return f"{field}=null"
        if len(known) >= VALUES:
            self.other += 1
            return f"{field}=other"
        known[value] = f"{field}={str(shown)[:64]}"
        return known[value]


class Log:
    """Which predictions are kept with their inputs, for a replay: those of sampled units."""

    def __init__(self, state: State) -> None:
        policy = state.policy.log
        self._below = int(policy.sample / 100 * 2**64)
        self._hidden = frozenset(policy.redact)

    def keeps(self, unit: str) -> bool:
        """Whether a unit is sampled: always the same ones, so that all of a unit is there."""
        if self._below >= 2**64 or self._below <= 0:
            return self._below > 0
        digest = blake2b(unit.encode(errors="surrogatepass"), digest_size=8, key=b"log").digest()
        return int.from_bytes(digest) < self._below

    def inputs(self, columns: Columns, row: int) -> bytes:
        """One row of the inputs, without what is redacted; empty when it cannot be written."""
        try:
            return _pack({
                name: column[row : row + 1].tolist()[0] for name, column in columns.items()
                if name not in self._hidden and row < len(column)
            })  # fmt: skip
        except (TypeError, ValueError):
            return b""


class Counter:
    """Turns the observations of one comparison on one replica into windows."""

    def __init__(self, replica: str, state: State) -> None:
        self._replica = replica
        self._state = state
        self._output: Output = state.policy.output
        self._key = key_of(state.salt)
        self._log = Log(state)
        self._whole = self._output.kind == "custom" or (
            self._output.kind == "exact" and self._output.score is None
        )
        """Whether all outputs are compared, and not one score or decision."""
        self._agrees: Agree = judge_of(self._output)
        self._prices = tuple(self._price(release) for release in (state.production, state.compared))
        self._slices = Slices(state.policy.segments)
        self._span = -1
        self._exposed: dict[str, _Names] = {}
        self._answered: dict[str, _Names] = {}
        self._known: set[str] = set()

    def _price(self, release: int | None) -> Prices | None:
        cost = self._state.policy.cost
        found = self._state.releases.get(release) if release is not None else None
        return prices_of(cost, found.version) if cost is not None and found is not None else None

    def window(
        self, seen: Iterable[Seen], at: int, bounds: Bounds, *, number: int, paired: bool, weight: int,
        lost: int, streak: int, broken: int,
    ) -> tuple[Window, list[JoinRow]]:  # fmt: skip
        """Count one second's observations. `at` is that second; `weight` the stratum in buckets."""
        if at // EXPOSURE_S != self._span:
            self._span = at // EXPOSURE_S
            self._exposed.clear()
            self._answered.clear()
        draft = _Draft(paired=paired)
        rows: list[JoinRow] = []
        before = self._slices.other
        for one in seen:
            if one.again:
                self._again(draft, one)
                continue
            segments, slices = self._slices.cut(one.request.columns, one.request.rows)
            answers = self._answers(one)
            if paired:
                self._pair(draft, one, slices, bounds)
                if not one.dropped:
                    self._agree(draft, one, segments, answers)
            else:
                self._single(draft, one, slices, bounds)
            self._record(rows, one, segments, weight, answers)
        state = self._state
        return Window(
            replica=self._replica, number=number, endpoint=state.endpoint, production=state.production or 0,
            candidate=state.compared or 0, salt=state.salt, at=at, weight=weight, paired=paired,
            fresh=None if paired else (draft.fresh[0], draft.fresh[1]),
            exposed=_spread(draft.hits), answered=_spread(draft.timed),
            bad={metric: _frozen(cells) for metric, cells in draft.bad.items()},
            units=tuple(sorted(draft.units, key=lambda unit: unit.unit)[:UNITS]),
            agreement=_agreement(draft.pairs),
            scores={bin_: (int(n), int(w), d, a) for bin_, (n, w, d, a) in draft.scores.items()},
            examples=tuple(draft.examples), costs=draft.costs, noise=(draft.noise[0], draft.noise[1]),
            mirrored=draft.mirrored, copied=draft.copied,
            streak=streak, broken=broken, lost=lost, other=self._slices.other - before,
        ), rows  # fmt: skip

    def logged(self, seen: Iterable[Seen]) -> tuple[list[JoinRow], int]:
        """Rows of sampled units while nothing is compared; and how many could not be written."""
        rows: list[JoinRow] = []
        for one in seen:
            if one.ours is not None and self._log.keeps(one.request.entity or one.request.id):
                segments, _ = self._slices.cut(one.request.columns, one.request.rows)
                self._record(rows, one, segments, 0, self._answers(one))
        return rows, sum(not row.inputs for row in rows)

    def _pair(self, draft: _Draft, one: Seen, slices: tuple[str, ...], bounds: Bounds) -> None:
        """A request that both releases were asked: only what differs between them is bad."""
        self._spend(draft, one, slices)
        draft.mirrored += 1
        if one.dropped:
            return
        copied = one.theirs is not None
        draft.copied += copied
        both = copied and not one.failed
        unit = one.request.entity or ""
        self._exposure(draft, unit, slices, PAIR, latency=both)
        if one.failed == copied:
            self._bad(draft, 0, PRODUCTION if one.failed else CANDIDATE, unit, slices)
        if both:
            for metric, bound in ((1, bounds.p50), (2, bounds.p99)):
                if bound and (one.micros > bound) != (one.their_micros > bound):
                    arm = PRODUCTION if one.micros > bound else CANDIDATE
                    self._bad(draft, metric, arm, unit, slices)
            if one.violated != one.their_violated:
                arm = PRODUCTION if one.violated else CANDIDATE
                self._bad(draft, VIOLATIONS, arm, unit, slices)

    def _single(self, draft: _Draft, one: Seen, slices: tuple[str, ...], bounds: Bounds) -> None:
        """A request that one of the releases was asked."""
        self._spend(draft, one, slices)
        unit, arm = one.request.entity or "", one.arm
        self._split(draft, unit, arm)
        self._exposure(draft, unit, slices, arm, latency=not one.failed)
        if one.failed:
            self._bad(draft, 0, arm, unit, slices)
            return
        if bounds.p50 and one.micros > bounds.p50:
            self._bad(draft, 1, arm, unit, slices)
        if bounds.p99 and one.micros > bounds.p99:
            self._bad(draft, 2, arm, unit, slices)
        if one.violated:
            self._bad(draft, VIOLATIONS, arm, unit, slices)

    def _again(self, draft: _Draft, one: Seen) -> None:
        if one.ours is not None and one.theirs is not None:
            same = self._agrees(one.ours, one.theirs, one.request.rows)
            draft.noise[0] += len(same)
            draft.noise[1] += sum(same)

    def _spend(self, draft: _Draft, one: Seen, slices: tuple[str, ...]) -> None:
        """Add what the request cost, to the arm that answered; in pairs where both did."""
        if self._state.policy.cost is None or one.failed or one.ours is None:
            return
        if draft.paired and one.theirs is None:
            return
        answers = [(one.arm, one.ours, one.micros)]
        if draft.paired and one.theirs is not None:
            answers.append((CANDIDATE, one.theirs, one.their_micros))
        both = [(0, 0.0, 0.0), (0, 0.0, 0.0)]
        for arm, columns, micros in answers:
            cost = self._cost(arm, columns, one.request.rows, micros)
            both[arm] = (1, cost, cost * cost)
        spent = Spent(*both)
        for name in slices:
            draft.costs[name] = draft.costs.get(name, Spent()).plus(spent)

    def _cost(self, arm: int, columns: Columns, rows: int, micros: int) -> float:
        cost, prices = self._state.policy.cost, self._prices[arm]
        if cost is None or prices is None:
            return 0.0
        used = [
            float(columns[name].sum())
            if name is not None and name in columns and columns[name].dtype.kind in NUMBERS
            else 0.0
            for name in (cost.tokens, cost.reported)
        ]
        return cost_of(prices, rows=rows, micros=micros, tokens=used[0], reported=used[1])

    def _split(self, draft: _Draft, unit: str, arm: int) -> None:
        """Count a unit's first request: the split is checked on units, each once."""
        if unit:
            if unit in self._known or len(self._known) >= FRESH:
                return
            self._known.add(unit)
        draft.fresh[arm] += 1

    def _exposure(
        self, draft: _Draft, unit: str, slices: tuple[str, ...], arm: int, *, latency: bool
    ) -> None:
        """Count a unit as exposed: once a span when it has a name, else every time."""
        new = _unseen(self._exposed, unit, slices) if unit else slices
        if new:
            draft.hits[arm].append(new)
        if latency:
            new = _unseen(self._answered, unit, slices) if unit else slices
            if new:
                draft.timed[arm].append(new)

    def _bad(
        self, draft: _Draft, metric: int, arm: int, unit: str, slices: tuple[str, ...]
    ) -> None:
        if unit:
            digest = blake2b(unit.encode(errors="surrogatepass"), digest_size=8, key=self._key)
            number = int.from_bytes(digest.digest()) >> 1  # a signed 64-bit column holds it
            draft.units.append(BadUnit(number, metric, arm, slices[1:]))
            return
        for name in slices:
            draft.bad.setdefault(METRICS[metric], {}).setdefault(name, [0, 0])[arm] += 1

    def _answers(self, one: Seen) -> Answers:
        """What both sides say, row by row: read once, for the comparison and for the record."""
        rows = one.request.rows
        ours = None if one.ours is None else all_said(self._output, one.ours, rows)
        if one.theirs is None or one.again:
            return ours, None
        return ours, all_said(self._output, one.theirs, rows)

    def _agree(
        self, draft: _Draft, one: Seen, segments: list[tuple[str, ...]], answers: Answers
    ) -> None:
        """Compare the two answers row by row; a copy that did not answer disagrees."""
        alike: Sequence[bool] | None = None
        if self._whole and one.ours is not None and one.theirs is not None:
            alike = self._agrees(one.ours, one.theirs, one.request.rows)
        for row, names in enumerate(segments):
            if answers[0] is None or answers[1] is None:
                draft.pairs.setdefault(MISSING, []).append(names)
                continue
            ours, theirs = answers[0][row], answers[1][row]
            same = ours.same(theirs, self._output) if alike is None else bool(alike[row])
            said_so = (same, ours.yes, theirs.yes)
            draft.pairs.setdefault(said_so, []).append(names)
            if ours.score is not None and theirs.score is not None:
                apart = theirs.score - ours.score
                bin_ = draft.scores.setdefault(bin_of(ours.score), [0, 0, 0.0, 0.0])
                bin_[0] += 1
                bin_[1] += same
                bin_[2] += apart
                bin_[3] += abs(apart)
            if not same and len(draft.examples) < EXAMPLES:
                draft.examples.append(Example(
                    f"{one.request.id}/{row}", names, ours.text(), theirs.text()
                ))  # fmt: skip

    def _record(
        self, rows: list[JoinRow], one: Seen, segments: list[tuple[str, ...]], weight: int,
        answers: Answers,
    ) -> None:  # fmt: skip
        """One join row a prediction, for the outcome that may come in a month."""
        if answers[0] is None or not one.request.id or one.again:
            return
        state = self._state
        keep = self._log.keeps(one.request.entity or one.request.id)
        for row, names in enumerate(segments):
            ours = answers[0][row]
            theirs = answers[1][row] if answers[1] is not None else None
            rows.append(JoinRow(
                id=f"{one.request.id}/{row}", at=one.at, unit=one.request.entity or "",
                endpoint=state.endpoint, production=state.production or 0, candidate=state.compared,
                salt=state.salt, weight=weight,
                arm="production" if one.arm == PRODUCTION or one.failed else "candidate",
                failed=one.failed, segments=names, score=ours.score, decision=ours.decision,
                shadow_score=theirs.score if theirs else None,
                shadow_decision=theirs.decision if theirs else None, paired=theirs is not None,
                inputs=self._log.inputs(one.request.columns, row) if keep else b"",
            ))  # fmt: skip


class _Draft:
    """A window in the making."""

    __slots__ = ("bad", "copied", "costs", "examples", "fresh", "hits", "mirrored", "noise",
                 "paired", "pairs", "scores", "timed", "units")  # fmt: skip

    def __init__(self, *, paired: bool) -> None:
        self.paired = paired
        self.fresh = [0, 0]
        self.noise = [0, 0]
        self.costs: dict[str, Spent] = {}
        self.hits: _Hits = ([], [], [])
        """Where units were exposed, by arm and, last, in pairs; counted all at once at the end."""
        self.timed: _Hits = ([], [], [])
        self.bad: dict[str, dict[str, list[int]]] = {}
        self.units: list[BadUnit] = []
        self.pairs: _Pairs = {}
        """By what the two said: the segments of each row. Counted all at once at the end."""
        self.scores: dict[int, list[float]] = {}
        self.examples: list[Example] = []
        self.mirrored = 0
        self.copied = 0


def _frozen(cells: dict[str, list[int]]) -> dict[str, tuple[int, int]]:
    return {name: (cell[0], cell[1]) for name, cell in cells.items()}


_Names = tuple[str, ...] | set[str]
MISSING = None
"""The copy of a pair said nothing."""
_Pairs = dict[tuple[bool, bool, bool] | None, list[tuple[str, ...]]]
"""By (alike, production says yes, the copy says yes)."""
_Hits = tuple[list[tuple[str, ...]], list[tuple[str, ...]], list[tuple[str, ...]]]


def _unseen(known: dict[str, _Names], unit: str, slices: tuple[str, ...]) -> tuple[str, ...]:
    """Those slices where the unit was not counted in this span; it is now."""
    before = known.get(unit)
    if before is None:
        known[unit] = slices
        return slices
    if before is slices or before == slices:
        return ()
    names = before if isinstance(before, set) else set(before)
    new = tuple(name for name in slices if name not in names)
    names.update(new)
    known[unit] = names
    return new


def _spread(hits: _Hits) -> dict[str, tuple[int, int]]:
    """Count in each slice. The loops are C's: nothing of this module took as long in Python."""
    ours, theirs, both = (Tally(chain.from_iterable(found)) for found in hits)
    if both:
        ours.update(both)
        theirs.update(both)
    cells = {name: (times, theirs.get(name, 0)) for name, times in ours.items()}
    cells.update((name, (0, times)) for name, times in theirs.items() if name not in ours)
    return cells


def _agreement(pairs: _Pairs) -> dict[str, Agreement]:
    """The table of each segment."""
    cells: dict[str, list[int]] = {"": [0] * 7} if pairs else {}
    for said_so, rows in pairs.items():
        if said_so is MISSING:
            places = [6]
        else:
            same, ours, theirs = said_so
            places = [2 + (0 if ours and theirs else 1 if ours else 2 if theirs else 3)]
            places += [1] * same
        counts = Tally(chain.from_iterable(rows))
        counts[""] = len(rows)
        for name, times in counts.items():
            cell = cells.setdefault(name, [0] * 7)
            for place in (0, *places):
                cell[place] += times
    return {name: Agreement(*cell) for name, cell in cells.items()}

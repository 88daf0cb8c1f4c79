"""Observations into windows: off the way of a request, bounded, a second at a time.

The serving loop only appends a tuple to a list (`offer`). A thread of its own takes the list once
a second and counts: distinct units exposed, units gone bad, pairs that agree, by segment. What does
not fit is dropped and counted, never waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
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
from kedge.engine.agreement import NUMBERS, Said, bin_of, judge_of, said
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


CUTS = 10_000
"""Sets of segments that are remembered in one piece; a day's traffic of most endpoints has fewer."""

Answers = tuple[list[Said] | None, list[Said] | None]
"""What production and the copy say, by row; None where there is no answer."""


class Slices:
    """The segments of requests, with a bound on how many values each field may have."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        self._known: dict[str, dict[Any, str]] = {field: {} for field in fields}
        self._cuts: dict[tuple[str, ...], tuple[str, ...]] = {}
        self.other = 0

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

    def union(self, segments: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        """Where a request counts: everywhere (`""`), then each of its rows' segments once."""
        if len(segments) != 1:
            return ("", *sorted({name for row in segments for name in row}))
        cut = self._cuts.get(segments[0])
        if cut is None:
            if len(self._cuts) >= CUTS:
                self._cuts.clear()
            cut = self._cuts[segments[0]] = ("", *sorted(set(segments[0])))
        return cut


class Log:
    """Which predictions are kept with their inputs, for a replay: those of sampled units."""

    def __init__(self, state: State) -> None:
        policy = state.policy.log
        self._below = int(policy.sample / 100 * 2**64)
        self._hidden = frozenset(policy.redact)

    def keeps(self, unit: str) -> bool:
        """Whether a unit is sampled: always the same ones, so that all of a unit is there."""
        if self._below >= 2**64:
            return True
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
            segments = [
                self._slices.of(one.request.columns, row) for row in range(one.request.rows)
            ]
            answers = self._answers(one)
            self._one(draft, one, segments, bounds, answers)
            self._record(rows, one, segments, weight, answers)
        state = self._state
        return Window(
            replica=self._replica, number=number, endpoint=state.endpoint, production=state.production or 0,
            candidate=state.compared or 0, salt=state.salt, at=at, weight=weight, paired=paired,
            fresh=None if paired else (draft.fresh[0], draft.fresh[1]),
            exposed=_spread(draft.hits), answered=_spread(draft.timed),
            bad={metric: _frozen(cells) for metric, cells in draft.bad.items()},
            units=tuple(sorted(draft.units, key=lambda unit: unit.unit)[:UNITS]),
            agreement={name: Agreement(*cell) for name, cell in draft.agreement.items()},
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
                segments = [
                    self._slices.of(one.request.columns, row) for row in range(one.request.rows)
                ]
                self._record(rows, one, segments, 0, self._answers(one))
        return rows, sum(not row.inputs for row in rows)

    def _one(
        self, draft: _Draft, one: Seen, segments: list[tuple[str, ...]], bounds: Bounds,
        answers: Answers,
    ) -> None:  # fmt: skip
        if one.again:
            self._again(draft, one)
            return
        slices = self._slices.union(segments)
        unit = one.request.entity or ""
        self._spend(draft, one, slices)
        if draft.paired:
            draft.mirrored += 1
            if one.dropped:
                return
            copied = one.theirs is not None
            draft.copied += copied
            self._agree(draft, one, segments, answers)
            arms: tuple[int, ...] = (PRODUCTION, CANDIDATE)
            bad = [(0, one.failed, not copied)]
            if copied and not one.failed:
                bad += _slow(bounds, one.micros, one.their_micros)
                bad.append((VIOLATIONS, one.violated, one.their_violated))
            self._exposure(draft, unit, slices, arms, latency=copied and not one.failed)
            for metric, ours, theirs in bad:
                if ours != theirs:
                    self._bad(draft, metric, CANDIDATE if theirs else PRODUCTION, unit, slices)
            return
        self._split(draft, unit, one.arm)
        self._exposure(draft, unit, slices, (one.arm,), latency=not one.failed)
        if one.failed:
            self._bad(draft, 0, one.arm, unit, slices)
        else:
            for metric, slow, _ in _slow(bounds, one.micros, 0):
                if slow:
                    self._bad(draft, metric, one.arm, unit, slices)
            if one.violated:
                self._bad(draft, VIOLATIONS, one.arm, unit, slices)

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
        self,
        draft: _Draft,
        unit: str,
        slices: tuple[str, ...],
        arms: tuple[int, ...],
        *,
        latency: bool,
    ) -> None:
        """Count a unit as exposed: once a span when it has a name, else every time."""
        new = slices if not unit else _unseen(self._exposed, unit, slices)
        if new:
            hit = (new, arms)
            draft.hits[hit] = draft.hits.get(hit, 0) + 1
        if latency:
            new = slices if not unit else _unseen(self._answered, unit, slices)
            if new:
                hit = (new, arms)
                draft.timed[hit] = draft.timed.get(hit, 0) + 1

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
        rows = range(one.request.rows)
        ours = None if one.ours is None else [said(self._output, one.ours, row) for row in rows]
        if one.theirs is None or one.again:
            return ours, None
        return ours, [said(self._output, one.theirs, row) for row in rows]

    def _agree(
        self, draft: _Draft, one: Seen, segments: list[tuple[str, ...]], answers: Answers
    ) -> None:
        """Compare the two answers row by row; a copy that did not answer disagrees."""
        alike: Sequence[bool] | None = None
        if self._whole and one.ours is not None and one.theirs is not None:
            alike = self._agrees(one.ours, one.theirs, one.request.rows)
        for row, names in enumerate(segments):
            cells = [draft.agreement.setdefault(n, [0] * 7) for n in ("", *names)]
            if answers[0] is None or answers[1] is None:
                for cell in cells:
                    cell[0] += 1
                    cell[6] += 1
                continue
            ours, theirs = answers[0][row], answers[1][row]
            same = ours.same(theirs, self._output) if alike is None else alike[row]
            table = 2 + (
                0 if ours.yes and theirs.yes else 1 if ours.yes else 2 if theirs.yes else 3
            )
            for cell in cells:
                cell[0] += 1
                cell[1] += same
                cell[table] += 1
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


def _slow(bounds: Bounds, ours: int, theirs: int) -> list[tuple[int, bool, bool]]:
    """Which of the two is slow, for each bound that is known."""
    return [(metric, ours > bound, theirs > bound)
            for metric, bound in ((1, bounds.p50), (2, bounds.p99)) if bound]  # fmt: skip


class _Draft:
    """A window in the making."""

    __slots__ = ("agreement", "bad", "copied", "costs", "examples", "fresh", "hits", "mirrored",
                 "noise", "paired", "scores", "timed", "units")  # fmt: skip

    def __init__(self, *, paired: bool) -> None:
        self.paired = paired
        self.fresh = [0, 0]
        self.noise = [0, 0]
        self.costs: dict[str, Spent] = {}
        self.hits: dict[_Hit, int] = {}
        """Units exposed, by all the segments of a request at once; spread over them at the end."""
        self.timed: dict[_Hit, int] = {}
        self.bad: dict[str, dict[str, list[int]]] = {}
        self.units: list[BadUnit] = []
        self.agreement: dict[str, list[int]] = {}
        self.scores: dict[int, list[float]] = {}
        self.examples: list[Example] = []
        self.mirrored = 0
        self.copied = 0


def _frozen(cells: dict[str, list[int]]) -> dict[str, tuple[int, int]]:
    return {name: (cell[0], cell[1]) for name, cell in cells.items()}


_Names = tuple[str, ...] | set[str]
_Hit = tuple[tuple[str, ...], tuple[int, ...]]


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


def _spread(hits: dict[_Hit, int]) -> dict[str, tuple[int, int]]:
    cells: dict[str, list[int]] = {}
    for (slices, arms), times in hits.items():
        for name in slices:
            cell = cells.setdefault(name, [0, 0])
            for arm in arms:
                cell[arm] += times
    return _frozen(cells)

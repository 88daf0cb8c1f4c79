"""Counter of observations: turns them into windows, apart from requests, bounded, each second.

The serving loop only appends a tuple to a list (`offer`). The recording's thread takes the list
once a second and counts: distinct units exposed, units gone bad, pairs that agree, by segment. What
exceeds a bound is dropped and counted, never waited for.

Theory of operation
-------------------
* Some dozens of observations are counted at once (`ObservationColumns`), column by column. Loops in
  C find what is true of all of them (`map`, `zip`, `compress`, a tally). Only unusual ones (a
  failure, a slow request, a unit met twice) are examined singly, in their order of arrival.
* Requests are counted by segment, and those with an entity separately. A caller is reported with
  its first request at a weight, and with each second in which it went bad.
* Between two parts, other threads get the interpreter (`rest`).
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, compress, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from kedge.core.evidence.answers import get_target
from kedge.core.evidence.costs import clipped, cost_of, prices_of
from kedge.core.evidence.records import JoinRow
from kedge.core.evidence.rules import METHOD
from kedge.core.evidence.units import pick
from kedge.core.evidence.windows import (
    CANDIDATE,
    METRICS,
    OURS,
    PRODUCTION,
    Agreement,
    BadUnit,
    Conduct,
    Counts,
    DisagreeingPair,
    FirstAsk,
    Spent,
    Window,
)
from kedge.core.routing import key_of, unit_of
from kedge.core.values import Output, Prices, State
from kedge.engine.recording.agreement import NUMBERS, Sayings, bin_of, judge_of, same_rows
from kedge.engine.recording.custom import Agree, Custom, Pair
from kedge.engine.recording.observation import Observation, ObservationColumns
from kedge.engine.recording.predictions import Predictions
from kedge.engine.recording.segments import Names, Segments
from kedge.engine.recording.unit_costs import UnitCosts

if TYPE_CHECKING:
    from kedge.typing import Columns

BOUND = 16_384
"""Limit of observations that wait in one worker: more than one worker can answer in a second."""
ROWS = 50_000
"""Limit of rows in them: some 40 MB, and a quarter of a second of counting. A batch job would fill
the first limit with a thousand times as much."""
BYTES = 32 << 20
"""Limit of bytes of inputs and answers in them: answers of 4 MB each would fill a gigabyte a
second."""
UNITS = 512
"""Limit of callers of one kind in one window. Above it those with the smallest `pick` are counted,
which does not depend on the arm."""
FRESH = 200_000
"""Limit of callers whose first request is remembered: 64 bytes each, 13 MB, whatever their names.
Above it no caller counts as new."""
EXAMPLES = 3
"""Limit of disagreements stored as examples in one window."""
SLOW_FLOOR_US = 5_000
"""A request is slow only if it exceeds the quantile by this much. A caller across a network cannot
notice less, and a process that wakes up from sleep already differs from inline code."""


PART = 50
"""Observations counted at once: at 6 to 9 us each, recorded, less than half of the millisecond
after which a counting thread must rest. In parts of 200 one costs no less (`count_batch_us`, by
turns)."""
NEVER_US = 1 << 62
"""A latency above that of every request."""
VIOLATIONS = METRICS.index("violations")
QUIET = Conduct()
"""Conduct of a candidate without anything to report."""


class SlowBounds(NamedTuple):
    """Latencies above which a request is slow, in us; 0 while production's own are unknown."""

    p50: int = 0
    p99: int = 0


class Counter:
    """Turns the observations of one comparison on one replica into windows."""

    def __init__(self, replica: str, state: State, rest: Callable[[], None] = lambda: None) -> None:
        self._replica = replica
        self._state = state
        self._rest = rest
        self._output: Output = get_target(state)
        self._key = key_of(state.salt)
        self._predictions = Predictions(state)
        self._whole = self._output.kind == "custom" or (
            self._output.kind == "exact" and self._output.score is None
        )
        """Whether all outputs are compared, instead of one score or decision."""
        self._custom = Custom(self._output) if self._output.kind == "custom" else None
        self._agrees: Agree = self._custom or judge_of(self._output)
        self.uncompared = 0
        """Rows of pairs that the policy's function did not compare: neither alike nor different."""
        self._prices = tuple(self._price(release) for release in (state.production, state.compared))
        self._dearer = "cost" in state.policy.guardrails
        self._segments = Segments(state.policy.segments)
        self._known: set[int] = set()
        """Callers whose arm was counted for the check of the split, as Python's hashes. They have 64
        bits under a secret of this process, so that no caller can collide with another."""
        self._step = (-1, False)
        self._asked: set[int] = set()
        """Callers whose first request at this weight was reported, in the same form."""

    def _price(self, release: int | None) -> Prices | None:
        cost = self._state.policy.cost
        found = self._state.releases.get(release) if release is not None else None
        return prices_of(cost, found.version) if cost is not None and found is not None else None

    def window(
        self,
        seen: Sequence[Observation],
        at: int,
        bounds: SlowBounds,
        *,
        number: int,
        paired: bool,
        weight: int,
        lost: int,
        streak: int,
        broken: int,
        conduct: Conduct = QUIET,
    ) -> tuple[Window, list[JoinRow]]:
        """Count one second's observations. `at` is that second; `weight` the stratum in buckets."""
        if (weight, paired) != self._step:
            self._step = (weight, paired)
            self._asked.clear()
        draft = _Draft(paired=paired)
        before = self._segments.other
        rows = self._fill(draft, seen, bounds, paired=paired, weight=weight)
        state = self._state
        exposed, answered = draft.met()
        named, named_answered = draft.named.met(paired=paired)
        units, first = draft.callers()
        callers, uncosted = draft.spent.callers(self._key)
        return (
            Window(
                replica=self._replica,
                number=number,
                endpoint=state.endpoint,
                production=state.production or 0,
                candidate=state.compared or 0,
                salt=state.salt,
                at=at,
                weight=weight,
                paired=paired,
                fresh=None if paired else (draft.fresh[0], draft.fresh[1]),
                exposed=exposed,
                answered=answered,
                named=named,
                named_answered=named_answered,
                bad={metric: _frozen(cells) for metric, cells in draft.bad.items()},
                units=units[:UNITS],
                first=first[:UNITS],
                cut=max(len(units) - UNITS, 0) + max(len(first) - UNITS, 0),
                predictions=(draft.predictions[0], draft.predictions[1]),
                method=METHOD,
                agreement=_agreement(draft.pairs),
                scores={
                    bin_: (int(n), int(w), d, a) for bin_, (n, w, d, a) in draft.scores.items()
                },
                examples=tuple(draft.examples),
                costs=draft.costs,
                callers=callers,
                uncosted=uncosted,
                cells=draft.spent.cells(),
                clips=(draft.spent.clips[0], draft.spent.clips[1]),
                noise=(draft.noise[0], draft.noise[1]),
                mirrored=draft.mirrored,
                copied=draft.copied,
                streak=streak,
                broken=broken,
                conduct=conduct,
                lost=lost,
                other=self._segments.other - before,
            ),
            rows,
        )

    def _fill(
        self,
        draft: _Draft,
        seen: Sequence[Observation],
        bounds: SlowBounds,
        *,
        paired: bool,
        weight: int,
    ) -> list[JoinRow]:
        """Count observations into a draft; return their rows that are recorded."""
        rows: list[JoinRow] = []
        for some in self._parts(self._first(draft, seen)):
            part = ObservationColumns(some, self._segments)
            self._spend(draft, part)
            if paired:
                self._pairs(draft, part, bounds)
                self._agree(draft, part)
            else:
                self._singles(draft, part, bounds)
            rows += self._predictions.rows(part, weight)
        return rows

    def logged(self, seen: Sequence[Observation]) -> tuple[list[JoinRow], int]:
        """Return rows of sampled units while nothing is compared, and how many lack inputs."""
        rows: list[JoinRow] = []
        keeps = self._predictions.log.keeps
        for some in self._parts(seen):
            sampled = [
                one
                for one in some
                if one.ours is not None and keeps(one.request.entity or one.request.id)
            ]
            if sampled:
                rows += self._predictions.rows(ObservationColumns(sampled, self._segments), 0)
        return rows, sum(not row.inputs for row in rows)

    def _parts(self, seen: Sequence[Observation]) -> Iterator[Sequence[Observation]]:
        """Yield the observations in parts of `PART` rows or a few more; rest after each part."""
        for begin in range(0, len(seen), PART):
            some = seen[begin : begin + PART]
            if sum([one.request.rows for one in some]) == len(some):
                yield some
                self._rest()
                continue
            part: list[Observation] = []
            rows = 0
            for at, one in enumerate(some, 1):
                part.append(one)
                rows += one.request.rows
                if rows >= PART or at == len(some):
                    yield part
                    self._rest()
                    part, rows = [], 0

    def _first(self, draft: _Draft, seen: Sequence[Observation]) -> Sequence[Observation]:
        """Count production's second answers as its noise; return the other observations."""
        if not draft.paired:
            return seen
        for one in seen:
            if one.again and one.ours is not None and one.theirs is not None:
                answers = self._agrees(one.ours, one.theirs, one.request.rows)
                same = [alike for alike in answers if alike is not None]
                self.uncompared += len(answers) - len(same)
                draft.noise[0] += len(same)
                draft.noise[1] += sum(same)
        return [one for one in seen if not one.again]

    # ------------------------------------------------------------ what a request met

    def _pairs(self, draft: _Draft, part: ObservationColumns, bounds: SlowBounds) -> None:
        """Count requests that both releases were asked: only what differs between them is bad."""
        draft.mirrored += len(part.seen)
        asked = [not dropped for dropped in part.dropped]
        copied = [copy is not None for copy in part.theirs]
        draft.copied += sum(compress(copied, asked))
        untimed = [lost or not copy for lost, copy in zip(part.failed, copied, strict=True)]
        units, slices = list(compress(part.units, asked)), list(compress(part.slices, asked))
        arms = [PRODUCTION] * len(units)
        self._met(draft, units, slices, arms, list(compress(untimed, asked)))
        new = self._newcomers(draft, units, slices, arms)
        columns = zip(
            part.units,
            part.slices,
            untimed,
            part.failed,
            copied,
            part.micros,
            part.their_micros,
            part.violated,
            part.their_violated,
            strict=True,
        )
        for place, (unit, names, without, lost, copy, micros, other, wrong, also) in enumerate(
            compress(columns, asked)
        ):
            first = new.get(place)
            if lost == copy:
                self._bad(draft, 0, PRODUCTION if lost else CANDIDATE, unit, names, first)
            if without:
                continue
            for metric, bound in ((1, bounds.p50), (2, bounds.p99)):
                if bound and (micros > bound) != (other > bound):
                    arm = PRODUCTION if micros > bound else CANDIDATE
                    self._bad(draft, metric, arm, unit, names, first)
            if wrong != also:
                arm = PRODUCTION if wrong else CANDIDATE
                self._bad(draft, VIOLATIONS, arm, unit, names, first)

    def _singles(self, draft: _Draft, part: ObservationColumns, bounds: SlowBounds) -> None:
        """Count requests that one of the releases was asked."""
        self._split(draft, part)
        columns: tuple[Sequence[Any], ...] = (
            part.units,
            part.slices,
            part.arms,
            part.failed,
            part.micros,
            part.violated,
        )
        if any(part.dropped):  # a request that was never sent is no unit
            asked = [not dropped for dropped in part.dropped]
            columns = tuple(list(compress(column, asked)) for column in columns)
        units, all_slices, arms, failed, took, violated = columns
        if not units:
            return
        self._met(draft, units, all_slices, arms, failed)
        new = self._newcomers(draft, units, all_slices, arms)
        for one in part.seen:
            if not (one.failed or one.dropped or one.settles):
                draft.predictions[one.arm] += one.request.rows
        slow = bounds.p50 or bounds.p99 or NEVER_US  # the median's bound is never the higher one
        if not (any(failed) or any(violated) or max(took) > slow):
            return
        odd = [
            lost or wrong or micros > slow
            for lost, wrong, micros in zip(failed, violated, took, strict=True)
        ]
        for place, (unit, names, arm, lost, micros, wrong) in compress(
            enumerate(zip(*columns, strict=True)), odd
        ):
            first = new.get(place)
            if lost:
                self._bad(draft, 0, arm, unit, names, first)
                continue
            if bounds.p50 and micros > bounds.p50:
                self._bad(draft, 1, arm, unit, names, first)
            if bounds.p99 and micros > bounds.p99:
                self._bad(draft, 2, arm, unit, names, first)
            if wrong:
                self._bad(draft, VIOLATIONS, arm, unit, names, first)

    def _split(self, draft: _Draft, part: ObservationColumns) -> None:
        """Count a unit's first request: the split is checked on units, each once."""
        known, fresh = self._known, draft.fresh
        for unit, arm, again in zip(part.units, part.arms, part.settles, strict=True):
            if again:
                continue
            if unit:
                name = hash(unit)
                if name in known or len(known) >= FRESH:
                    continue
                known.add(name)
            fresh[arm] += 1

    def _met(
        self,
        draft: _Draft,
        units: Sequence[str],
        slices: Sequence[Names],
        arms: Sequence[int],
        untimed: Sequence[bool],
    ) -> None:
        """Count requests by segment, those with an entity separately. `untimed`: no latency."""
        named = [bool(unit) for unit in units]
        timed = [not without for without in untimed]
        whole = all(timed)
        draft.every.add(slices, arms, None if whole else timed)
        if any(named):
            its, whose = list(compress(slices, named)), list(compress(arms, named))
            draft.named.add(its, whose, None if whole else list(compress(timed, named)))

    def _newcomers(
        self, draft: _Draft, units: Sequence[str], slices: Sequence[Names], arms: Sequence[int]
    ) -> dict[int, list[Any]]:
        """Report callers that are new at this weight, by their place, to add their faults later."""
        asked, found = self._asked, {}
        for place, unit in enumerate(units):
            if unit and (name := hash(unit)) not in asked and len(asked) < FRESH:
                asked.add(name)
                number, bucket = unit_of(self._key, unit)
                found[place] = [number, bucket, arms[place], 0, slices[place][1:]]
        draft.first += found.values()
        return found

    def _bad(
        self,
        draft: _Draft,
        metric: int,
        arm: int,
        unit: str,
        slices: Names,
        first: list[Any] | None,
    ) -> None:
        if first is not None:
            first[3] |= 1 << (metric + (OURS if draft.paired and arm == PRODUCTION else 0))
        if unit:
            number, bucket = unit_of(self._key, unit)
            of = draft.units.setdefault((number, metric, arm), [bucket, 0, ()])
            of[1] += 1
            if of[2] != slices[1:]:
                of[2] = tuple(sorted({*of[2], *slices[1:]}))
            return
        for name in slices:
            draft.bad.setdefault(METRICS[metric], {}).setdefault(name, [0, 0])[arm] += 1

    # ------------------------------------------------------------ what it cost

    def _spend(self, draft: _Draft, part: ObservationColumns) -> None:
        """Add the cost of requests to the arm that answered; in pairs, only if both did."""
        if self._state.policy.cost is None:
            return
        largest = self._state.policy.cost.max
        for one, unit, slices in zip(part.seen, part.units, part.slices, strict=True):
            ours = one.theirs if one.settles else one.ours
            if one.failed or one.dropped or ours is None or (draft.paired and one.theirs is None):
                continue
            answers = [(one.arm, ours, one.micros)]
            if draft.paired and one.theirs is not None:
                answers.append((CANDIDATE, one.theirs, one.their_micros))
            both = [(0, 0.0, 0.0), (0, 0.0, 0.0)]
            for arm, columns, micros in answers:
                told = self._cost(arm, columns, one.request.rows, micros)
                cost = clipped(told, largest)
                draft.spent.clips[arm] += cost != told
                both[arm] = (1, cost, cost * cost)
            spent = Spent(*both)
            for name in slices:
                draft.costs[name] = draft.costs.get(name, Spent()).plus(spent)
            if self._dearer:
                draft.spent.add(unit, (both[0][0], both[1][0]), (both[0][1], both[1][1]))

    def _cost(self, arm: int, columns: Columns, rows: int, micros: int) -> float:
        cost, prices = self._state.policy.cost, self._prices[arm]
        if cost is None or prices is None:
            return 0.0
        used = [
            (
                float(columns[name].sum())
                if name is not None and name in columns and columns[name].dtype.kind in NUMBERS
                else 0.0
            )
            for name in (cost.tokens, cost.reported)
        ]
        return cost_of(prices, rows=rows, micros=micros, tokens=used[0], reported=used[1])

    # ------------------------------------------------------------ what was said

    def _agree(self, draft: _Draft, part: ObservationColumns) -> None:
        """Compare the two answers row by row; a copy that did not answer disagrees."""
        ours, theirs = part.said(self._output), part.said_by_copy(self._output)
        asked = [not dropped for dropped in part.dropped]
        there = [
            one is not None and other is not None and was
            for one, other, was in zip(part.ours, part.theirs, asked, strict=True)
        ]
        whole = self._alike(part, there) if self._whole else None
        alike: list[bool] = (
            same_rows(self._output, ours, theirs) if whole is None else list(map(bool, whole))
        )
        silent = [was and not both for was, both in zip(asked, there, strict=True)]
        if any(silent):
            found = draft.pairs.setdefault(MISSING, [])
            found += compress(part.segments, part.by_row(silent))
        said_so = zip(alike, ours.yes, theirs.yes, strict=True)
        compared = part.by_row(there)
        if whole is not None and None in whole:
            known = [same is not None for same in whole]
            self.uncompared += sum(compared) - sum(compress(compared, known))
            compared = [was and is_known for was, is_known in zip(compared, known, strict=True)]
        for key, names in compress(zip(said_so, part.segments, strict=True), compared):
            draft.pairs.setdefault(key, []).append(names)
        scores = zip(ours.scores, theirs.scores, alike, strict=True)
        for one, other, same in compress(scores, compared):
            if one is not None and other is not None:
                apart = other - one
                bin_ = draft.scores.setdefault(bin_of(one), [0, 0, 0.0, 0.0])
                bin_[0] += 1
                bin_[1] += same
                bin_[2] += apart
                bin_[3] += abs(apart)
        if len(draft.examples) < EXAMPLES and not all(alike):
            draft.examples += islice(
                _examples(part, self._output, compared, alike, ours, theirs),
                EXAMPLES - len(draft.examples),
            )

    def _alike(self, part: ObservationColumns, there: Sequence[bool]) -> list[bool | None]:
        """Return for each row whether the whole answers are alike; None if not compared."""
        pairs: list[Pair] = [
            (one.ours, one.theirs, one.request.rows)
            for one, both in zip(part.seen, there, strict=True)
            if both and one.ours is not None and one.theirs is not None
        ]
        said = iter(
            self._custom.compare(pairs)
            if self._custom is not None
            else [self._agrees(*pair) for pair in pairs]
        )
        alike: list[bool | None] = []
        for one, both in zip(part.seen, there, strict=True):
            alike += next(said) if both else [False] * one.request.rows
        return alike


class _Hits:
    """Slices of the units that were met; all counted at once at the end."""

    __slots__ = ("every", "theirs")

    def __init__(self) -> None:
        self.every: list[Names] = []
        self.theirs: list[Names] = []
        """The slices of units that the candidate answered."""

    def add(self, slices: Sequence[Names], arms: Sequence[int]) -> None:
        """Add the slices of some units; `arms` states which release was asked."""
        self.every += slices
        self.theirs += compress(slices, arms)

    def cells(self, *, paired: bool) -> Counts:
        """Return both arms' counts by slice, counted in C. In pairs every unit met both."""
        if not self.every:
            return {}
        every = Tally(chain.from_iterable(self.every))
        if paired:
            return {name: (times, times) for name, times in every.items()}
        if not self.theirs:
            return {name: (times, 0) for name, times in every.items()}
        theirs = Tally(chain.from_iterable(self.theirs))
        return {
            name: (times - (other := theirs.get(name, 0)), other) for name, times in every.items()
        }


class _Met:
    """Requests that were met: those with a latency, and those without."""

    __slots__ = ("timed", "untimed")

    def __init__(self) -> None:
        self.timed, self.untimed = _Hits(), _Hits()

    def add(
        self, slices: Sequence[Names], arms: Sequence[int], timed: Sequence[bool] | None
    ) -> None:
        """Add requests; with `timed` None, all of them have a latency."""
        if timed is None:
            self.timed.add(slices, arms)
            return
        without = [not one for one in timed]
        self.timed.add(list(compress(slices, timed)), list(compress(arms, timed)))
        self.untimed.add(list(compress(slices, without)), list(compress(arms, without)))

    def met(self, *, paired: bool) -> tuple[Counts, Counts]:
        """Return all requests, and those with a latency."""
        timed = self.timed.cells(paired=paired)
        return _plus(timed, self.untimed.cells(paired=paired)), timed


class _Draft:
    """A window under construction."""

    __slots__ = (
        "bad",
        "copied",
        "costs",
        "every",
        "examples",
        "first",
        "fresh",
        "mirrored",
        "named",
        "noise",
        "paired",
        "pairs",
        "predictions",
        "scores",
        "spent",
        "units",
    )

    def __init__(self, *, paired: bool) -> None:
        self.paired = paired
        self.fresh = [0, 0]
        self.noise = [0, 0]
        self.predictions = [0, 0]
        self.costs: dict[str, Spent] = {}
        self.spent = UnitCosts(paired=paired)
        self.every, self.named = _Met(), _Met()
        self.bad: dict[str, dict[str, list[int]]] = {}
        self.units: dict[tuple[int, int, int], list[Any]] = {}
        """By caller, metric and arm: the bucket, the number of times, and the segments."""
        self.first: list[list[Any]] = []
        """The fields of each `FirstAsk`."""
        self.pairs: _Pairs = {}
        """The segments of each row, by both answers. All counted at once at the end."""
        self.scores: dict[int, list[float]] = {}
        self.examples: list[DisagreeingPair] = []
        self.mirrored = 0
        self.copied = 0

    def met(self) -> tuple[Counts, Counts]:
        """Return all requests, and those with a latency."""
        return self.every.met(paired=self.paired)

    def callers(self) -> tuple[tuple[BadUnit, ...], tuple[FirstAsk, ...]]:
        """Return the callers that went bad, and new ones, in the order of their bound."""
        bad = [
            BadUnit(unit, metric, arm, segments, bucket, times)
            for (unit, metric, arm), (bucket, times, segments) in self.units.items()
        ]
        first = [FirstAsk(*of) for of in self.first]
        if len(bad) > UNITS:
            bad.sort(key=lambda one: pick(one.unit))
        if len(first) > UNITS:
            first.sort(key=lambda one: pick(one.unit))
        return tuple(bad), tuple(first)


def _plus(counts: Counts, more: Counts) -> Counts:
    if not more:
        return counts
    found = dict(counts)
    for name, (ours, theirs) in more.items():
        before = found.get(name, (0, 0))
        found[name] = (before[0] + ours, before[1] + theirs)
    return found


def _frozen(cells: dict[str, list[int]]) -> Counts:
    return {name: (cell[0], cell[1]) for name, cell in cells.items()}


MISSING = None
"""Key of pairs whose copy did not answer."""
_Pairs = dict[tuple[bool, bool, bool] | None, list[Names]]
"""Segments by (alike, production says yes, the copy says yes)."""


def _examples(
    part: ObservationColumns,
    output: Output,
    compared: Sequence[bool],
    alike: Sequence[bool],
    ours: Sayings,
    theirs: Sayings,
) -> Iterator[DisagreeingPair]:
    differs = [there and not same for there, same in zip(compared, alike, strict=True)]
    if any(differs):
        ids = part.ids()
        for row in compress(range(len(differs)), differs):
            old, new = (one.row(row).text() for one in (ours, theirs))
            yield DisagreeingPair(
                ids[row], part.segments[row], old, new, part.differing(output, row)
            )


def _agreement(pairs: _Pairs) -> dict[str, Agreement]:
    """Return the agreement table of each segment."""
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

"""What one worker counted in one second of a comparison: written once, folded once.

A window is closed before it is written and never changed after, so a repeated write changes
nothing, and a late one is folded when it comes. Callers travel as hashes, so that a caller whose
requests reached several workers is still counted once. Requests are counted for what is shown and
for coverage; what the judge divides by is units: callers by their first request, and requests
without an entity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from kedge.core.values import BUCKETS, Value

METRICS = ("errors", "latency.p50", "latency.p99", "violations")
"""Bad events that a worker sees by itself. Quality comes later, with the outcomes."""
PRODUCTION, CANDIDATE = 0, 1
"""Columns of every count. In a paired window: production bad and the copy not, and the reverse."""

OURS = 8
"""Where production's bits begin in `FirstAsk.bad`."""

Counts = dict[str, tuple[int, int]]
"""By segment ("" is everything): production's and the candidate's."""
Growing = dict[str, list[int]]
"""The same, while it is counted."""


class BadUnit(Value, frozen=True, array_like=True):
    """A caller that went bad in this window, and which segments it was seen in."""

    unit: int
    """63-bit hash under the comparison's salt."""
    metric: int
    arm: int
    segments: tuple[str, ...]
    bucket: int = -1
    """What its arm follows from; -1 where it was written by an older version."""
    times: int = 1
    """Bad requests in this window."""


class FirstAsk(Value, frozen=True, array_like=True):
    """A caller's first request that this worker saw at this weight."""

    unit: int
    bucket: int
    arm: int
    bad: int
    """The metrics in which it went bad: bit n is METRICS[n]. In pairs, bit n is the candidate's and bit
    n + `OURS` production's."""
    segments: tuple[str, ...]


class Agreement(Value, frozen=True, array_like=True):
    """Pairs of one segment: how many, how many agree, and the table of binary decisions."""

    pairs: int = 0
    agreeing: int = 0
    both: int = 0
    only_production: int = 0
    only_candidate: int = 0
    neither: int = 0
    missing: int = 0
    """The copy gave no answer: counted as disagreement, never as agreement."""


Sums = tuple[int, float, float]
"""Requests, the sum of their cost per inference, and the sum of its squares."""


class Spent(Value, frozen=True, array_like=True):
    """What both arms cost."""

    production: Sums = (0, 0.0, 0.0)
    candidate: Sums = (0, 0.0, 0.0)

    def plus(self, other: Spent) -> Spent:
        """Two counts as one."""
        return Spent(
            _sums(self.production, other.production), _sums(self.candidate, other.candidate)
        )


def _sums(one: Sums, other: Sums) -> Sums:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


class CallerCost(Value, frozen=True, array_like=True):
    """What one caller's requests cost in this window. Pairs are (production, candidate)."""

    unit: int
    """64-bit hash under the comparison's salt."""
    bucket: int
    requests: tuple[int, int]
    cost: tuple[float, float]
    """Sums of the cost per inference, each clipped at the declared `cost.max`."""


class CostCell(Value, frozen=True, array_like=True):
    """Requests without a caller that cost about as much: a bin of both arms, or a pair of bins."""

    bins: tuple[int, int]
    requests: tuple[int, int]
    cost: tuple[float, float]
    """Sums, as of `CallerCost`."""


class Differing(Value, frozen=True, array_like=True):
    """One output in which two answers to a row differ, as text; a value that is missing says so."""

    output: str
    production: str
    candidate: str


class DisagreeingPair(Value, frozen=True, array_like=True):
    """A pair that disagrees."""

    id: str
    segments: tuple[str, ...]
    production: str
    candidate: str
    differs: tuple[Differing, ...] = ()
    """The outputs that differ, the one that is compared first; none in what an older kedge wrote."""


class Conduct(Value, frozen=True, kw_only=True):
    """What the candidate did by itself toward one worker in one second, and what it was not asked."""

    routed: int = 0
    """Requests that were the candidate's to answer, or of which it was to get a copy."""
    unasked: dict[str, int] = {}
    """Those of them that never reached it, by cause: no failure, and no unit."""
    answered: int = 0
    """Answers of it, late ones and failures too: it is alive."""
    late: int = 0
    """Answers that came after the deadline: production answered the caller, and they are latency."""
    callers: tuple[int, ...] = ()
    """Hashes of callers that it was asked by, `CALLERS` at most."""
    failed: int = 0
    """Requests without an entity that it failed and production answered."""
    failed_callers: tuple[int, ...] = ()
    """Hashes of callers whose request it failed and production answered, `CALLERS` at most."""
    streak_callers: tuple[int, ...] = ()
    """Callers in the longest run of failures, `CALLERS` at most."""
    streak_seconds: int = 0
    """Seconds in which requests without an entity failed in it, `CALLERS` at most are counted."""
    crashes: int = 0
    """How often its process died with questions under way."""
    silent_s: float = 0.0
    """How long nothing was heard of it, though it was asked in several seconds; 0: no silence."""
    patience_s: float = 0.0
    """A silence of this length is no response: production was never silent for so long."""


CALLERS = 3
"""Distinct callers, or seconds where callers have no name, that an automatic verdict needs: what one
caller sends, or what happens in one instant, is one cause."""
INSTANT_S = 0.1
"""Failures within a tenth of a second are one event: a pause or a lost connection takes many requests
with it. Twenty events still take only two seconds."""


class Window(Value, frozen=True, kw_only=True):
    """One second of one worker. `at` is Unix time, whole seconds."""

    replica: str
    number: int
    """Counts the windows of this replica: with its name, the key."""
    endpoint: str
    production: int
    candidate: int
    salt: str
    at: int
    weight: int
    """The stratum: the configured share in buckets, 0 for a shadow."""
    paired: bool
    fresh: tuple[int, int] | None = None
    """Units that this replica saw for the first time, by arm: what the split is checked with."""
    exposed: Counts = {}
    """Requests."""
    answered: Counts = {}
    """Requests that have a latency."""
    named: Counts = {}
    """Of `exposed`, those with an entity."""
    named_answered: Counts = {}
    """Of `answered`, the same."""
    bad: dict[str, Counts] = {}
    """By metric: bad requests without an entity; each is its own unit."""
    units: tuple[BadUnit, ...] = ()
    """Callers that went bad: those with the smallest `pick`, at most 512."""
    first: tuple[FirstAsk, ...] = ()
    """Callers new to this worker at this weight, the same way."""
    cut: int = 0
    """Callers beyond these bounds."""
    predictions: tuple[int, int] = (0, 0)
    """Rows that were answered, by arm: what labels are a share of."""
    agreement: dict[str, Agreement] = {}
    scores: dict[int, tuple[int, int, float, float]] = {}
    """By bin of production's score: pairs, within tolerance, sum of differences, of absolute ones."""
    examples: tuple[DisagreeingPair, ...] = ()
    costs: dict[str, Spent] = {}
    """Figures by segment, for display. The judge of cost reads the next four."""
    callers: tuple[CallerCost, ...] = ()
    cells: tuple[CostCell, ...] = ()
    clips: tuple[int, int] = (0, 0)
    """Costs outside 0 to `cost.max`, by arm."""
    uncosted: int = 0
    """Callers' and requests' costs that are not in `callers` and `cells`, which are bounded."""
    noise: tuple[int, int] = (0, 0)
    """Rows that production was asked twice, and how many of them it answered alike."""
    mirrored: int = 0
    copied: int = 0
    """Of the mirrored, those that the copy answered."""
    streak: int = 0
    """Longest run of failures of the candidate that production answered; those of one instant are one."""
    conduct: Conduct = Conduct()
    broken: int = 0
    """Answers of the candidate that do not fit its signature."""
    lost: int = 0
    """Observations that were dropped because the recorder was full."""
    other: int = 0
    """Segment values beyond the bound, counted as `other`."""
    method: int = 1
    """Which version of counting wrote it; `judge.METHOD` is today's."""

    @property
    def comparison(self) -> tuple[int, int, str]:
        """Which pair it belongs to."""
        return self.production, self.candidate, self.salt


def added(into: Growing, more: Mapping[str, Sequence[int]]) -> None:
    """Add counts to counts."""
    for segment, (production, candidate) in more.items():
        cell = into.setdefault(segment, [0, 0])
        cell[0] += production
        cell[1] += candidate


def agreement_sum(one: Agreement, other: Agreement) -> Agreement:
    """Two counts of pairs as one."""
    return Agreement(*(a + b for a, b in zip(_counts(one), _counts(other), strict=True)))


def _counts(of: Agreement) -> tuple[int, ...]:
    return tuple(getattr(of, name) for name in of.__struct_fields__)


def _turned(one: FirstAsk, *, paired: bool) -> FirstAsk:
    bad = one.bad >> OURS | (one.bad & (1 << OURS) - 1) << OURS if paired else one.bad
    return msgspec.structs.replace(one, arm=1 - one.arm, bad=bad)


def _exchanged(one: DisagreeingPair) -> DisagreeingPair:
    differs = tuple(
        msgspec.structs.replace(each, production=each.candidate, candidate=each.production)
        for each in one.differs
    )
    return msgspec.structs.replace(
        one, production=one.candidate, candidate=one.production, differs=differs
    )


def turned(window: Window) -> Window:
    """The same window with the arms exchanged."""
    return msgspec.structs.replace(
        window,
        weight=window.weight if window.paired else BUCKETS - window.weight,
        fresh=None if window.fresh is None else (window.fresh[1], window.fresh[0]),
        exposed={name: (c, p) for name, (p, c) in window.exposed.items()},
        answered={name: (c, p) for name, (p, c) in window.answered.items()},
        named={name: (c, p) for name, (p, c) in window.named.items()},
        named_answered={name: (c, p) for name, (p, c) in window.named_answered.items()},
        first=tuple(_turned(one, paired=window.paired) for one in window.first),
        predictions=(window.predictions[1], window.predictions[0]),
        bad={
            metric: {name: (c, p) for name, (p, c) in cells.items()}
            for metric, cells in window.bad.items()
        },
        units=tuple(msgspec.structs.replace(unit, arm=1 - unit.arm) for unit in window.units),
        agreement={
            name: msgspec.structs.replace(
                cell, only_production=cell.only_candidate, only_candidate=cell.only_production
            )
            for name, cell in window.agreement.items()
        },
        costs={name: Spent(of.candidate, of.production) for name, of in window.costs.items()},
        callers=tuple(
            msgspec.structs.replace(of, requests=of.requests[::-1], cost=of.cost[::-1])
            for of in window.callers
        ),
        cells=tuple(
            msgspec.structs.replace(
                of, bins=of.bins[::-1], requests=of.requests[::-1], cost=of.cost[::-1]
            )
            for of in window.cells
        ),
        clips=window.clips[::-1],
        scores={bin_: (n, w, -apart, size) for bin_, (n, w, apart, size) in window.scores.items()},
        examples=tuple(_exchanged(one) for one in window.examples),
    )

"""Windows: the counts of one worker in one second of a comparison, written and folded once.

A window is closed before it is written and never changed after. So a repeated write changes
nothing, and a late window is folded when it comes. Callers are stored as hashes, so that a caller
whose requests reached several workers is counted once. Requests are counted for display and for
coverage. The judge divides by units: callers by their first request, and requests without an
entity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from kedge.core.values import BUCKETS, Value

METRICS = ("errors", "latency.p50", "latency.p99", "violations")
"""Bad events that a worker observes itself. Quality comes later, with the outcomes."""
PRODUCTION, CANDIDATE = 0, 1
"""Columns of every count. In a paired window: only production was bad, and only the copy was."""

OURS = 8
"""First bit of production in `FirstAsk.bad`."""

Counts = dict[str, tuple[int, int]]
"""By segment ("" is the whole): production's and the candidate's count."""
Growing = dict[str, list[int]]
"""Counts while they grow."""


class BadUnit(Value, frozen=True, array_like=True):
    """A caller that went bad in this window, and its segments."""

    unit: int
    """63-bit hash under the comparison's salt."""
    metric: int
    arm: int
    segments: tuple[str, ...]
    bucket: int = -1
    """The bucket that decides its arm; -1 where an older version wrote it."""
    times: int = 1
    """Bad requests in this window."""


class FirstAsk(Value, frozen=True, array_like=True):
    """A caller's first request to this worker at this weight."""

    unit: int
    bucket: int
    arm: int
    bad: int
    """The metrics in which it went bad: bit n is METRICS[n]. In pairs, bit n is the candidate's and bit
    n + `OURS` production's."""
    segments: tuple[str, ...]


class Agreement(Value, frozen=True, array_like=True):
    """Pairs of one segment: their number, how many agree, and the table of binary decisions."""

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
    """Costs of both arms."""

    production: Sums = (0, 0.0, 0.0)
    candidate: Sums = (0, 0.0, 0.0)

    def plus(self, other: Spent) -> Spent:
        """Return the sum of two costs."""
        return Spent(
            _sums(self.production, other.production), _sums(self.candidate, other.candidate)
        )


def _sums(one: Sums, other: Sums) -> Sums:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


class CallerCost(Value, frozen=True, array_like=True):
    """Costs of one caller's requests in this window. Pairs are (production, candidate)."""

    unit: int
    """64-bit hash under the comparison's salt."""
    bucket: int
    requests: tuple[int, int]
    cost: tuple[float, float]
    """Sums of the cost per inference, each clipped at the declared `cost.max`."""


class CostCell(Value, frozen=True, array_like=True):
    """Requests without a caller of about the same cost: a bin of both arms, or a pair of bins."""

    bins: tuple[int, int]
    requests: tuple[int, int]
    cost: tuple[float, float]
    """Sums, as in `CallerCost`."""


class Differing(Value, frozen=True, array_like=True):
    """One output in which two answers to a row differ, as text; a missing value is named so."""

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
    """The outputs that differ, the compared one first; empty where an older version of kedge wrote
    it."""


class Conduct(Value, frozen=True, kw_only=True):
    """The candidate's own behaviour toward one worker in one second, and what it was not asked."""

    routed: int = 0
    """Requests that the candidate should answer or get a copy of."""
    unasked: dict[str, int] = {}
    """Requests of them that never reached it, by cause: neither failures nor units."""
    answered: int = 0
    """Its answers, including late ones and failures: they show that it is alive."""
    late: int = 0
    """Answers after the deadline: production answered the caller, and they count as latency."""
    callers: tuple[int, ...] = ()
    """Hashes of callers whose requests it got, `CALLERS` at most."""
    failed: int = 0
    """Requests without an entity that it failed and production answered."""
    failed_callers: tuple[int, ...] = ()
    """Hashes of callers whose request it failed and production answered, `CALLERS` at most."""
    streak_callers: tuple[int, ...] = ()
    """Callers in the longest run of failures, `CALLERS` at most."""
    streak_seconds: int = 0
    """Seconds of that run in which requests without an entity failed, counted up to `CALLERS`."""
    crashes: int = 0
    """How often its process died with requests under way."""
    silent_s: float = 0.0
    """Seconds without an answer, though it was asked in several of them; 0: no silence."""
    patience_s: float = 0.0
    """Length from which a silence counts as no response: production was never silent for so
    long."""


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
    """Running number of this replica's windows; with its name, the key."""
    endpoint: str
    production: int
    candidate: int
    salt: str
    at: int
    weight: int
    """The stratum: the configured share in buckets, 0 for a shadow."""
    paired: bool
    fresh: tuple[int, int] | None = None
    """Units that were new to this replica, by arm: the split is checked with them."""
    exposed: Counts = {}
    """Requests."""
    answered: Counts = {}
    """Requests that have a latency."""
    named: Counts = {}
    """Requests of `exposed` with an entity."""
    named_answered: Counts = {}
    """Requests of `answered` with an entity."""
    bad: dict[str, Counts] = {}
    """By metric: bad requests without an entity; each is its own unit."""
    units: tuple[BadUnit, ...] = ()
    """Callers that went bad: those with the smallest `pick`, at most 512."""
    first: tuple[FirstAsk, ...] = ()
    """Callers that are new to this worker at this weight, bounded in the same way."""
    cut: int = 0
    """Callers beyond these bounds."""
    predictions: tuple[int, int] = (0, 0)
    """Answered rows, by arm: the whole of which labels are a share."""
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
    """Rows that production answered twice, and how many of them alike."""
    mirrored: int = 0
    copied: int = 0
    """Mirrored requests that the copy answered."""
    streak: int = 0
    """Longest run of the candidate's failures that production answered; one instant counts once."""
    conduct: Conduct = Conduct()
    broken: int = 0
    """Answers of the candidate that do not fit its signature."""
    lost: int = 0
    """Observations that the recorder dropped because it was full."""
    other: int = 0
    """Segment values beyond the bound, counted as `other`."""
    method: int = 1
    """The version of counting that wrote it; `rules.METHOD` is the present one."""

    @property
    def comparison(self) -> tuple[int, int, str]:
        """Return the comparison that it belongs to."""
        return self.production, self.candidate, self.salt


def added(into: Growing, more: Mapping[str, Sequence[int]]) -> None:
    """Add counts to counts."""
    for segment, (production, candidate) in more.items():
        cell = into.setdefault(segment, [0, 0])
        cell[0] += production
        cell[1] += candidate


def agreement_sum(one: Agreement, other: Agreement) -> Agreement:
    """Return the sum of two counts of pairs."""
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
    """Return the same window with the arms exchanged."""
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

"""Totals of counts whose sources restart: no counter goes down, also when control restarts.

Theory of operation
-------------------
* A worker's tally begins at zero with its process, and when it comes back to an earlier comparison.
  Old tallies are deleted. So control adds up increases.
* Control stores its totals, with the sums of the tallies from which they came. The next control
  adds what these sums have grown by, so that no request is missing that was answered in between.
* Without stored totals it begins at zero, as Prometheus expects of a process that restarted.
* The series of a release end a day after it has left. If it comes back, they begin at zero, as
  those of a process that restarted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from kedge.core.metrics import definitions as of
from kedge.core.metrics.definitions import METRICS, Metric
from kedge.core.stored.roster import Member, Tally
from kedge.core.values import State, Value

Source = tuple[object, ...]
"""What counts: a worker's tally, or a process."""
LATENCY = "latency"
LATENCY_SUM = "micros"
SHADOW_ARM = "shadow"
COUNTED, SUM = -1, -2
"""Values of `Series.bin` for a counter, and for the sum of a histogram in microseconds."""
KEPT_S = 86_400.0
"""Time for which the series of a release stay after it has left: a day of charts."""
MOST_BYTES = 64 << 20
"""Maximum size of stored totals: about a hundred times those of 200 endpoints."""


class Series(NamedTuple):
    """One counter, one bin of a histogram, or its sum."""

    metric: str
    labels: tuple[str, ...]
    bin: int = COUNTED
    """The bin of a latency, `COUNTED` or `SUM`."""


class StoredSeries(Value, frozen=True, array_like=True):
    """The total of one series."""

    metric: str
    labels: tuple[str, ...]
    bin: int
    total: int
    seen: int
    """The sum of what its sources counted when it was stored."""


class StoredOther(Value, frozen=True, array_like=True):
    """The release with which production is compared in a tally without a candidate."""

    endpoint: str
    replica: str
    production: int
    salt: str
    release: int


class StoredTotals(Value, frozen=True):
    """Totals that the next control continues."""

    series: tuple[StoredSeries, ...] = ()
    others: tuple[StoredOther, ...] = ()


class _Sources:
    """Cumulative counts of some sources: their increases, and their sums."""

    def __init__(self) -> None:
        self._known: dict[Source, dict[Series, int]] = {}
        self.sums: dict[Series, int] = {}

    def take(self, source: Source, counts: dict[Series, int]) -> Mapping[Series, int]:
        """Return what was added since the last call."""
        known = self._known.get(source, {})
        self._known[source] = counts
        self._move(known, -1)
        self._move(counts, 1)
        if any(counts.get(one, 0) < number for one, number in known.items()):
            return counts  # the source began again
        return {one: n - known.get(one, 0) for one, n in counts.items() if n > known.get(one, 0)}

    def keep(self, group: object, sources: Collection[Source]) -> None:
        """Forget the sources of a group that no longer exist."""
        gone = [one for one in self._known if one[0] == group and one not in sources]
        for one in gone:
            self._move(self._known.pop(one), -1)

    def _move(self, counts: Mapping[Series, int], sign: int) -> None:
        for one, number in counts.items():
            self.sums[one] = self.sums.get(one, 0) + sign * number


class Totals:
    """Running totals of all workers and processes. One thread uses it."""

    def __init__(self, endpoints: Iterable[str], stored: StoredTotals | None = None) -> None:
        """Continue the stored totals.

        Without them, begin at zero: what these endpoints' tallies have now does not count.
        """
        self.series: dict[Series, int] = {}
        self._sources = _Sources()
        self._unread: set[object] = {None, *endpoints}
        """Groups of sources whose first counts are compared with the stored sums."""
        self._stored: dict[Series, int] | None = None
        """The stored sums of series."""
        self._others: dict[Source, int] = {}
        """By tally: the release that was compared with production after a promotion."""
        self._tallies: dict[Source, Tally] = {}
        """Tallies as they were folded last: most of them never change again."""
        self._left: dict[tuple[str, str], float] = {}
        """By endpoint and release: when it was live last."""
        if stored is not None:
            self._stored = {}
            for one in stored.series:
                series = Series(one.metric, one.labels, one.bin)
                if len(_LABELS.get(one.metric, ())) != len(one.labels):
                    continue  # of another version of kedge
                self.series[series] = one.total
                self._stored[series] = one.seen
            for other in stored.others:
                key: Source = (other.endpoint, other.replica, other.production, None, other.salt)
                self._others[key] = other.release

    def fold(self, state: State, tallies: Sequence[Tally]) -> None:
        """Add what the workers of an endpoint counted since the last call."""
        endpoint = state.endpoint
        found: dict[Source, Tally] = {
            (endpoint, tally.replica, tally.production, tally.candidate, tally.salt): tally
            for tally in tallies
        }
        added: list[Mapping[Series, int]] = []
        for source, tally in found.items():
            present = (state.production, state.candidate, state.salt) == source[2:]
            if present and state.compared is not None and source not in self._others:
                self._others[source] = state.compared
                self._tallies.pop(source, None)
            if self._tallies.get(source) != tally:
                self._tallies[source] = tally
                added.append(self._sources.take(source, _flat(tally, self._others.get(source))))
        self._sources.keep(endpoint, found)
        for kept in (self._others, self._tallies):
            for gone in [one for one in kept if one[0] == endpoint and one not in found]:
                del kept[gone]
        self._add(endpoint, added)
        self._begin(state)

    def fold_processes(self, members: Sequence[Member]) -> None:
        """Add the faults and refusals that processes counted since the last call."""
        found: dict[Source, dict[Series, int]] = {
            (None, member.name, member.started_at): {
                Series(metric.name, (member.kind, place)): number
                for metric, counts in (
                    (of.FAULTS, {fault.place: fault.count for fault in member.faults}),
                    (of.LIMITED, member.limited),
                )
                for place, number in counts.items()
            }
            for member in members
        }
        added = [self._sources.take(source, counts) for source, counts in found.items()]
        self._sources.keep(None, found)
        self._add(None, added)

    def forget(self, states: Mapping[str, State], now: float) -> None:
        """End the series of endpoints that are gone, and of releases that left long ago.

        Args:
            states: the rows.
            now: Unix time.
        """
        for name, state in states.items():
            for number in _live(state):
                self._left[name, f"r{number}"] = now
        for series in list(self.series):
            of_release = _release(series)
            if of_release is None:
                continue
            endpoint, release = of_release
            left = self._left.setdefault((endpoint, release), now) if release else now
            if endpoint not in states or now - left > KEPT_S:
                del self.series[series]
        gone = [one for one, left in self._left.items() if now - left > KEPT_S]
        for one in gone:
            del self._left[one]

    def stored(self) -> StoredTotals:
        """Return the totals for the next control."""
        sums = {one: number for one, number in self._sources.sums.items() if number}
        for one, number in (self._stored or {}).items():  # of groups that were not read yet
            sums.setdefault(one, number)
        return StoredTotals(
            series=tuple(
                StoredSeries(*one, self.series.get(one, 0), sums.get(one, 0))
                for one in dict.fromkeys((*self.series, *sums))
            ),
            others=tuple(
                StoredOther(str(endpoint), str(replica), int(str(production)), str(salt), release)
                for (endpoint, replica, production, candidate, salt), release in (
                    self._others.items()
                )
                if candidate is None
            ),
        )

    def _add(self, group: object, added: Iterable[Mapping[Series, int]]) -> None:
        """Add increases; the first ones of a group are those of the stored sums."""
        if group in self._unread:
            self._unread.discard(group)
            added = [self._since_stored(group)]
        for counts in added:
            for series, number in counts.items():
                self.series[series] = self.series.get(series, 0) + number

    def _since_stored(self, group: object) -> dict[Series, int]:
        stored = self._stored
        if stored is None:
            return {}
        sums = self._sources.sums
        mine = [one for one in {*sums, *stored} if _group(one) == group]
        grown = {one: sums.get(one, 0) - stored.pop(one, 0) for one in mine}
        return {one: number for one, number in grown.items() if number > 0}

    def _begin(self, state: State) -> None:
        """Begin the series of live releases at zero, so that their first increase is seen."""
        arms = (
            ("production", state.production),
            ("candidate", state.candidate),
            ("previous", state.held),
        )
        for arm, number in arms:
            if number is not None:
                for metric in (of.REQUESTS, of.ROWS, of.ERRORS):
                    labels = (state.endpoint, f"r{number}", arm)
                    self.series.setdefault(Series(metric.name, labels), 0)


_LABELS = {metric.name: metric.labels for metric in METRICS}


def _group(series: Series) -> object:
    """Return the endpoint of a series; None: it is of a process."""
    return series.labels[0] if _LABELS[series.metric][0] == of.ENDPOINT else None


def _release(series: Series) -> tuple[str, str] | None:
    """Return the endpoint of a series, and its release or ""; None: it is of a process."""
    named = dict(zip(_LABELS[series.metric], series.labels, strict=True))
    return (named["endpoint"], named.get("release", "")) if "endpoint" in named else None


def _live(state: State) -> set[int]:
    """Return the releases that answer callers or copies, or to which a rollback would lead."""
    mirrored = state.mirrored[0] if state.mirrored is not None else None
    named = (state.production, state.candidate, state.held, state.back, state.compared, mirrored)
    return {number for number in named if number is not None}


def _flat(tally: Tally, other: int | None) -> dict[Series, int]:
    """Return a tally's counts by series, with those of the bins of latency."""
    bins = {
        f"{LATENCY}.{arm}.{index}": number
        for arm, counts in tally.latency.items()
        for index, number in counts.items()
    }
    found: dict[Series, int] = {}
    for name, number in (tally.counts | bins).items():
        series = _series(name, tally.endpoint, tally.production, tally.candidate or other)
        if series is not None:
            found[series] = number
    return found


_BY_ARM = {"requests": of.REQUESTS, "rows": of.ROWS, "errors": of.ERRORS}
_BY_CAUSE = {"refused": of.REFUSED, "unrecorded": of.UNRECORDED}
_OF_SHADOW = {
    "requests": of.SHADOW_REQUESTS,
    "answered": of.SHADOW_ANSWERED,
    "pairs": of.PAIRS,
    "agreeing": of.AGREEING,
}
_OF_SHADOW_BY_CAUSE = {"dropped": of.SHADOW_DROPPED, "failed": of.SHADOW_FAILED}
ARMS = ("production", "candidate", "previous", SHADOW_ARM)


def _series(name: str, endpoint: str, production: int, other: int | None) -> Series | None:
    """Return the series of one count (docs/reference/counts.md); None: it is not exported."""
    head, _, rest = name.partition(".")
    word, _, more = rest.partition(".")
    of_production = production if word == "production" else other
    if of_production is None and head not in _BY_CAUSE:
        return None  # of an earlier comparison after a promotion: the other release is not known
    rival = f"r{other}"
    by_arm = (endpoint, f"r{of_production}", word)
    counted: tuple[Metric, tuple[str, ...]] | None = None
    index = COUNTED
    if head in _BY_ARM and rest in ARMS:
        counted = _BY_ARM[head], by_arm
    elif head in _BY_CAUSE:
        counted = _BY_CAUSE[head], (endpoint, rest)
    elif head == LATENCY and word in ARMS:
        counted, index = (of.DURATION, by_arm), int(more)
    elif head == LATENCY_SUM and word in ARMS:
        counted, index = (of.DURATION, by_arm), SUM
    elif head == "failover":
        counted = of.FAILOVERS, (endpoint, rival, rest)
    elif head == "late":
        counted = of.LATE, (endpoint, rival)
    elif head == "violations":
        feature, _, kind = more.rpartition(".")
        counted = of.VIOLATIONS, (*by_arm, feature, kind)
    elif head == "shadow" and rest in _OF_SHADOW:
        counted = _OF_SHADOW[rest], (endpoint, rival)
    elif head == "shadow" and word in _OF_SHADOW_BY_CAUSE:
        counted = _OF_SHADOW_BY_CAUSE[word], (endpoint, rival, more)
    return None if counted is None else Series(counted[0].name, counted[1], index)

"""Totals of counts whose sources restart: no counter goes down while control runs.

A worker's tally begins at zero with its process, and when it comes back to an earlier comparison.
Old tallies are deleted. So control adds up increases. It begins at zero itself, as Prometheus
expects of a process that restarted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from kedge.core.metrics import definitions as of
from kedge.core.metrics.definitions import Metric
from kedge.core.stored.roster import Member, Tally
from kedge.core.values import State

Source = tuple[object, ...]
"""What counts: a worker's tally, or a process."""
LATENCY = "latency"
SHADOW_ARM = "shadow"


class Series(NamedTuple):
    """One counter, or one bin of a histogram."""

    metric: str
    labels: tuple[str, ...]
    bin: int = -1
    """The bin of a latency; -1 for a counter."""


class _Increases:
    """Increases of cumulative counts since they were last seen."""

    def __init__(self) -> None:
        self._seen: dict[Source, Mapping[str, int]] = {}

    def take(self, source: Source, counts: Mapping[str, int], *, first: bool) -> Mapping[str, int]:
        """Return what was added; `first`: these counts are where the totals begin."""
        known = self._seen.get(source, counts if first else {})
        self._seen[source] = counts
        if known == counts:
            return {}
        if any(counts.get(name, 0) < number for name, number in known.items()):
            return counts  # the source began again
        return {
            name: number - known.get(name, 0)
            for name, number in counts.items()
            if number > known.get(name, 0)
        }

    def keep(self, group: object, sources: Collection[Source]) -> None:
        """Forget the sources of a group that no longer exist."""
        gone = [one for one in self._seen if one[0] == group and one not in sources]
        for one in gone:
            del self._seen[one]


class Totals:
    """Running totals of all workers and processes. One thread uses it."""

    def __init__(self, endpoints: Iterable[str]) -> None:
        """Begin at zero: what these endpoints' tallies have now does not count."""
        self.series: dict[Series, int] = {}
        self._increases = _Increases()
        self._unread = set(endpoints)
        self._others: dict[Source, int] = {}
        """By tally: the release that was compared with production after a promotion."""
        self._processes_known = False

    def fold(self, state: State, tallies: Sequence[Tally]) -> None:
        """Add what the workers of an endpoint counted since the last call."""
        endpoint = state.endpoint
        first = endpoint in self._unread
        self._unread.discard(endpoint)
        sources = set()
        for tally in tallies:
            source = (endpoint, tally.replica, tally.production, tally.candidate, tally.salt)
            sources.add(source)
            present = (state.production, state.candidate, state.salt) == source[2:]
            if present and state.compared is not None:
                self._others.setdefault(source, state.compared)
            added = self._increases.take(source, _flat(tally), first=first)
            other = tally.candidate or self._others.get(source)
            for name, number in added.items():
                self._add(_series(name, endpoint, tally.production, other), number)
        self._increases.keep(endpoint, sources)
        self._others = {k: v for k, v in self._others.items() if k[0] != endpoint or k in sources}
        self._begin(state)

    def fold_processes(self, members: Sequence[Member]) -> None:
        """Add the faults and refusals that processes counted since the last call."""
        sources = set()
        for member in members:
            source = (None, member.name, member.started_at)
            sources.add(source)
            counts = {f"fault {fault.place}": fault.count for fault in member.faults}
            counts |= {f"limit {name}": number for name, number in member.limited.items()}
            first = not self._processes_known
            for name, number in self._increases.take(source, counts, first=first).items():
                what, _, place = name.partition(" ")
                metric = of.FAULTS if what == "fault" else of.LIMITED
                self._add(Series(metric.name, (member.kind, place)), number)
        self._processes_known = True
        self._increases.keep(None, sources)

    def _add(self, series: Series | None, number: int) -> None:
        if series is not None:
            self.series[series] = self.series.get(series, 0) + number

    def _begin(self, state: State) -> None:
        """Begin the series of live releases at zero, so that their first increase is seen."""
        arms = (("production", state.production), ("candidate", state.candidate))
        for arm, number in arms:
            if number is not None:
                for metric in (of.REQUESTS, of.ROWS, of.ERRORS):
                    labels = (state.endpoint, f"r{number}", arm)
                    self.series.setdefault(Series(metric.name, labels), 0)


def _flat(tally: Tally) -> dict[str, int]:
    """Return a tally's counts, with those of the bins of latency."""
    bins = {
        f"{LATENCY}.{arm}.{index}": number
        for arm, counts in tally.latency.items()
        for index, number in counts.items()
    }
    return tally.counts | bins


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
    rival = f"r{other}" if other is not None else ""
    by_arm = (endpoint, f"r{production}" if word == "production" else rival, word)
    counted: tuple[Metric, tuple[str, ...]] | None = None
    index = -1
    if head in _BY_ARM and rest in ARMS:
        counted = _BY_ARM[head], by_arm
    elif head in _BY_CAUSE:
        counted = _BY_CAUSE[head], (endpoint, rest)
    elif head == LATENCY and word in ARMS:
        counted, index = (of.DURATION, by_arm), int(more)
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

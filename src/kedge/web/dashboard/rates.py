"""Rates of traffic: requests, errors and latency of each endpoint over the last minutes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise

from kedge.core.stored.roster import Tally
from kedge.core.values import Value
from kedge.engine.recording.recorder import quantile_us
from kedge.workspace import Workplace

KEPT = 300
"""Samples of an endpoint: five minutes at one a second."""
SHOWN = 60
"""Points of the small line beside an endpoint."""
OVER_S = 5.0
"""The seconds over which the present rate is measured: workers count once a second."""
ARMS = ("production", "candidate")


class TrafficSample(Value, frozen=True):
    """Cumulative counts of an endpoint at one time, by arm."""

    at: float
    requests: dict[str, int]
    errors: dict[str, int]
    latency: dict[str, dict[int, int]]


class TrafficRates(Value, frozen=True):
    """The traffic of an endpoint, from its samples."""

    rate: float | None = None
    """Requests a second now; None: not measured yet."""
    line: tuple[float, ...] = ()
    """Requests a second, oldest first."""
    at: tuple[float, ...] = ()
    """Unix times of the line."""
    p50_us: dict[str, int | None] = {}
    """By arm, over all samples that are kept."""
    p99_us: dict[str, int | None] = {}
    bins: dict[str, dict[int, int]] = {}
    """By arm: answers by logarithmic bin of their latency."""


def take(tallies: Sequence[Tally], at: float) -> TrafficSample:
    """Add up the tallies of an endpoint."""
    requests = dict.fromkeys(ARMS, 0)
    errors = dict.fromkeys(ARMS, 0)
    latency: dict[str, dict[int, int]] = {arm: {} for arm in ARMS}
    for tally in tallies:
        for arm in ARMS:
            requests[arm] += tally.counts.get(f"requests.{arm}", 0)
            errors[arm] += tally.counts.get(f"errors.{arm}", 0)
            for index, number in tally.latency.get(arm, {}).items():
                latency[arm][index] = latency[arm].get(index, 0) + number
    return TrafficSample(at, requests, errors, latency)


def rates_of(samples: Sequence[TrafficSample]) -> TrafficRates:
    """Return the rates between samples, oldest first.

    A worker that ends takes its counts with it. Then a difference is negative and counts as zero.
    """
    if len(samples) < 2:
        return TrafficRates()
    line = [
        max(_answered(after) - _answered(before), 0) / max(after.at - before.at, 1e-3)
        for before, after in pairwise(samples)
    ]
    newest = samples[-1]
    begin = next((s for s in reversed(samples) if newest.at - s.at >= OVER_S), samples[0])
    took = max(newest.at - begin.at, 1e-3)
    bins = {arm: _between(samples[0].latency[arm], newest.latency[arm]) for arm in ARMS}
    return TrafficRates(
        rate=max(_answered(newest) - _answered(begin), 0) / took,
        line=tuple(line),
        at=tuple(sample.at for sample in samples[1:]),
        p50_us={arm: quantile_us(bins[arm], 0.5) for arm in ARMS},
        p99_us={arm: quantile_us(bins[arm], 0.99) for arm in ARMS},
        bins=bins,
    )


def _answered(sample: TrafficSample) -> int:
    return sum(sample.requests.values()) + sum(sample.errors.values())


def _between(before: Mapping[int, int], after: Mapping[int, int]) -> dict[int, int]:
    found = {index: number - before.get(index, 0) for index, number in after.items()}
    return {index: number for index, number in found.items() if number > 0}


class TrafficSampler:
    """Samples of every endpoint. One thread writes them, the pages read them."""

    def __init__(self) -> None:
        """Start without samples."""
        self._samples: dict[str, deque[TrafficSample]] = {}

    def sample(self, place: Workplace) -> None:
        """Take a sample of each endpoint.

        Raises:
            Unavailable: the ledger or the counts cannot be read.
        """
        names = place.ledger.read().states.keys()
        for name in names:
            found = take(place.evidence.tallies(name), place.clock.unix())
            self._samples.setdefault(name, deque(maxlen=KEPT)).append(found)
        for gone in self._samples.keys() - names:
            del self._samples[gone]

    def rates(self, endpoint: str, most: int = KEPT) -> TrafficRates:
        """Return the rates of an endpoint over its newest samples."""
        kept = self._samples.get(endpoint)
        return rates_of(tuple(kept)[-most:]) if kept else TrafficRates()

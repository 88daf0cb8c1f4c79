"""Simulated worlds: callers, their requests, and which of these go bad.

A `World` is a description; `Traffic` is one seeded run of it. Bad events are drawn for both arms at
once and every one says which arm would see it, so that the same run can be watched at any weight,
and a rollout may change the weight whenever its judge says so. A worse candidate sees what
production sees and more: the two arms are coupled event by event.

Times are seconds since the comparison began. Good requests are not drawn: only their number counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

DAY_S = 86_400.0
BIN_S = 300.0
"""Base rates are constant within a bin."""
PAUSE_S = 0.4
"""How long a process stands still; what is in flight goes bad."""
RETRY_S = 2.0
"""Mean seconds between a failure and its retry."""
MOST_RETRIES = 5
BOTH, CANDIDATE, PRODUCTION_PAUSE, CANDIDATE_PAUSE = range(4)
"""Which arm sees an event: both; the candidate alone; the arm whose process paused."""


@dataclass(frozen=True)
class Row:
    """One metric: how often a request of production goes bad, and how much worse the candidate is."""

    metric: str = "errors"
    p: float = 0.01
    weight: float = 0.7
    """Its share of the alarm."""
    r0: float = 1.0
    """The rate ratio that is tolerated."""
    ratio: float = 1.0
    """The candidate's rate over production's; replaced by the scenario's own for the first row."""


@dataclass(frozen=True)
class World:
    """What asks and what goes bad, for an identical candidate."""

    name: str
    callers: int = 0
    """0: requests without an entity, each its own unit."""
    rps: float = 100.0
    """Requests a second of all callers; with always-on callers, of the others."""
    shape: Literal["equal", "zipf", "always-on"] = "equal"
    heavy: int = 0
    """How many callers are always on, at one request a second each."""
    p: float = 0.01
    frailty: float = 0.0
    """Variance of a gamma factor of mean 1 on each caller's rate."""
    unlucky: float = 0.0
    """Share of callers whose requests always fail."""
    retries: float = 0.0
    """Mean number of further failures that follow one at once, by retries of the same cause."""
    incidents: int = 0
    """Five-minute spans a day with twenty times the failures, in both arms."""
    incident: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """From when to when, and how many times the failures, in both arms."""
    wander: float = 0.0
    """Standard deviation of an hourly AR(0.8) log rate, in both arms."""
    pauses: float = 0.0
    """Mean seconds between pauses of each arm's process."""
    days: float = 1.0
    also: tuple[Row, ...] = ()
    """Further metrics on the same callers."""
    segments: int = 0
    harmed: int = 0
    """Segments in which a worse candidate is worse; 0: in all."""
    first: Row | None = None
    """The first row, where it is not errors."""

    def rows(self, ratio: float) -> tuple[Row, ...]:
        """Every metric; the candidate is worse in the first."""
        first = self.first or Row()
        return (Row(first.metric, self.p, first.weight, first.r0, ratio), *self.also)


class Events(NamedTuple):
    """Bad events in order of time."""

    t: Floats
    unit: Ints
    draw: Floats
    """Where in [0, 1) the hash puts the unit: below the weight it is the candidate's."""
    kind: NDArray[np.int8]

    def only(self, which: Mask | Ints | slice) -> Events:
        """Return some of them."""
        return Events(self.t[which], self.unit[which], self.draw[which], self.kind[which])

    def seen(self, weight: float) -> tuple[Mask, NDArray[np.int8]]:
        """Which events happen at this weight, and on which arm."""
        arm = (self.draw < weight).astype(np.int8)
        wanted = np.array([-1, 1, 0, 1], dtype=np.int8)[self.kind]
        return (wanted < 0) | (wanted == arm), arm


def joined(parts: Sequence[Events]) -> Events:
    """Return events one part after the other."""
    return Events(
        np.concatenate([part.t for part in parts]),
        np.concatenate([part.unit for part in parts]),
        np.concatenate([part.draw for part in parts]),
        np.concatenate([part.kind for part in parts]),
    )


NO_EVENTS = Events(
    np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0, dtype=np.int8)
)


class Traffic:
    """One run of a world, drawn as far as it is looked at."""

    def __init__(
        self,
        rng: np.random.Generator,
        world: World,
        *,
        ratio: float = 1.0,
        onset: float = 0.0,
        most: float = 1.0,
    ) -> None:
        """Draw the callers.

        Args:
            rng: everything comes from it.
            world: what is drawn.
            ratio: how many times production's rate the candidate's first metric has.
            onset: seconds after which it has that; before, the candidate is the same.
            most: the largest weight of the rollout: no more of the candidate's own events are drawn.
        """
        self.world, self.ratio, self.onset, self._rng, self._most = world, ratio, onset, rng, most
        self.rows = world.rows(ratio)
        n = world.callers
        self.rate, self.draw = np.zeros(0), np.zeros(0)
        self._p: list[Floats] = []
        if n:
            self.rate, self.draw = _rates(world), rng.random(n)
            factor = np.ones(n)
            if world.frailty:
                factor = rng.gamma(1 / world.frailty, world.frailty, n)
            unlucky = rng.random(n) < world.unlucky
            for row in self.rows:
                p = np.minimum(row.p * factor, 1 / max(row.ratio, 1.0))
                self._p.append(np.where(unlucky, 1 / max(row.ratio, 1.0), p))
        self._mod = self._modulation()
        self._drawn = 0.0
        self._units = 0
        self._known = [NO_EVENTS] * len(self.rows)

    def _modulation(self) -> Floats:
        world, rng = self.world, self._rng
        bins = int(np.ceil(world.days * DAY_S / BIN_S))
        mod = np.ones(bins)
        if world.wander:
            hours = np.zeros(bins // 12 + 1)
            for h in range(1, len(hours)):
                hours[h] = 0.8 * hours[h - 1] + rng.normal(0, world.wander * 0.6)
            mod *= np.exp(np.repeat(hours, 12)[:bins])
        if world.incidents:
            many = int(world.incidents * max(world.days, 1))
            mod[rng.choice(bins, many, replace=False)] *= 20
        begin, end, times = world.incident
        mod[int(begin // BIN_S) : int(end // BIN_S)] *= times
        return mod

    def until(self, end: float) -> list[Events]:
        """Return each row's bad events before `end`, on whichever arm."""
        while self._drawn < end:
            begin = self._drawn
            self._drawn = min(begin + max(3_600.0, begin), self.world.days * DAY_S)
            if self._drawn <= begin:
                break
            pauses = self._paused(begin, self._drawn)
            for n, row in enumerate(self.rows):
                new = self._block(n, row, begin, self._drawn, pauses)
                self._known[n] = joined([self._known[n], new])
        return self._known

    def first_good(self, row: int, begin: float) -> Floats:
        """Draw when each caller's first good request after `begin` is."""
        rate = self.rate * (1 - self._p[row])
        with np.errstate(divide="ignore"):
            return np.asarray(begin + self._rng.exponential(1.0, len(rate)) / rate)

    def asked(self, share: float, seconds: float) -> int:
        """Draw how many requests without an entity an arm with this share gets."""
        return int(self._rng.poisson(self.world.rps * share * seconds))

    def _fresh(self, count: int) -> tuple[Ints, Floats]:
        """Units for requests without an entity."""
        begin, self._units = self._units, self._units + count
        return np.arange(begin, begin + count), self._rng.random(count)

    def _who(self, weights: Floats, count: int) -> Ints:
        cum = np.cumsum(weights)
        at = np.searchsorted(cum, self._rng.random(count) * cum[-1], "right")
        return np.asarray(np.minimum(at, len(cum) - 1))

    def _block(self, n: int, row: Row, begin: float, end: float, pauses: Events) -> Events:
        edges = np.arange(begin, end, BIN_S)
        width = np.minimum(edges + BIN_S, end) - edges
        mod = self._mod[(edges // BIN_S).astype(int)] * width
        parts = [pauses]
        if self.world.callers:
            lam = self.rate * self._p[n]
            base, theirs = lam, np.where(self.draw < self._most, lam, 0.0)
        else:
            base = np.array([self.world.rps * row.p])
            theirs = base * self._most
        parts.append(self._some(edges, width, mod, base, BOTH))
        if row.ratio > 1:
            late = np.clip(edges + width - self.onset, 0, width) / width
            parts.append(self._some(edges, width, mod * late * (row.ratio - 1), theirs, CANDIDATE))
        if self.world.retries:
            parts = [self._retried(part, end) for part in parts]
        found = joined(parts)
        order = np.argsort(found.t, kind="stable")
        return found.only(order)

    def _some(self, edges: Floats, width: Floats, mod: Floats, lam: Floats, kind: int) -> Events:
        rng = self._rng
        hit = rng.poisson(lam.sum() * mod)
        total = int(hit.sum())
        t = np.repeat(edges, hit) + rng.random(total) * np.repeat(width, hit)
        if kind == CANDIDATE:  # an onset inside a bin: that bin's events come after it
            t = np.where(t < self.onset, self.onset, t)
        if self.world.callers:
            unit = self._who(lam, total) if total else np.zeros(0, dtype=np.int64)
            draw = self.draw[unit]
        else:
            unit, draw = self._fresh(total)
            if kind == CANDIDATE:
                draw = draw * self._most
        found = Events(t, unit, draw, np.full(total, kind, dtype=np.int8))
        if kind == CANDIDATE and self.world.harmed:
            inside = unit % self.world.segments < self.world.harmed
            found = found.only(inside)
        return found

    def _retried(self, part: Events, end: float) -> Events:
        rng = self._rng
        more = np.minimum(
            rng.geometric(1 / (1 + self.world.retries), len(part.t)) - 1, MOST_RETRIES
        )
        which = np.repeat(np.arange(len(part.t)), more)
        if not len(which):
            return part
        t = np.minimum(
            part.t[which] + rng.exponential(RETRY_S * MOST_RETRIES / 2, len(which)), end - 1e-6
        )
        unit, draw = part.unit[which], part.draw[which]
        if not self.world.callers:
            unit, draw = self._fresh(len(which))
        extra = Events(t, unit, draw, part.kind[which])
        return joined([part, extra])

    def _paused(self, begin: float, end: float) -> Events:
        if not self.world.pauses:
            return NO_EVENTS
        rng, parts = self._rng, [NO_EVENTS]
        total = self.rate.sum() if self.world.callers else self.world.rps
        for kind, times in ((PRODUCTION_PAUSE, 1.0), (CANDIDATE_PAUSE, self.ratio)):
            for at in begin + rng.random(rng.poisson((end - begin) / self.world.pauses * times)) * (
                end - begin
            ):
                count = rng.poisson(PAUSE_S * total)
                if self.world.callers:
                    unit = self._who(self.rate, count) if count else np.zeros(0, dtype=np.int64)
                    draw = self.draw[unit]
                else:
                    unit, draw = self._fresh(count)
                parts.append(
                    Events(np.full(count, at), unit, draw, np.full(count, kind, dtype=np.int8))
                )
        return joined(parts)


def _rates(world: World) -> Floats:
    n = world.callers
    if world.shape == "zipf":
        rate = 1.0 / np.arange(1, n + 1)
        return np.asarray(rate * world.rps / rate.sum())
    rate = np.full(n, world.rps / n)
    if world.shape == "always-on":
        rate[:] = world.rps / (n - world.heavy)
        rate[: world.heavy] = 1.0
    return rate

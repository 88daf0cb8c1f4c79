"""Simulated rollouts: a canary that advances on proof and goes back on an alarm, or is held.

The policy is the product's default: steps of 1, 5, 25 and 50 %, ten minutes each at least; a step up to
5 % is left on "not doubled" or fewer than 1 in 100, a larger one on "not half as bad again" or fewer
than 1 in 1,000; after the last comes the promotion. Hard kills (crashes, twenty failures in a row) are left out:
they need no statistics and would only help.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log
from typing import Literal

import numpy as np
import units
from units import Design, Seen
from worlds import DAY_S, Events, Floats, Traffic

STEPS = (0.01, 0.05, 0.25, 0.50)
DWELL_S = 600.0
EARLY_STEP, EARLY_MARGIN, EARLY_FLOOR = 0.05, 1.0, 0.01
MARGIN, FLOOR = 0.5, 0.001

End = Literal["promoted", "rolled back", "waiting"]


@dataclass(frozen=True)
class Policy:
    """How a simulated rollout is played."""

    steps: tuple[float, ...] = STEPS
    """Shares; the promise is parted among as many."""
    dwell: float = DWELL_S
    held: float | None = None
    """Stay at this weight and never go forward; the promise of one of the steps is used."""
    unproven: float = 3_600.0
    """Seconds after which a small step is left on the silence of the alarm alone, where fewer than
    `few` callers of the candidate asked: so few cannot prove anything."""
    few: int = 700


@dataclass(frozen=True)
class Outcome:
    """How one run ended."""

    end: End
    at: float
    step: int
    """The step at which it ended."""
    failed: int
    """The candidate's bad requests (first row) since the onset, until the end."""
    reached: tuple[float, ...] = ()
    """When each step began."""
    loose: bool = False
    """Whether a held run of an identical candidate would have been rolled back at ten times alpha."""


def needed(design: Design, weight: float, policy: Policy, alpha: float | None = None) -> float:
    """Return log 1/alpha less the logarithms of the shares of the row and of the step."""
    share = weight * (1 - design.segment_stake) * design.ramp / len(policy.steps)
    return log(1 / (alpha or design.alpha)) - log(share)


def play(traffic: Traffic, design: Design, policy: Policy) -> Outcome:
    """Play one rollout until it is decided or the world ends."""
    end = traffic.world.days * DAY_S
    at, before = 0.0, 0.0
    reached: list[float] = []
    steps = (policy.held,) if policy.held is not None else policy.steps
    for number, weight in enumerate(steps):
        reached.append(at)
        step = Step(traffic, design, policy, at, weight, before)
        if policy.held is not None and traffic.ratio == 1:
            loose = step.sounds_within(end, 10 * design.alpha) < inf
            sounds = step.sounds_within(end) if loose else inf
            ended: End = "rolled back" if sounds < inf else "waiting"
            return Outcome(ended, min(sounds, end), 0, 0, (0.0,), loose)
        sounds, proven = step.play(end)
        if sounds <= min(proven, end):
            return _outcome(traffic, steps, "rolled back", sounds, number, reached)
        if proven > end:
            return _outcome(traffic, steps, "waiting", end, number, reached)
        at, before = proven, weight
    return _outcome(traffic, steps, "promoted", at, len(steps) - 1, reached)


def _outcome(
    traffic: Traffic, steps: tuple[float, ...], end: End, at: float, step: int, reached: list[float]
) -> Outcome:
    """Say how it ended, and count what the candidate failed."""
    failed = 0
    events = traffic.until(at)[0]
    for weight, begin, stop in zip(steps, reached, [*reached[1:], at], strict=False):
        i, j = np.searchsorted(events.t, [max(begin, traffic.onset), np.nextafter(stop, inf)])
        seen, arm = events.only(slice(i, j)).seen(weight)
        failed += int((seen & (arm == 1)).sum())
    return Outcome(end, at, step, failed, tuple(reached))


class Step:
    """One weight of one rollout."""

    def __init__(
        self,
        traffic: Traffic,
        design: Design,
        policy: Policy,
        begin: float,
        weight: float,
        before: float,
    ) -> None:
        self._traffic, self._design, self._policy = traffic, design, policy
        self._begin, self._weight, self._before = begin, weight, before
        self._share = (weight - before) / (1 - before)
        self._good = traffic.first_good(0, begin) if traffic.world.callers else np.zeros(0)

    def play(self, end: float) -> tuple[float, float]:
        """Return when the alarm sounds and when the step is proven; infinite if not."""
        span = 3_600.0 + (self._traffic.onset if self._policy.held is not None else 0.0)
        while True:
            until = min(self._begin + span, end)
            rows = self._rows(until)
            length = until - self._begin
            sounds = self._sounds(rows, length)
            proven = self._proven(rows[0], length) if self._policy.held is None else inf
            if min(sounds, proven) < inf or until >= end:
                return self._begin + sounds, self._begin + proven
            span *= 2

    def _rows(self, until: float) -> list[Seen]:
        return [self._row(events, until) for events in self._traffic.until(until)]

    def _row(self, events: Events, until: float) -> Seen:
        i, j = np.searchsorted(events.t, [self._begin, until])
        cut = events.only(slice(i, j))
        seen, arm = cut.seen(self._weight)
        keyless = not self._traffic.world.callers
        if not keyless:
            seen &= cut.draw >= self._before
        t, unit = cut.t[seen] - self._begin, cut.unit[seen]
        if keyless:
            return Seen(t, unit, arm[seen], self._weight)
        side = np.where(
            self._traffic.draw < self._before, 2, self._traffic.draw < self._weight
        ).astype(np.int8)
        first = self._good - self._begin
        first = first.copy()
        np.minimum.at(first, unit, t)
        return Seen(
            t, unit, arm[seen], self._share, side=side, first=np.where(side == 2, inf, first)
        )

    def _sounds(self, rows: list[Seen], length: float, alpha: float | None = None) -> float:
        found = inf
        for seen, row in zip(rows, self._traffic.rows, strict=True):
            need = needed(self._design, row.weight, self._policy, alpha)
            found = min(found, units.alarm(self._design, seen, need, min(length, found), row.r0))
            for n in range(self._traffic.world.segments):
                part = seen.only(seen.unit % self._traffic.world.segments == n)
                stake = self._design.segment_stake
                more = log((1 - stake) / (stake / ((n + 1) * (n + 2))))
                if part.side is not None and part.first is not None:
                    inside = np.arange(len(part.side)) % self._traffic.world.segments == n
                    part = Seen(
                        part.t,
                        part.unit,
                        part.arm,
                        part.share,
                        side=part.side,
                        first=np.where(inside, part.first, inf),
                    )
                found = min(
                    found, units.alarm(self._design, part, need + more, min(length, found), row.r0)
                )
        return found

    def sounds_within(self, end: float, alpha: float | None = None) -> float:
        """Return when a held run is rolled back; infinite if not."""
        found = self._sounds(self._rows(end), end - self._begin, alpha)
        return self._begin + found

    def _proven(self, seen: Seen, length: float) -> float:
        early = self._weight <= EARLY_STEP
        margin, floor = (EARLY_MARGIN, EARLY_FLOOR) if early else (MARGIN, FLOOR)
        sure = units.certificate(self._design, seen, margin, length)
        when, bad = self._firsts(seen, length)
        sure = min(sure, units.floored(self._design, when, bad, floor))
        if early and self._policy.unproven < min(sure, length):
            asked = int((when <= self._policy.unproven).sum())
            if seen.side is not None and 0 < asked < self._policy.few:
                sure = self._policy.unproven
        sure = max(sure, self._policy.dwell)
        return sure if sure <= length else inf

    def _firsts(self, seen: Seen, length: float) -> tuple[Floats, np.ndarray]:
        """Return the candidate's first requests in order: when, and whether bad."""
        if seen.side is None:
            t = seen.t[seen.arm == 1]
            total = max(self._traffic.asked(self._share, length), len(t))
            every = np.sort(
                np.concatenate([t, np.random.default_rng(len(t)).random(total - len(t)) * length])
            )
            bad = np.zeros(total, dtype=np.bool_)
            bad[np.searchsorted(every, t)] = True
            return every, bad
        assert seen.first is not None
        mine = (seen.side == 1) & (seen.first <= length)
        good = self._good - self._begin
        when, bad = seen.first[mine], seen.first[mine] < good[mine]
        order = np.argsort(when)
        return when[order], bad[order]

"""The product's own judge on the same simulated requests: Counter, Watch and `decide`, second by second.

Two workers count; every request is drawn, good and bad, and reaches one of them by chance. A caller's place in
[0, 1) is its bucket under the rollout's salt, so that the judge by units of `units.py` can be asked about the same
stream. Nothing sleeps: seconds are simulated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Any

import msgspec
import numpy as np
from rollouts import Outcome, Policy, play
from units import Design
from worlds import DAY_S, Events, Floats, Ints, Traffic, World

from kedge.core import values
from kedge.core.automation import decide
from kedge.core.release.commands import Canary, Promote, Rollback
from kedge.core.routing import bucket, key_of
from kedge.core.values import BUCKETS, Automation, CanaryPolicy, State
from kedge.engine.recording.conduct import Tracker
from kedge.engine.recording.counter import Counter, SlowBounds
from kedge.engine.recording.observation import Observation
from kedge.engine.request import Request
from kedge.engine.watch import Watch
from kedge.testing.samples import endpoint, release, run

WORKERS = 2
BEGAN = 1_000 * int(DAY_S)
BOUNDS = SlowBounds(7_000, 12_800)
MICROS = 2_000
SALT = "3f92940a"
"""Of every simulated rollout: a caller's place follows from it, and both judges must see the same."""
COLUMNS, ANSWER = {"x": np.zeros(1)}, {"p": np.zeros(1)}


@dataclass(frozen=True)
class Case:
    """One run of the product."""

    world: World
    ratio: float = 1.0
    onset: float = 0.0
    held: float | None = None
    seconds: int = 7_200


def state_of(weight: float) -> State:
    """Return an endpoint in a canary that goes by itself."""
    policy = values.Policy(audience="internal", canary=CanaryPolicy(on_pass="promote"))
    state = run(
        endpoint(release(1), release(2), policy=policy),
        Promote(1),
        Canary(2, round(weight * BUCKETS)),
    )
    return msgspec.structs.replace(state, automation=Automation(auto=True), salt=SALT)


class Placed(Traffic):
    """Traffic whose callers lie where the rollout's hash puts them."""

    def __init__(self, seed: tuple[int, int], case: Case, salt: str) -> None:
        rng = np.random.Generator(np.random.SFC64(seed))
        most = case.held if case.held is not None else max(Policy().steps)
        world = replace(case.world, days=case.seconds / DAY_S)
        super().__init__(rng, world, ratio=case.ratio, onset=case.onset, most=most)
        self.names = [f"caller-{seed[1]}-{number}" for number in range(case.world.callers)]
        if self.names:
            key = key_of(salt)
            self.draw = np.array([bucket(key, name) for name in self.names]) / BUCKETS


@dataclass(frozen=True)
class _Requests:
    """All requests in order of time: the bad ones are the traffic's, the good ones are drawn beside."""

    t: Floats
    unit: Ints
    draw: Floats
    event: Ints
    """Which of the traffic's events it is; -1: a good one."""


def _requests(traffic: Placed, seconds: int, seed: int) -> tuple[_Requests, Events]:
    """Return every request. A bad event of the other arm is a good request where it is not seen."""
    world = traffic.world
    events = traffic.until(seconds)[0]
    rng = np.random.Generator(np.random.SFC64((seed, 1)))
    usual = traffic.rate if world.callers else np.array([world.rps])
    good = rng.poisson(usual.sum() * (1 - world.p) * seconds)
    t = rng.random(good) * seconds
    if world.callers:
        cum = np.cumsum(usual)
        unit = np.minimum(
            np.searchsorted(cum, rng.random(good) * cum[-1], "right"), world.callers - 1
        )
        draw = traffic.draw[unit]
    else:
        unit, draw = np.full(good, -1), rng.random(good)
    n = len(events.t)
    every = _Requests(
        np.concatenate([t, events.t]),
        np.concatenate([unit, events.unit]),
        np.concatenate([draw, events.draw]),
        np.concatenate([np.full(good, -1), np.arange(n)]),
    )
    order = np.argsort(every.t, kind="stable")
    return _Requests(
        every.t[order], every.unit[order], every.draw[order], every.event[order]
    ), events


def run_product(case: Case, seed: tuple[int, int]) -> Outcome:
    """Play one rollout with the product's code."""
    steps = (case.held,) if case.held is not None else Policy().steps
    state = state_of(steps[0])
    traffic = Placed(seed, case, state.salt)
    requests, events = _requests(traffic, case.seconds, seed[1])
    rng = np.random.Generator(np.random.SFC64((seed[1], 2)))
    worker = rng.integers(0, WORKERS, len(requests.t))
    counters = [Counter(f"w{n}", state) for n in range(WORKERS)]
    trackers = [Tracker(state.salt) for _ in range(WORKERS)]
    watch, number, step = Watch(state), 0, 0
    reached, begin = [0.0], 0
    seen, _ = events.seen(steps[0])
    for second in range(case.seconds):
        end = int(np.searchsorted(requests.t, second + 1))
        rows: list[list[Observation]] = [[] for _ in range(WORKERS)]
        for n in range(begin, end):
            event = requests.event[n]
            mine = requests.draw[n] < steps[step]
            if event >= 0 and not seen[event]:
                continue  # the other arm's own failure
            entity = traffic.names[requests.unit[n]] if traffic.names else None
            asked = Request(id="r", columns=COLUMNS, rows=1, entity=entity, draw=0)
            if (
                mine
            ):  # what the serving loop tells of the candidate: production answers where it fails
                trackers[worker[n]].routed(entity)
                if event >= 0:
                    trackers[worker[n]].failed(entity, BEGAN + float(requests.t[n]))
                else:
                    trackers[worker[n]].answered()
            rows[worker[n]].append(
                Observation(
                    BEGAN + second,
                    asked,
                    int(mine),
                    MICROS,
                    bool(event >= 0),
                    state.weight,
                    ANSWER,
                )
            )
        begin = end
        for n, counter in enumerate(counters):
            number += 1
            streak, conduct = trackers[n].taken()
            window, _ = counter.window(
                rows[n],
                BEGAN + second,
                BOUNDS,
                number=number,
                paired=False,
                weight=state.weight,
                lost=0,
                streak=streak,
                broken=0,
                conduct=conduct,
            )
            watch.fold(window)
        told = decide(state, watch.facts(BEGAN + second + 1.0))
        if isinstance(told.command, Rollback):
            return Outcome("rolled back", second + 1.0, step, 0, tuple(reached))
        if isinstance(told.command, Promote) and case.held is None:
            step += 1
            if step == len(steps):
                return Outcome("promoted", second + 1.0, step - 1, 0, tuple(reached))
            reached.append(second + 1.0)
            state = msgspec.structs.replace(state, weight=round(steps[step] * BUCKETS))
            seen, _ = events.seen(steps[step])
    return Outcome("waiting", float(case.seconds), step, 0, tuple(reached))


def run_units(case: Case, seed: tuple[int, int], design: Design | None = None) -> Outcome:
    """Play the same stream with the judge of `units.py`."""
    first = case.held if case.held is not None else Policy().steps[0]
    traffic = Placed(seed, case, state_of(first).salt)
    traffic.until(case.seconds)  # drawn before anything else, as for the product
    return play(traffic, design or Design(), Policy(held=case.held))


def agree(ours: Outcome, theirs: Outcome, seconds: float) -> bool:
    """Return whether two judges ended the same run alike: the same end, and within `seconds` for each step."""
    apart = abs(ours.at - theirs.at)
    return ours.end == theirs.end and (
        ours.end == "waiting" or apart <= seconds * len(theirs.reached)
    )


def compare(case: Case, runs: int, seed: int, seconds: float) -> dict[str, Any]:
    """Return how many runs of the product ended how, and how many as the judge by units says."""
    ends: dict[str, int] = {}
    alike, apart = 0, []
    for number in range(runs):
        theirs, ours = run_product(case, (seed, number)), run_units(case, (seed, number))
        ends[theirs.end] = ends.get(theirs.end, 0) + 1
        alike += agree(ours, theirs, seconds)
        gap = abs(ours.at - theirs.at) if ours.end == theirs.end else inf
        apart.append(gap)
    return {
        "runs": runs,
        "ends": ends,
        "agree": alike,
        "apart_s": [None if gap == inf else round(gap, 1) for gap in apart],
    }

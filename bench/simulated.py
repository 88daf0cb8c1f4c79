"""The table of simulated canaries: worlds, candidates, and the promises for each.

A *held* scenario stays at one weight for the world's time, with one step's part of alpha. A *ramp* plays the
whole default policy. `identical`: the candidate is the same (or within what is tolerated), and a rollback
is false. `worse`: it is worse for every caller, and a promotion is false. In held scenarios
a candidate that becomes worse after some hours has a day from then on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from math import inf, log, sqrt
from typing import Any, Literal

import canaries
import numpy as np
from rollouts import Outcome, Policy, play
from units import Design
from worlds import DAY_S, Events, Row, Traffic, World

HOUR_S = 3_600.0
MINUTES = 1_440


@dataclass(frozen=True)
class Scenario:
    """One line of the table."""

    world: World
    kind: Literal["identical", "worse"] = "identical"
    ratio: float = 1.0
    onset: float = 0.0
    held: float | None = None
    """The weight; None: the ramp."""
    promised: bool = False
    """Whether the project promises a share of 90 % of it: promoted, or found within a day."""
    oracle: bool = False
    peers: bool = False
    name: str = ""
    design: Design = field(default_factory=Design)
    weight: float | None = None
    """Of the first row in the alarm, where it is not the world's."""
    steps: tuple[float, ...] | None = None
    share: float = 1.0
    """Of the runs that the table has: what takes long is run less often."""

    @property
    def title(self) -> str:
        """Its name in the table."""
        if self.name:
            return self.name
        what = "identical" if self.ratio == 1 else f"{self.ratio:g} x"
        if self.kind == "identical" and self.ratio != 1:
            what = f"{self.ratio:g} x, tolerated"
        late = f" from hour {self.onset / HOUR_S:g}" if self.onset else ""
        where = "ramp" if self.held is None else f"at {self.held:.0%}"
        return f"{self.world.name}: {what}{late}, {where}"


@dataclass(frozen=True)
class Run:
    """What one run of one scenario gave."""

    outcome: Outcome
    oracle: int | None = None
    """Failed requests of the candidate when a test that knows both rates stops."""
    minutes: Any = None
    """(4, MINUTES): requests of production and candidate, then the bad ones."""


# ---------------------------------------------------------------- worlds

LATENCY = Row("latency.p99", weight=0.1, r0=2.0)
QUALITY = Row("quality", weight=0.15)
TAIL_P99, TAIL_P50 = 0.0013, 0.244
"""Lognormal(1) latencies: how many take over twice production's 99th percentile, and its median."""
ALL = (
    Row("latency.p50", TAIL_P50, 0.05, 2.0),
    Row("latency.p99", TAIL_P99, 0.1, 2.0),
    Row("quality", 0.05, 0.15),
)

KEYLESS = World("keyless 100/s, 1 %")
SLOW = World("keyless 20/s, 1 %", rps=20.0)
RARE = World("keyless 100/s, 0.2 %", p=0.002)
C50 = World("50 callers, 1/s each, 1 %", 50, 50.0)
C200 = World("200 callers, 1/s each, 0.2 %", 200, 200.0, p=0.002)
C200_LIGHT = World("200 callers, 0.05/s each, 1 %", 200, 10.0)
C1000 = World("1,000 callers, 0.1/s each, 1 %", 1_000, 100.0)
C1000_CHATTY = World("1,000 callers, 1/s each, 0.2 %", 1_000, 1_000.0, p=0.002)
C1000_LIGHT = World("1,000 callers, 0.02/s each, 1 %", 1_000, 20.0)
C20K = World("20,000 callers, 100/s, 0.5 %", 20_000, 100.0, p=0.005)
ZIPF1000 = World("1,000 callers, Zipf, 100/s, 0.5 %", 1_000, 100.0, "zipf", p=0.005)
ZIPF20K = World("20,000 callers, Zipf, 100/s, 0.5 %", 20_000, 100.0, "zipf", p=0.005)
HEAVY = World("50 always on and 20,000 light, 1 %", 20_050, 1.16, "always-on", 50)
FRAIL = World("20,000 callers, risk varies 10, 20/s, 1 %", 20_000, 20.0, frailty=10.0)
FRAIL1000 = World("1,000 callers, risk varies 1, 20/s, 1 %", 1_000, 20.0, frailty=1.0)
STICKY = World("20,000 callers, 1 % always fail, 2/s", 20_000, 2.0, p=0.002, unlucky=0.01)
TAILS = World("keyless 10/s, latency tail, every guardrail", rps=10.0, p=TAIL_P99, also=ALL)
TAILS_CALLERS = World(
    "1,000 callers, 0.01/s each, latency tail, every guardrail", 1_000, 10.0, p=TAIL_P99, also=ALL
)
SLOWER = World("keyless 100/s, p99 latency", p=TAIL_P99, first=LATENCY)
SLOWER_CALLERS = World("1,000 callers, p99 latency", 1_000, 100.0, p=TAIL_P99, first=LATENCY)
PAUSES = World("keyless 100/s, processes pause", p=1e-5, pauses=7_200.0)
PAUSES_TOO = World("keyless 100/s, 0.2 %, processes pause", p=0.002, pauses=7_200.0)
PAUSES_CALLERS = World("20,000 callers, processes pause", 20_000, 100.0, p=1e-5, pauses=7_200.0)
RETRIES = World("keyless 100/s, 0.5 %, 2 retries fail too", p=0.005, retries=2.0)
RETRIES_CALLERS = World(
    "1,000 callers, 0.1/s each, 0.5 %, 2 retries fail too", 1_000, 100.0, p=0.005, retries=2.0
)
INCIDENTS = World(
    "20,000 callers, incidents and wandering rate", 20_000, 100.0, p=0.002, incidents=10, wander=1.0
)
INCIDENTS_KEYLESS = World(
    "keyless 100/s, incidents and wandering rate", p=0.002, incidents=10, wander=1.0
)
FORTNIGHT = World(
    "14 days, 1,000 callers, 100 a day, 2 % always fail",
    1_000,
    1.157,
    p=1e-4,
    unlucky=0.02,
    days=14,
)
FORTNIGHT_RISK = World(
    "14 days, 2,000 callers, 2 a day, risk varies 10", 2_000, 0.0463, p=0.05, frailty=10.0, days=14
)
SEGMENTS = World("keyless 100/s, 1 %, 100 segments", segments=100)
LABELS_002 = World("labels 0.02/s, 20 % wrong", rps=0.02, p=0.2, first=QUALITY, days=2)
LABELS_02 = World("labels 0.2/s, 20 % wrong", rps=0.2, p=0.2, first=QUALITY)
LABELS_1 = World("labels 1/s, 20 % wrong", rps=1.0, p=0.2, first=QUALITY)
LABELS_CALLERS = World(
    "labels 0.2/s of 1,000 callers, 20 % wrong, risk varies 1",
    1_000,
    0.2,
    p=0.2,
    frailty=1.0,
    first=QUALITY,
    days=2,
)


def late(world: World, hours: float) -> World:
    """Return the world with a day after an onset."""
    return replace(world, days=1 + hours / 24)


def identical() -> Iterator[Scenario]:
    """Candidates that are the same: none may be rolled back."""
    for share in (0.01, 0.05, 0.25, 0.50):
        yield Scenario(KEYLESS, held=share, peers=True, name=f"A/A at {share:.0%}")
    yield Scenario(
        replace(KEYLESS, incident=(3_600.0, 4_500.0, 6.0)),
        held=0.05,
        peers=True,
        name="shared incident",
    )
    yield Scenario(C50, held=0.25, peers=True)
    yield Scenario(C200, held=0.05, peers=True)
    yield Scenario(C200, held=0.25, peers=True)
    yield Scenario(C1000, held=0.25, peers=True)
    yield Scenario(C1000_CHATTY, held=0.25, peers=True)
    yield Scenario(C20K, held=0.05, peers=True)
    yield Scenario(ZIPF1000, held=0.25, peers=True)
    yield Scenario(ZIPF20K, held=0.05, peers=True)
    for share in (0.01, 0.05, 0.25):
        yield Scenario(HEAVY, held=share, peers=True)
    for world in (FRAIL, FRAIL1000, STICKY):
        yield Scenario(world, held=0.25, peers=True)
    yield Scenario(TAILS, held=0.25)
    yield Scenario(TAILS_CALLERS, held=0.25)
    yield Scenario(SLOWER, ratio=2.0, held=0.25)
    yield Scenario(SLOWER_CALLERS, ratio=2.0, held=0.25)
    for world, share in (
        (PAUSES, 0.05),
        (PAUSES, 0.25),
        (PAUSES_TOO, 0.25),
        (PAUSES_CALLERS, 0.50),
    ):
        yield Scenario(world, held=share, peers=True)
    for world in (RETRIES, RETRIES_CALLERS, INCIDENTS, INCIDENTS_KEYLESS):
        yield Scenario(world, held=0.25, peers=True)
    yield Scenario(FORTNIGHT, held=0.25)
    yield Scenario(FORTNIGHT_RISK, held=0.05)
    yield Scenario(SEGMENTS, held=0.25, share=0.1, name="100 segments, healthy")
    for world, share in (
        (LABELS_002, 0.05),
        (LABELS_02, 0.25),
        (LABELS_1, 0.01),
        (LABELS_CALLERS, 0.25),
    ):
        yield Scenario(world, held=share)


def promoted() -> Iterator[Scenario]:
    """Ramps of a candidate that is the same: how many arrive, and when."""
    for world in (KEYLESS, SLOW, RARE, C1000, C1000_CHATTY, C1000_LIGHT, C20K):
        yield Scenario(world, promised=True)
    for world in (
        C50,
        C200,
        C200_LIGHT,
        ZIPF1000,
        ZIPF20K,
        HEAVY,
        FRAIL,
        FRAIL1000,
        PAUSES_TOO,
        RETRIES_CALLERS,
        INCIDENTS_KEYLESS,
    ):
        yield Scenario(world)


def not_promoted() -> Iterator[Scenario]:
    """Ramps of a candidate at the margin and at twice the margin: none may arrive."""
    for world in (
        KEYLESS,
        RARE,
        C50,
        C200,
        C1000,
        C1000_CHATTY,
        C20K,
        ZIPF1000,
        ZIPF20K,
        HEAVY,
        FRAIL,
        FRAIL1000,
        PAUSES_TOO,
        RETRIES,
        RETRIES_CALLERS,
        INCIDENTS_KEYLESS,
    ):
        for ratio in (1.5, 2.0):
            few = world in (KEYLESS, C1000, C1000_CHATTY, C20K, RARE)
            yield Scenario(world, "worse", ratio, promised=few and ratio == 2.0)


def found() -> Iterator[Scenario]:
    """Candidates that are worse at once, or after hours, at one weight."""
    for share, p in ((0.05, 0.05), (0.25, 0.02), (0.01, 0.05), (0.05, 0.02), (0.5, 0.015)):
        yield Scenario(
            KEYLESS,
            "worse",
            p / KEYLESS.p,
            held=share,
            oracle=True,
            peers=True,
            promised=p >= 0.02,
            name=f"{p:.1%} at {share:.0%}",
        )
    lab = Design(segment_stake=0.0, ramp=1.0)
    yield Scenario(
        KEYLESS,
        "worse",
        5.0,
        held=0.05,
        oracle=True,
        design=lab,
        weight=1.0,
        steps=(0.05,),
        name="5.0% at 5%, lab",
    )
    yield Scenario(
        late(KEYLESS, 2),
        "worse",
        5.0,
        2 * HOUR_S,
        0.05,
        promised=True,
        name="5.0% at 5%, from the second hour on",
    )
    for ratio in (2.0, 10.0):
        for hours in (0, 6):
            for world in (SLOW, C1000, C1000_CHATTY, C1000_LIGHT, C20K, ZIPF1000, ZIPF20K):
                yield Scenario(
                    late(world, hours), "worse", ratio, hours * HOUR_S, 0.25, promised=True
                )
    for hours in (0, 6, 12):
        for world in (C200, C200_LIGHT):
            yield Scenario(late(world, hours), "worse", 10.0, hours * HOUR_S, 0.25, promised=True)
    yield Scenario(late(ZIPF1000, 12), "worse", 2.0, 12 * HOUR_S, 0.25, promised=True)
    for hours in (0, 6):
        for world, ratio in (
            (C200, 2.0),
            (C50, 10.0),
            (HEAVY, 2.0),
            (HEAVY, 10.0),
            (FRAIL, 2.0),
            (FRAIL1000, 2.0),
            (RETRIES_CALLERS, 2.0),
            (INCIDENTS, 2.0),
            (PAUSES_TOO, 2.0),
        ):
            yield Scenario(late(world, hours), "worse", ratio, hours * HOUR_S, 0.25)
    yield Scenario(SLOWER, "worse", 4.0, held=0.25)
    yield Scenario(SLOWER_CALLERS, "worse", 10.0, held=0.25)
    yield Scenario(
        replace(SEGMENTS, harmed=5, days=0.25),
        "worse",
        5.0,
        held=0.25,
        share=0.1,
        name="100 segments, five of them 5 %",
    )
    for world, share, ratio in (
        (LABELS_002, 0.05, 4.0),
        (LABELS_02, 0.05, 4.0),
        (LABELS_1, 0.01, 2.0),
        (LABELS_02, 0.25, 1.5),
        (LABELS_CALLERS, 0.25, 2.0),
    ):
        yield Scenario(world, "worse", ratio, held=share)


GROUPS = {
    "identical": identical,
    "promoted": promoted,
    "not promoted": not_promoted,
    "found": found,
}

# ---------------------------------------------------------------- running


def simulate(scenario: Scenario, seed: int, run: int) -> Run:
    """Run one scenario once. The same seed and run give the same result, whatever else runs."""
    rng = np.random.Generator(np.random.SFC64((seed, run)))
    policy = (
        Policy(held=scenario.held)
        if scenario.steps is None
        else Policy(scenario.steps, held=scenario.held)
    )
    most = scenario.held if scenario.held is not None else max(policy.steps)
    world = scenario.world
    if scenario.weight is not None:
        first = world.first or Row()
        world = replace(world, first=replace(first, weight=scenario.weight))
    traffic = Traffic(rng, world, ratio=scenario.ratio, onset=scenario.onset, most=most)
    outcome = play(traffic, scenario.design, policy)
    oracle = _oracle(traffic, scenario) if scenario.oracle else None
    minutes = _minutes(traffic, scenario) if scenario.peers else None
    return Run(outcome, oracle, minutes)


def _candidate(traffic: Traffic, share: float, end: float) -> Events:
    events = traffic.until(end)[0]
    seen, arm = events.seen(share)
    mine = seen & (arm == 1)
    return events.only(mine)


def _oracle(traffic: Traffic, scenario: Scenario) -> int:
    """Return the failures at which a test stops that knows both rates and the exposure."""
    assert scenario.held is not None
    world, share = traffic.world, scenario.held
    end = HOUR_S
    while True:
        t = _candidate(traffic, share, min(end, world.days * DAY_S)).t
        k = np.arange(1, len(t) + 1)
        excess = world.rps * share * world.p * (scenario.ratio - 1)
        hit = np.flatnonzero(k * log(scenario.ratio) - excess * t >= log(1 / scenario.design.alpha))
        if len(hit) or end >= world.days * DAY_S:
            return int(hit[0]) + 1 if len(hit) else len(t)
        end *= 2


def _minutes(traffic: Traffic, scenario: Scenario) -> Any:
    """Return the first day minute by minute, for rules that look at minutes."""
    assert scenario.held is not None
    world, share = traffic.world, scenario.held
    events = traffic.until(DAY_S)[0]
    seen, arm = events.seen(share)
    rng = np.random.Generator(np.random.SFC64(len(events.t)))
    found = np.zeros((4, MINUTES), dtype=np.int64)
    for a in (0, 1):
        part = share if a else 1 - share
        rate = (
            traffic.rate[(traffic.draw < share) == bool(a)].sum()
            if world.callers
            else world.rps * part
        )
        bad = np.bincount((events.t[seen & (arm == a)] // 60).astype(int), minlength=MINUTES)[
            :MINUTES
        ]
        found[2 + a] = bad
        found[a] = np.maximum(rng.poisson(60 * rate, MINUTES), bad)
    return found


def _some(task: tuple[Scenario, int, int, int]) -> list[Run]:
    scenario, seed, begin, end = task
    return [simulate(scenario, seed, run) for run in range(begin, end)]


def run_all(
    pool: ProcessPoolExecutor | None, scenario: Scenario, seed: int, runs: int
) -> list[Run]:
    """Run a scenario so many times, in a pool or here."""
    size = max(runs // 16, 1)
    tasks = [(scenario, seed, begin, min(begin + size, runs)) for begin in range(0, runs, size)]
    parts = pool.map(_some, tasks) if pool is not None else map(_some, tasks)
    return [run for part in parts for run in part]


# ---------------------------------------------------------------- lines


def error(share: float, runs: int) -> float:
    """Return the standard error of a share, at least that of half a run."""
    return sqrt(max(share * (1 - share), 0.5 / runs * (1 - 0.5 / runs)) / runs)


def line(scenario: Scenario, runs: Sequence[Run]) -> dict[str, Any]:
    """Return one line of the table."""
    n, onset = len(runs), scenario.onset
    back = [run.outcome for run in runs if run.outcome.end == "rolled back"]
    early = sum(one.at < onset for one in back)
    share = len(back) / n
    found: dict[str, Any] = {
        "scenario": scenario.title,
        "kind": scenario.kind,
        "share": scenario.held,
        "ratio": scenario.ratio,
        "onset_h": onset / HOUR_S,
        "runs": n,
        "rolled_back": share,
        "se": round(error(share, n), 5),
        "before_onset": early / n,
        "promised": scenario.promised,
        "median_s": _median([one.at - onset for one in back], n),
    }
    if scenario.kind == "worse":
        within = sum(onset <= one.at <= onset + DAY_S for one in back)
        failed = [run.outcome.failed for run in runs]
        found |= {
            "found_24h": within / n,
            "errors": float(np.mean(failed)),
            "errors_median": float(np.median(failed)),
            "errors_se": float(np.std(failed) / sqrt(n)),
        }
    if scenario.held is None:
        ready = [run.outcome.at for run in runs if run.outcome.end == "promoted"]
        waiting = [run.outcome.step for run in runs if run.outcome.end == "waiting"]
        found |= {
            "promoted": len(ready) / n,
            "promoted_se": round(error(len(ready) / n, n), 5),
            "promoted_median_s": float(np.median(ready)) if ready else None,
            "waiting_at_step": np.bincount(waiting, minlength=4).tolist(),
        }
    elif scenario.kind == "identical" and scenario.ratio == 1:
        found["at_ten_alpha"] = sum(run.outcome.loose for run in runs) / n
    if scenario.oracle:
        found["oracle_errors"] = float(np.mean([run.oracle for run in runs]))
    if scenario.peers:
        found["others"] = others(np.stack([run.minutes for run in runs]), scenario.held or 0.5)
    return found


def _median(times: list[float], runs: int) -> float | None:
    """Return the median over all runs; None where half were never rolled back."""
    if 2 * len(times) <= runs:
        return None
    every = sorted(times) + [inf] * (runs - len(times))
    return float(every[runs // 2])


def others(minutes: Any, share: float) -> dict[str, Any]:
    """Return what rules that others ship do with the same runs."""
    units0, units, bad0, bad = (minutes[:, i] for i in range(4))
    rng = np.random.Generator(np.random.SFC64(1))
    compared = rng.binomial(bad0, min(share / (1 - share), 1.0))
    total = np.cumsum(bad, axis=1)
    stops = {
        "argo-like": canaries.argo_like(units, bad),
        "kayenta-like": canaries.kayenta_like(bad, compared),
        "peeking z": canaries.peeking(units, bad, units0, bad0),
    }
    shown = {}
    for name, stop in stops.items():
        last = np.where(np.isinf(stop), bad.shape[1], stop).astype(int) - 1
        middle = float(np.quantile(stop, 0.5, method="higher"))
        shown[name] = {
            "rolled_back": float(np.isfinite(stop).mean()),
            "median_s": None if middle == inf else 60 * middle,
            "errors": float(total[np.arange(len(stop)), last].mean()),
        }
    return shown

"""Cost by unit: the rate of wrong verdicts and the time of right ones, in simulated worlds.

    python bench/costs.py [--runs 1000] [--only NAME] [--seed 1]

`table(runs, seed)` returns one row per world, for other benches. The bets are the product's own
(`kedge.core.evidence.cost_bets`); the tests hold the product's judge against them, window by window.
Figures are fractions of the runs; `alike` is an identical candidate, `edge` one that costs exactly
1 + worse_by times production, `dearer` one that costs twice as much.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, log
from typing import Any

import numpy as np

from kedge.core.evidence.bets import LOOK_S, LOOKS
from kedge.core.evidence.cost_bets import (
    BETS,
    Scale,
    callers_log_e,
    learned,
    pairs_log_e,
)
from kedge.core.evidence.cost_judge import (
    ALPHA,
    FIRST_SHARE,
    LEARN_CALLERS,
    LEARN_UNITS,
    LEAST,
)
from kedge.core.evidence.stats import log_mixture

WORSE_BY = 0.2
STEPS = 4
"""Declared steps, which share the promise of `fail`."""
RATIOS = {"alike": 1.0, "edge": 1 + WORSE_BY, "dearer40": 1.4, "dearer": 2.0}
LEARNERS = 26 / 256


@dataclass(frozen=True)
class World:
    """Callers and their costs. Costs are lognormal: a level of each caller, and each request."""

    name: str
    share: float
    callers: int = 0
    """0: requests without a caller."""
    zipf: float = 0.0
    level: float = 0.0
    sigma: float = 0.5
    requests: int = 100_000
    """In a day, of both arms."""
    cap: float = 0.0
    """The declared `cost.max`; 0: learned."""
    paired: bool = False


WORLDS = (
    *(
        World(f"{n:,} callers, Zipf {z:g}, level {lev:g}", w, n, z, lev)
        for n, z, lev in (
            (5_000, 0.0, 0.5),
            (1_000, 1.0, 0.5),
            (1_000, 1.0, 1.0),
            (10_000, 1.1, 1.0),
            (200, 0.0, 0.5),
            (200, 1.0, 0.5),
            (20_000, 0.0, 0.5),
        )
        for w in (0.05, 0.25)
    ),
    World("20,000 callers, lognormal 2.5 each", 0.01, 20_000, 0.0, 2.5, 0.1),
    World("20,000 callers, lognormal 2 each", 0.05, 20_000, 0.0, 2.0, 0.1),
    *(
        World(f"keyless, lognormal {sigma:g}", w, sigma=sigma, requests=n)
        for sigma in (0.2, 0.5, 1.0, 2.0, 2.5)
        for w, n in ((0.01, 400_000), (0.05, 200_000), (0.5, 40_000))
    ),
    *(
        World(
            f"keyless, lognormal {sigma:g}, max {cap:g}",
            0.01,
            sigma=sigma,
            requests=400_000,
            cap=cap,
        )
        for sigma, cap in ((0.5, 10.0), (2.5, 10.0), (2.5, 1_000.0))
    ),
    World("pairs, 1,000 callers, Zipf 1, level 1", 0.5, 1_000, 1.0, 1.0, paired=True),
    World("pairs, keyless, lognormal 1", 0.5, sigma=1.0, requests=20_000, paired=True),
    World("pairs, keyless, lognormal 2.5", 0.5, sigma=2.5, requests=20_000, paired=True),
)
Times = tuple[float, float]
"""When `pass` and `fail` were proven, in hours since the step began; inf: not."""


def callers(rng: np.random.Generator, world: World) -> dict[str, Times]:
    """Play one day of callers that are looked at, for every ratio on the same draws."""
    n = world.callers
    size = np.arange(1, n + 1.0) ** -world.zipf
    arm = rng.random(n) < world.share
    teach = rng.random(n) < LEARNERS
    own = np.exp(rng.normal(0, world.level, n))
    at = [look for look in LOOK_S if look <= 86_400]
    times, sums = np.zeros(n), np.zeros((2, n))
    found = dict.fromkeys(RATIOS, (inf, inf))
    caps = dict.fromkeys(RATIOS, world.cap)
    for begin, look in zip([0.0, *at], at, strict=False):
        many = rng.poisson(world.requests * (look - begin) / 86_400)
        who = rng.choice(n, many, p=size / size.sum())
        times += np.bincount(who, minlength=n)
        for side in range(1 + world.paired):
            cost = own[who] * np.exp(rng.normal(0, world.sigma, many))
            sums[side] += np.bincount(who, cost, n)
        met = times > 0
        mean = sums / np.maximum(times, 1)
        first = met & teach & (~arm | world.paired)
        if first.sum() < LEARN_CALLERS:
            continue
        for name, ratio in RATIOS.items():
            scale = learned(mean[0][first], np.ones(int(first.sum())), WORSE_BY, caps[name])
            caps[name] = scale.cap
            kept = met & ~teach
            if world.paired:
                scale = Scale(WORSE_BY, scale.cap)
                ours, theirs = mean[0][kept], ratio * mean[1][kept]
                log_e = pairs_log_e(ours, theirs, scale)
            else:
                ours, theirs = mean[0][kept & ~arm], ratio * mean[0][kept & arm]
                log_e = callers_log_e(ours, theirs, scale)
            if min(len(ours), len(theirs)) >= LEAST:
                found[name] = _first(found[name], log_e, look / 3600, 2 * LOOKS, world.paired)
    return found


def _first(before: Times, log_e: Times, at: float, looks: int, paired: bool) -> Times:
    needed = log(looks / ALPHA)
    more = -log(FIRST_SHARE / (1 if paired else STEPS))
    return (
        min(before[0], at if log_e[0] >= needed else inf),
        min(before[1], at if log_e[1] >= needed + more else inf),
    )


def keyless(rng: np.random.Generator, world: World) -> dict[str, Times]:
    """Play one day of requests without a caller, looked at after each."""
    n = world.requests
    cost = np.exp(rng.normal(0, world.sigma, n))
    other = np.exp(rng.normal(0, world.sigma, n)) if world.paired else cost
    arm = np.ones(n, bool) if world.paired else rng.random(n) < world.share
    prod = np.flatnonzero(~arm | world.paired)
    begin = prod[LEARN_UNITS]
    scale = learned(cost[prod[:LEARN_UNITS]], np.ones(LEARN_UNITS), WORSE_BY, world.cap)
    found = {}
    for name, ratio in RATIOS.items():
        odds = world.share / (1 - world.share)
        y0, y1 = scale.ours(cost[begin:]), scale.theirs(ratio * other[begin:])
        logs = []
        for sign, room in ((1, scale.centre), (-1, 1 - scale.centre)):
            if world.paired:
                factor = [1 - b * sign * (y1 - y0) for b in BETS]
            else:
                bets = BETS * min(1 / (1 - room), 1 / (odds * room))
                apart = np.where(
                    arm[begin:], -sign * (y1 - scale.centre), sign * odds * (y0 - scale.centre)
                )
                factor = [1 + b * apart for b in bets]
            logs.append(log_mixture(np.cumsum(np.log(np.array(factor)), axis=1).T))
        fewest = np.cumsum(arm[begin:]) >= LEAST
        needed = log(1 / ALPHA)
        more = needed - log(FIRST_SHARE / (1 if world.paired else STEPS))
        hours = [
            (begin + int(hit[0])) / n * 24
            if len(hit := np.flatnonzero(fewest & (of >= level)))
            else inf
            for of, level in zip(logs, (needed, more), strict=True)
        ]
        found[name] = hours[0], hours[1]
    return found


def table(runs: int, seed: int, only: str = "") -> Iterator[dict[str, Any]]:
    """Play every world `runs` times; a row is made as soon as its world is done."""
    for number, world in enumerate(WORLDS):
        if only not in world.name:
            continue
        play = callers if world.callers else keyless
        days = [play(np.random.default_rng((seed, number, run)), world) for run in range(runs)]
        row: dict[str, Any] = {"world": world.name, "share": world.share, "runs": runs}
        for name in RATIOS:
            for at, word in enumerate(("pass", "fail")):
                hours = np.array([day[name][at] for day in days])
                there = np.isfinite(hours)
                row[f"{name}_{word}"] = float(there.mean())
                row[f"{name}_{word}_h"] = float(np.median(hours[there])) if there.any() else None
        yield row


def main() -> None:
    """Print the table as lines, and as JSON at the end."""
    ask = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    ask.add_argument("--runs", type=int, default=1_000)
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--only", default="", help="worlds whose name contains this")
    asked = ask.parse_args()
    rows = []
    for row in table(asked.runs, asked.seed, asked.only):
        rows.append(row)
        shown = " ".join(
            f"{name} {row[name]:.3f}"
            + (f" ({row[name + '_h']:.1f} h)" if row[name + "_h"] is not None else "")
            for name in (
                "alike_fail",
                "edge_pass",
                "edge_fail",
                "dearer40_pass",
                "alike_pass",
                "dearer_fail",
            )
        )
        print(f"{row['world']:38s} {100 * row['share']:4g} %  {shown}", file=sys.stderr, flush=True)
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

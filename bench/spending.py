"""Cost by caller, simulated: whether a candidate that costs more fails and an identical one passes.

A caller's value is its mean cost in the window. It is capped at twice 1.2 x the 95 % quantile of production's
callers before the comparison, production's at that over (1 + margin); bets use the arms' realised numbers, at 12
looks. The asymptotic test beside it is a difference of means over callers at the same looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt
from typing import Any

import numpy as np
from simulated import error
from units import log_mean
from worlds import Floats, Mask

MARGIN, ALPHA, LOOKS = 0.2, 0.01, 12
LAMBDAS = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.8])
LEAST = 100
"""Callers at the first look."""
Z = 3.34
"""One-sided 1 % over 12 looks."""


@dataclass(frozen=True)
class Costs:
    """Callers and what each costs."""

    name: str
    callers: int
    spread: float
    """Standard deviation of the logarithm; 0: Zipf, the k-th costs 1/k."""
    share: float


CASES = (
    Costs("20,000 callers, lognormal 0.5, 25 %", 20_000, 0.5, 0.25),
    Costs("20,000 callers, lognormal 1, 5 %", 20_000, 1.0, 0.05),
    Costs("20,000 callers, lognormal 1, 25 %", 20_000, 1.0, 0.25),
    Costs("20,000 callers, lognormal 2, 5 %", 20_000, 2.0, 0.05),
    Costs("20,000 callers, lognormal 2.5, 1 %", 20_000, 2.5, 0.01),
    Costs("2,000 callers, lognormal 2.5, 5 %", 2_000, 2.5, 0.05),
    Costs("10,000 callers, Zipf, 1 %", 10_000, 0.0, 0.01),
    Costs("10,000 callers, Zipf, 25 %", 10_000, 0.0, 0.25),
    Costs("200 callers, lognormal 1, 5 %", 200, 1.0, 0.05),
    Costs("200 callers, lognormal 1, 25 %", 200, 1.0, 0.25),
)


def drawn(rng: np.random.Generator, case: Costs, count: int) -> Floats:
    """Return what so many callers cost."""
    if case.spread:
        return np.exp(rng.normal(0, case.spread, count))
    return np.asarray(1.0 / rng.permutation(np.arange(1, count + 1)))


def evidence(theirs: Floats, ours: Floats, cap: float, centre: float) -> tuple[float, float]:
    """Return the log e-values of "cost within the margin" and of "cost above the margin"."""
    n1, n0 = len(theirs), len(ours)
    if min(n0, n1) < 2:
        return 0.0, 0.0
    y1, y0 = np.minimum(theirs, cap) / cap, np.minimum((1 + MARGIN) * ours, cap) / cap
    w, z = n1 / (n0 + n1), centre / cap
    bet = np.minimum(LAMBDAS * min(w, 1 - w) / max(z, 1 - z), 0.95 * min(w, 1 - w))
    down = np.log1p(-np.outer(y1 - z, bet / w)).sum(0) + np.log1p(
        np.outer(y0 - z, bet / (1 - w))
    ).sum(0)
    up = np.log1p(np.outer(y1 - z, bet / w)).sum(0) + np.log1p(
        -np.outer(y0 - z, bet / (1 - w))
    ).sum(0)
    return float(log_mean(down)), float(log_mean(up))


def asymptotic(theirs: Floats, ours: Floats) -> bool:
    """Return whether a normal approximation gives "cost within the margin"."""
    if min(len(theirs), len(ours)) < 20:
        return False
    spread = sqrt(theirs.var() / len(theirs) + (1 + MARGIN) ** 2 * ours.var() / len(ours))
    return bool(theirs.mean() - (1 + MARGIN) * ours.mean() < -Z * spread)


def judged(
    case: Costs, base: Floats, cand: Mask, prior: Floats, ratio: float
) -> tuple[bool, bool, bool]:
    """Return whether it passed, failed, and passed by the normal approximation."""
    cap = float(np.quantile(prior, 0.95)) * (1 + MARGIN) * 2
    centre = float(np.minimum((1 + MARGIN) * prior, cap).mean())
    cost = np.where(cand, base * ratio, base)
    needed = log(1 / ALPHA) + log(LOOKS)
    passed = failed = loose = False
    for look in np.unique(np.geomspace(LEAST, case.callers, LOOKS).astype(int)):
        theirs, ours = cost[:look][cand[:look]], cost[:look][~cand[:look]]
        down, up = evidence(theirs, ours, cap, centre)
        passed, failed = passed or down >= needed, failed or up >= needed
        loose = loose or asymptotic(theirs, ours)
    return passed, failed, loose


def table(runs: int, seed: int) -> list[dict[str, Any]]:
    """Return one line for each mix of callers: at the margin, alike, and twice as dear."""
    lines = []
    for number, case in enumerate(CASES):
        got = {ratio: np.zeros((runs, 3), dtype=np.bool_) for ratio in (1 + MARGIN, 1.0, 2.0)}
        for run in range(runs):
            rng = np.random.Generator(np.random.SFC64((seed, number, run)))
            base, cand = drawn(rng, case, case.callers), rng.random(case.callers) < case.share
            prior = drawn(rng, case, 200 if case.spread else case.callers)
            for ratio, found in got.items():
                found[run] = judged(case, base, cand, prior, ratio)
        edge, same, twice = (got[ratio].mean(axis=0) for ratio in (1 + MARGIN, 1.0, 2.0))
        lines.append(
            {
                "scenario": case.name,
                "runs": runs,
                "false_pass": float(edge[0]),
                "se": error(float(edge[0]), runs),
                "false_fail": float(same[1]),
                "false_pass_asymptotic": float(edge[2]),
                "passed_if_alike": float(same[0]),
                "failed_if_twice": float(twice[1]),
            }
        )
    return lines

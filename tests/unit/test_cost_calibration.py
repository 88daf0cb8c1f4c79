"""Seeded: how often the judge of cost is wrong, and that it is right where it can be.

Each promise is 0.1 %: of a hundred runs at most one may be wrong at the edge (that two are has a
probability of 0.5 %), and no identical candidate may fail.
"""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from kedge.core.evidence.bets import LOOKS
from kedge.core.evidence.cost_bets import BETS, Scale, callers_log_e, learned, pairs_log_e
from kedge.core.evidence.cost_judge import ALPHA, LEARN_UNITS
from kedge.core.evidence.stats import log_mixture

WORSE_BY = 0.2
AT_LOOKS = log(2 * LOOKS / ALPHA)
RATIOS = (1.0, 1.2, 1.4, 2.0)


def looked_at(n: int, zipf: float, share: float, paired: bool, seed: int) -> dict[float, set[str]]:
    """By ratio, what was proven at any of six looks at sticky callers with levels of their own."""
    dice = np.random.default_rng(seed)
    size = np.arange(1, n + 1.0) ** -zipf
    arm, teach = dice.random(n) < share, dice.random(n) < 0.1
    own = dice.lognormal(0, 0.5, n)
    times, sums = np.zeros(n), np.zeros((2, n))
    found: dict[float, set[str]] = {ratio: set() for ratio in RATIOS}
    caps = dict.fromkeys(RATIOS, 0.0)
    for many in (500, 500, 1_000, 2_000, 4_000, 8_000):
        who = dice.choice(n, many, p=size / size.sum())
        times += np.bincount(who, minlength=n)
        for side in (0, 1):
            sums[side] += np.bincount(who, own[who] * dice.lognormal(0, 0.5, many), n)
        mean = sums / np.maximum(times, 1)
        met = (times > 0) & ~teach
        first = (times > 0) & teach & (~arm | paired)
        for ratio in RATIOS:
            scale = learned(mean[0][first], np.ones(int(first.sum())), WORSE_BY, caps[ratio])
            caps[ratio] = scale.cap
            if paired:
                scale = Scale(WORSE_BY, scale.cap)
                log_e = pairs_log_e(mean[0][met], ratio * mean[1][met], scale)
            else:
                log_e = callers_log_e(mean[0][met & ~arm], ratio * mean[0][met & arm], scale)
            for word, one in zip(("pass", "fail"), log_e, strict=True):
                if one >= AT_LOOKS:
                    found[ratio].add(word)
    return found


@pytest.mark.parametrize(
    ("n", "zipf", "share", "paired"),
    [
        (200, 0.0, 0.05, False),
        (200, 1.0, 0.25, False),
        (1_000, 1.0, 0.05, False),
        (1_000, 1.0, 0.25, False),
        (5_000, 0.0, 0.25, False),
        (10_000, 1.1, 0.05, False),
        (10_000, 1.1, 0.25, False),
        (1_000, 1.0, 0.5, True),
    ],
)
def test_sticky_callers_of_unequal_size_fail_no_candidate_and_certify_none_that_costs_more(
    n: int, zipf: float, share: float, paired: bool
) -> None:
    runs = [looked_at(n, zipf, share, paired, seed) for seed in range(60)]
    assert sum("fail" in run[1.0] for run in runs) == 0
    for ratio in (1.2, 1.4):
        assert sum("pass" in run[ratio] for run in runs) <= 1, ratio
    assert sum("fail" in run[1.2] for run in runs) <= 1
    if n == 5_000:
        assert sum("pass" in run[1.0] for run in runs) >= 54
    if n >= 1_000 and share >= 0.25:
        assert sum("fail" in run[2.0] for run in runs) >= 54


def watched(sigma: float, share: float, n: int, cap: float, seed: int) -> dict[float, set[str]]:
    """By ratio, what was proven at any hundredth of `n` requests without a caller."""
    dice = np.random.default_rng(seed)
    cost, arm = dice.lognormal(0, sigma, n), dice.random(n) < share
    begin = np.flatnonzero(~arm)[LEARN_UNITS]
    scale = learned(cost[:begin][~arm[:begin]], np.ones(LEARN_UNITS), WORSE_BY, cap)
    z, odds = scale.centre, share / (1 - share)
    late, theirs = cost[begin:], arm[begin:]
    found: dict[float, set[str]] = {}
    for ratio in (1.0, 1.2, 2.0) if sigma < 1 else (1.2,):
        y0, y1 = scale.ours(late), scale.theirs(ratio * late)
        found[ratio] = set()
        for word, sign, room in (("pass", 1, z), ("fail", -1, 1 - z)):
            apart = sign * np.where(theirs, z - y1, odds * (y0 - z))
            bets = BETS * min(1 / (1 - room), 1 / (odds * room))
            grown = np.add.reduceat(np.log1p(np.outer(apart, bets)), range(0, len(apart), 100))
            wealth = log_mixture(np.cumsum(grown, axis=0))
            if wealth.max() >= log(1 / ALPHA):
                found[ratio].add(word)
    return found


@pytest.mark.parametrize(
    ("sigma", "share", "cap"),
    [(0.5, 0.05, 0.0), (2.0, 0.01, 0.0), (2.5, 0.01, 0.0), (2.5, 0.01, 1_000.0)],
)
def test_skewed_costs_at_a_small_share_are_not_certified_at_the_edge(
    sigma: float, share: float, cap: float
) -> None:
    runs = [watched(sigma, share, 30_000, cap, seed) for seed in range(100)]
    assert sum("pass" in run[1.2] for run in runs) <= 1
    assert sum("fail" in run[1.2] for run in runs) <= 1
    if sigma == 0.5:
        assert sum("fail" in run[1.0] for run in runs) == 0
        assert sum("pass" in run[1.0] for run in runs) >= 90
        assert sum("fail" in run[2.0] for run in runs) >= 90

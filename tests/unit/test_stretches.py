"""Stretches of a reference: differences by chance, and real ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kedge.core.diagnosis.stretches import FEWEST, LEAST_ROWS, MOST, Clump, Stretches, stays_away

N = 4_000


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def lined(until: int, more: int = 400) -> tuple[Any, Any]:
    """A row a second, of both windows."""
    return np.arange(float(until)), until + np.arange(float(more))


def cut(n: int, m: int, long: float, short: float) -> int:
    """How many stretches a reference of n rows is cut into."""
    times: Any = np.linspace(0, long, n), np.linspace(long, long + short, m)
    return len(Stretches(times, (n, m)).of(np.zeros(n)))


@pytest.mark.parametrize(
    ("n", "m", "long", "short", "stretches"),
    [
        (N, N, 10.0, 10.0, FEWEST),
        (N, 400, 10.0, 1.0, 10),
        (N, N, 10.0, 1.0, 10),  # as many rows in a tenth of the time
        (N, 400, 10.0, 10.0, 10),  # a tenth of the rows in the same time
        (300, 300, 10.0, 1.0, 300 // LEAST_ROWS),
        (50, 50, 10.0, 1.0, 1),
        (10**6, 100, 10.0, 0.0, MOST),
    ],
)
def test_a_stretch_is_as_long_as_today(
    n: int, m: int, long: float, short: float, stretches: int
) -> None:
    assert cut(n, m, long, short) == stretches


def test_without_times_the_rows_are_independent() -> None:
    whole = Stretches(None, (N, N))
    held: Any = rng(1).random(N) < 0.2
    assert len(whole.of(held)) == 1
    rise, error = whole.rise(held, 0.3, N)
    assert rise == pytest.approx(0.3 - held.mean())
    assert error == pytest.approx(np.sqrt(0.16 / N + 0.21 / N), rel=0.03)
    assert tuple(whole.clump(held * 1.0, 1.0, N)) == pytest.approx((held.mean(), 0.0, LEAST_ROWS))


def test_rows_by_chance_cost_little_and_spells_cost_what_they_are() -> None:
    stretches = Stretches(lined(N), (N, 400))
    alone = np.sqrt(0.16 / N + 0.16 / 400)
    by_chance = [stretches.rise(rng(k).random(N) < 0.2, 0.2, 400)[1] for k in range(200)]
    assert np.mean(by_chance) < 1.25 * alone
    spells: Any = np.repeat(rng(3).random(N // 400) < 0.2, 400)
    spells[:400] = True
    assert stretches.rise(spells, 0.2, 400)[1] > 10 * alone
    assert stretches.clump(spells * 1.0, 1.0, 400).draws < 2
    chance: list[Any] = [rng(k).random(N) < 0.2 for k in range(50)]
    assert np.mean([stretches.clump(x * 1.0, 1.0, 400).draws for x in chance]) > 60


def test_a_clump_is_what_an_hour_shares_and_no_common_value() -> None:
    stretches = Stretches(lined(N), (N, 400))
    zeros: Any = np.where(rng(1).random(N) < 0.9, 0.0, rng(2).random(N))
    assert stretches.clump(zeros, 5.0, 400).usual < 0.02, "that most are 0 says nothing of 5"
    assert stretches.clump(zeros, 0.0, 400).own > 0.9
    hours: Any = np.repeat(rng(3).random(N // 40), 40)
    assert tuple(stretches.clump(hours, 5.0, 400)) == pytest.approx((0.0, 0.1, 10))
    assert stretches.clump(hours, 5.0, 40).shared == pytest.approx(0.4), "as few as today has"
    assert stretches.clump(hours * np.nan, 5.0, 400) == Clump(0.0, 0.0, LEAST_ROWS)


def test_a_random_excess_in_a_stretch_is_no_clump() -> None:
    counts: Any = rng(1).poisson(1, N) * 1.0
    found = Stretches(lined(N), (N, 400)).clump(counts, 0.0, 400)
    assert found.shared == 0.0
    assert found.draws > 60


def test_spreads_and_middles_are_those_of_the_calmest_and_the_wildest_stretch() -> None:
    times = lined(N)
    x: Any = rng(1).normal(0, 1, N) * np.repeat([1.0, 3.0], N // 2)
    x[::7] = np.nan
    stretches = Stretches(times, (N, 400))
    assert stretches.spreads(x) == pytest.approx((1, 3), rel=0.12)
    assert stretches.middles(x) == pytest.approx((1.35, 4.05), rel=0.2)


def test_a_lasting_outage_is_reported_after_a_time() -> None:
    at = np.arange(10.0)
    column = np.array([0, 0, 0, 0, 0, 0, 1, 2, 3, 4.0])
    assert stays_away(column, 0.0, at) == 1.0
    assert stays_away(column, 0.0, None) == 0.4
    assert stays_away(column[::-1], 0.0, at[::-1]) == 1.0
    assert stays_away(np.array([0, 1, 0, 0.0]), 0.0, at[:4]) == pytest.approx(1 / 3)

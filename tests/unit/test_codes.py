"""Values of a column that have changed places, and those that have not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from kedge.core.diagnosis.association import Coding
from kedge.core.diagnosis.codes import assigned, recoded, shifted

N = 4_000
SHARES = (0.4, 0.25, 0.15, 0.12, 0.08)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def codes(seed: int, shares: tuple[float, ...] = SHARES) -> Any:
    return rng(seed).choice(len(shares), N, p=shares).astype(np.float64)


def turned(column: Any, to: dict[float, float]) -> Any:
    return np.array([to.get(value, value) for value in column.tolist()])


def asked(before: Any, now: Any, effect: Any = None, *, columns: Any = None) -> Any:
    """`effect`: what the outcome had beside all else, by the code that was true, of both windows."""
    rows = np.arange(N)
    left = None if effect is None else (effect[0][:, None], effect[1][:, None], rows, rows)
    return recoded(Coding(before), (before, now), columns, left)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 40])
def test_the_assignment_is_the_cheapest(size: int) -> None:
    for seed in range(10):
        cost = rng(seed).random((size, size)) * 10
        found = assigned(cost)
        rows, best = linear_sum_assignment(cost)
        assert sorted(found.tolist()) == list(range(size))
        assert cost[np.arange(size), found].sum() == pytest.approx(cost[rows, best].sum())


def test_values_that_stay_are_not_recoded() -> None:
    for seed in range(20):
        assert asked(codes(seed), codes(99 + seed)) is None


@pytest.mark.parametrize("words", [False, True])
def test_swapped_values_are_recognised_by_their_frequencies(words: bool) -> None:
    before, now = codes(1), turned(codes(2), {0.0: 3.0, 3.0: 0.0})
    if words:
        before, now = (np.array([f"k{v:.0f}" for v in c], dtype=object) for c in (before, now))
    found = asked(before, now)
    assert found is not None
    assert found.by == ("frequency",)
    names = ("k3", "k0") if words else ("3.0", "0.0")
    assert set(found.moved) == {names, names[::-1]}


def test_an_honest_shift_of_frequencies_is_not_recoded() -> None:
    assert asked(codes(1), codes(2, (0.2, 0.2, 0.2, 0.2, 0.2))) is None
    assert asked(codes(1), codes(2, (0.7, 0.1, 0.1, 0.05, 0.05))) is None


def test_outcomes_tell_codes_of_one_frequency_apart() -> None:
    even = (0.2,) * 5
    says = np.array([0.0, 1.0, -1.0, 2.0, 0.5])
    before, true = codes(1, even), codes(2, even)
    noise = rng(3).normal(size=(2, N))
    effect = says[before.astype(int)] + noise[0], says[true.astype(int)] + noise[1]
    now = turned(true, {0.0: 1.0, 1.0: 2.0, 2.0: 0.0})
    found = asked(before, now, effect)
    assert found is not None
    assert found.by == ("outcomes",)
    assert asked(before, true, effect) is None
    faded = effect[0], 0.5 * says[true.astype(int)] + noise[1]
    assert asked(before, true, faded) is None, "a weaker effect is no other numbering"


def test_frequencies_that_stay_speak_against_a_flag_that_is_turned() -> None:
    """The outcome goes the other way with the flag, but as many have it as had: that is the world."""
    before, now = codes(1, (0.7, 0.3)), codes(2, (0.7, 0.3))
    noise = rng(3).normal(size=(2, N))
    assert asked(before, now, (before + noise[0], 1 - now + noise[1])) is None
    found = asked(before, 1 - now, (before + noise[0], now + noise[1]))
    assert found is not None
    assert found.by == ("frequency", "outcomes")


def test_the_other_columns_identify_swapped_codes_too() -> None:
    even = (0.25,) * 4
    before, true = codes(1, even), codes(2, even)
    other = [c[:, None] == np.arange(4) for c in (before, true)]
    noise = rng(3).normal(size=(2, N, 4))
    columns = tuple(0.3 * one + 0.2 * n for one, n in zip(other, noise, strict=True))
    found = asked(before, turned(true, {0.0: 1.0, 1.0: 0.0}), columns=columns)
    assert found is not None
    assert found.by == ("columns",)


def test_measurements_and_new_values_are_another_question() -> None:
    assert asked(rng(1).normal(size=N), rng(2).normal(size=N)) is None
    assert asked(codes(1), codes(2) + 10) is None


def test_frequencies_that_moved_are_distinguished_from_chance() -> None:
    assert not shifted(Coding(codes(1)), (codes(1), codes(2)))
    assert shifted(Coding(codes(1)), (codes(1), turned(codes(2), {0.0: 3.0, 3.0: 0.0})))
    assert not shifted(Coding(rng(1).normal(size=N)), (rng(1).normal(size=N), codes(2)))

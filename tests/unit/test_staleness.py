"""Columns that repeat earlier values more often than they did."""

from __future__ import annotations

from typing import Any

import numpy as np

from kedge.core.diagnosis.staleness import Windows

N = 3_000
DAY = 86_400.0


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def columns(seed: int) -> dict[str, Any]:
    """Two measurements, one that is fixed for a caller, and the callers."""
    who = rng(seed).integers(0, 400, N)
    return {
        "who": who.astype(object),
        "a": rng(seed + 1).normal(size=N),
        "b": rng(seed + 2).gamma(2, 1, N),
        "c": rng(seed + 4).normal(size=N),
        "born": rng(0).normal(size=400)[who],
    }


def repeats(before: dict[str, Any], now: dict[str, Any], *, times: bool = True) -> dict[str, str]:
    units = before.pop("who"), now.pop("who")
    at = np.sort(rng(9).uniform(0, DAY, N)), np.sort(rng(8).uniform(7 * DAY, 8 * DAY, N))
    windows = Windows(units if times else (None, None), at if times else None)
    return {name: told.of for name, told in windows.repeats(before, now).items()}


def test_honest_columns_repeat_what_they_did() -> None:
    for seed in range(0, 100, 10):
        assert not repeats(columns(seed), columns(1_000 + seed))
        assert not repeats(columns(seed), columns(1_000 + seed), times=False)


def test_a_value_that_is_fixed_for_a_caller_is_found() -> None:
    before, now = columns(1), columns(1_001)
    now["a"] = rng(5).normal(size=400)[now["who"].astype(int)]
    assert repeats(before, now) == {"a": "unit"}


def test_the_last_known_value_of_a_caller_is_found() -> None:
    before, now = columns(1), columns(1_001)
    last = dict(zip(before["who"].tolist(), before["b"].tolist(), strict=True))
    now["b"] = np.array([last.get(who, 0.0) for who in now["who"].tolist()])
    assert repeats(before, now) == {"b": "unit"}


def test_a_column_that_stands_still_is_found() -> None:
    before, now = columns(1), columns(1_001)
    now["a"] = now["a"][np.arange(N) // 50 * 50]
    assert repeats(before, now) == {"a": "row"}


def test_values_of_the_reference_are_found_without_times_and_callers() -> None:
    before, now = columns(1), columns(1_001)
    now["a"] = rng(5).permutation(before["a"])
    assert repeats(before, now, times=False) == {"a": "reference"}


def test_requests_that_are_sent_again_are_no_columns_fault() -> None:
    before, now = columns(1), columns(1_001)
    assert not repeats(before, {name: now[name][np.arange(N) // 5 * 5] for name in now})
    assert not repeats(columns(1), dict(columns(1)), times=False), "a replay of the reference"


def test_shorter_distances_between_a_callers_requests_are_weighed() -> None:
    """A balance that changes daily repeats itself within the hour, and today callers are hasty."""
    who = rng(1).integers(0, 60, N)
    at = np.sort(rng(2).uniform(0, 20 * DAY, N))
    hasty = np.sort(rng(3).uniform(21 * DAY, 23 * DAY, N))

    def balance(times: Any, whose: Any, seed: int) -> Any:
        return rng(seed).normal(size=(60, 40))[whose, (times // DAY).astype(int)]

    before = {k: balance(at, who, k) for k in (1, 2, 3)} | {4: rng(6).normal(size=N)}
    before[5] = rng(7).normal(size=N)
    now = {k: balance(hasty, who, k + 10) for k in (1, 2, 3)} | {4: rng(8).normal(size=N)}
    now[5] = rng(9).normal(size=N)
    units = who.astype(object), who.astype(object)
    names = {k: f"c{k}" for k in before}
    found = Windows(units, (at, hasty)).repeats(
        {names[k]: before[k] for k in before}, {names[k]: now[k] for k in now}
    )
    assert not found

"""Each defect is found when it is there, and an honest change of the callers is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kedge.core.diagnosis.defects import (
    Code,
    Defect,
    affected,
    defects,
    mismatches,
    nulls,
    plain,
    stepped,
)
from kedge.core.values import ColumnStatistics

N = 2_000


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def amounts(seed: int, n: int = N) -> Any:
    return np.exp(rng(seed).normal(3, 1, n))


def cities(seed: int, p: tuple[float, ...] = (0.5, 0.3, 0.2)) -> Any:
    return rng(seed).choice(["oslo", "lima", "kyoto"], N, p=p).astype(object)


def found(before: Any, now: Any, **more: Any) -> list[Code]:
    return [fault.code for fault in defects({"x": before}, {"x": now}, **more)]


def test_the_same_population_has_none() -> None:
    for seed in range(40):
        now = {"a": amounts(seed), "c": cities(seed), "k": rng(seed).poisson(2, N)}
        before = {
            "a": amounts(99 + seed),
            "c": cities(99 + seed),
            "k": rng(99 + seed).poisson(2, N),
        }
        assert not defects(before, now)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (amounts(1), amounts(2) * 1.8),  # dearer
        (rng(1).normal(40, 10, N), rng(2).normal(55, 14, N)),  # older
        (cities(1), cities(2, (0.1, 0.2, 0.7))),  # from elsewhere
        (rng(1).poisson(2, N), rng(2).poisson(4, N)),  # more often
        (
            rng(1).choice(5, N, p=(0.3, 0.3, 0.2, 0.1, 0.1)),
            rng(2).choice(5, N, p=(0.1, 0.1, 0.1, 0.6, 0.1)),
        ),
        ((rng(1).random(N) < 0.01) * 1.0, (rng(2).random(N) < 0.2) * 1.0),  # a flag
        (
            np.where(rng(1).random(N) < 0.30, np.nan, 1.0),
            np.where(rng(2).random(N) < 0.31, np.nan, 1.0),
        ),
    ],
)
def test_an_honest_change_is_none(before: Any, now: Any) -> None:
    assert not found(before, now)


def test_nulls_are_found_and_their_rows() -> None:
    x = amounts(2)
    x[:100] = np.nan
    (fault,) = defects({"x": amounts(1)}, {"x": x})
    assert fault.code is Code.NULL
    assert "null in 5.0% of the requests, 0.0% before" in fault.text
    assert affected(fault, x, amounts(1)).sum() == 100
    x[50] = np.inf
    assert affected(fault, x, amounts(1)).sum() == 100, "an infinity holds nothing"
    words = cities(2)
    words[:100] = None
    assert found(cities(1), words) == [Code.NULL]


def test_a_few_nulls_are_not_worth_a_word() -> None:
    x = amounts(2)
    x[:15] = np.nan
    assert not found(amounts(1), x)
    many = amounts(2, 200_000)
    many[:1_000] = np.nan
    assert not found(amounts(1, 200_000), many), "certain, and half a per cent"


def test_a_default_is_a_mass_point() -> None:
    x = amounts(2)
    x[::4] = -1.0
    (fault,) = defects({"x": amounts(1)}, {"x": x})
    assert (fault.code, fault.at[0]) == (Code.MASS_POINT, -1.0)
    assert affected(fault, x, amounts(1)).sum() == N / 4


@pytest.mark.parametrize("factor", [100.0, 0.001, 60.0])
def test_another_unit_is_found(factor: float) -> None:
    assert found(amounts(1), amounts(2) * factor) == [Code.SCALE]


def test_an_outlier_is_no_unit() -> None:
    x = amounts(2)
    x[0] = 1e9
    assert not found(amounts(1), x)


def test_out_of_range_is_found_against_what_was_and_what_the_schema_allows() -> None:
    before, now = rng(1).uniform(0, 1, N), rng(2).uniform(0, 1, N)
    now[:100] = 9.0 + rng(3).random(100)
    (fault,) = defects({"x": before}, {"x": now})
    assert fault.code is Code.RANGE
    assert affected(fault, now, before).sum() == 100
    now[:100] = 1.5 + rng(3).random(100) / 10
    assert not found(before, now)
    assert found(before, now, ranges={"x": (0.0, 1.0)}) == [Code.RANGE]
    assert found(before, now, ranges={"x": (None, 1.0)}) == [Code.RANGE]


def test_an_unseen_word_is_found_and_a_new_name_is_not() -> None:
    now = cities(2)
    now[:100] = "OSLO"
    (fault,) = defects({"x": cities(1)}, {"x": now})
    assert fault.code is Code.UNSEEN
    assert "'OSLO'" in fault.text
    assert affected(fault, now, cities(1)).sum() == 100
    names = [np.array([f"n{n}" for n in range(k, k + N)], dtype=object) for k in (0, N)]
    assert not found(*names)


def test_constants() -> None:
    assert found(np.full(N, 0.4), rng(1).random(N)) == [Code.LEAVES_CONSTANT]
    assert found(rng(1).random(N), np.full(N, 0.4)) == [Code.CONSTANT]
    flag = (rng(1).random(N) < 0.001) * 1.0
    assert not found(flag, np.zeros(N)), "a rare event that did not happen"


def test_a_column_that_is_gone_or_of_another_type() -> None:
    assert [f.code for f in defects({"x": amounts(1)}, {})] == [Code.MISSING]
    assert found(amounts(1), cities(1)) == [Code.TYPE]
    assert found(cities(1), amounts(1)) == [Code.TYPE]
    assert affected(Defect("x", Code.TYPE, 0, 1, ""), cities(1), amounts(1)).all()


def test_numbers_as_objects_are_numbers() -> None:
    odd = np.array([1, 2.5, None, True], dtype=object)
    assert plain(odd).dtype == np.float64
    assert nulls(plain(odd)).tolist() == [False, False, True, False]
    words = plain(np.array(["a", None, float("nan")], dtype=object))
    assert words.tolist() == ["a", None, None]


def test_few_rows_say_nothing() -> None:
    assert not found(amounts(1, 99), np.full(99, np.nan))
    assert not found(amounts(1), np.full(99, np.nan))


# ---------------------------------------------------------------- against the training set


def trained(**more: Any) -> ColumnStatistics:
    return ColumnStatistics(**{"count": N, "nulls": 0, **more})


def test_a_null_that_the_training_set_never_had() -> None:
    x = amounts(2)
    x[::10] = np.nan
    (fault,) = mismatches({"x": trained(std=40.0, distinct=N)}, {"x": x})
    assert fault.code is Code.NULL
    assert "0.0% in the training set" in fault.text
    assert not mismatches({"x": trained(nulls=N // 10, std=40.0, distinct=N)}, {"x": x})


def test_scale_and_words_of_the_training_set() -> None:
    spread = float(amounts(1).std())
    known = {
        "x": trained(std=spread, distinct=N),
        "c": trained(values={"oslo": 9, "lima": 3}, distinct=2),
    }
    codes = [f.code for f in mismatches(known, {"x": amounts(2) * 100, "c": cities(1)})]
    assert codes == [Code.SCALE, Code.UNSEEN]
    hour = {"x": trained(std=spread, distinct=N, minimum=0.0, maximum=900.0)}
    assert not mismatches(hour, {"x": amounts(2) / 100}), "a part of what it learned from"
    many = {"c": trained(values={"oslo": 9}, distinct=400)}
    assert not mismatches(many, {"c": cities(1)}), "a summary that names only some"
    assert not mismatches(known, {})


# ---------------------------------------------------------------- what is no fault, though it looks like one


def test_nulls_that_were_common_before_are_none_until_they_double_or_the_rest_halves() -> None:
    def gusts(seed: int, share: float) -> Any:
        return np.where(rng(seed).random(N) < share, np.nan, amounts(seed))

    assert found(gusts(1, 0.30), gusts(2, 0.45)) == []
    assert found(gusts(1, 0.10), gusts(2, 0.30)) == [Code.NULL]
    assert found(gusts(1, 0.60), gusts(2, 0.85)) == [Code.NULL]


def test_a_null_row_is_touched_only_where_most_nulls_are_new() -> None:
    before = np.where(rng(1).random(N) < 0.60, np.nan, amounts(1))
    now = np.where(rng(2).random(N) < 0.85, np.nan, amounts(2))
    (fault,) = defects({"x": before}, {"x": now})
    assert not affected(fault, now, before).any()
    (fault,) = defects({"x": amounts(1)}, {"x": now})
    assert (affected(fault, now, before) == np.isnan(now)).all()


def test_a_model_that_learned_from_nulls_knows_them() -> None:
    def known(nulls_: int) -> dict[str, ColumnStatistics]:
        return {"x": ColumnStatistics(count=1000, nulls=nulls_, std=1.0, distinct=900)}

    now = {"x": np.where(rng(2).random(N) < 0.5, np.nan, rng(3).normal(0, 1, N))}
    assert [fault.code for fault in mismatches(known(20), now)] == [Code.NULL]
    assert mismatches(known(60), now) == []


def test_one_constant_for_another_is_a_calendar_and_many_values_for_one_are_not() -> None:
    july, december = np.full(N, 7.0), np.full(N, 12.0)
    assert found(july, december) == []
    assert stepped(july, december)
    assert not stepped(july, july)
    assert found(july, amounts(1)) == [Code.LEAVES_CONSTANT]
    assert not stepped(july, amounts(1))
    assert not stepped(cities(1), cities(2))


def test_what_stood_still_as_long_before_is_not_broken_when_it_does() -> None:
    at, later = np.linspace(0, 400.0, 4 * N), np.linspace(400, 410.0, N // 10)
    hours, still = np.floor(at / 10.3), np.full(N // 10, 3.5)
    assert found(hours, still) == [Code.CONSTANT]
    assert found(hours, still, times=(at, later)) == []
    assert found(hours, still, times=(at[::-1], later)) == [], "told by time, not by order"
    wild = amounts(1, 4 * N)
    assert found(wild.round(), still, times=(at, later)) == [Code.CONSTANT]


# ---------------------------------------------------------------- what requests of one hour share


def weather(seed: int, hours: int, each: int = 50) -> tuple[Any, Any]:
    """A value that `each` requests of an hour share, and wanders from hour to hour; and the times."""
    steps = rng(seed).normal(0, 1, hours)
    level = np.empty(hours)
    level[0] = steps[0]
    for k in range(1, hours):
        level[k] = 0.95 * level[k - 1] + steps[k]
    at = np.arange(hours * each) * 3600.0 / each
    return np.repeat(level, each), at


@pytest.mark.parametrize("seed", range(8))
def test_calm_days_and_dry_days_are_no_fault(seed: int) -> None:
    """Ten days of weather, held against the forty before: nulls, heaps and spreads come in spells."""
    level, at = weather(seed, 50 * 24)
    day = at > 40 * 24 * 3600
    columns = {
        "gust": np.where(level > 1.5, np.round(level), np.nan),  # not reported while it is calm
        "rain": np.maximum(level - 3, 0),  # mostly none
        "temperature": np.round(level, 1),
    }
    before = {name: column[~day] for name, column in columns.items()}
    for first in range(40, 50, 2):
        some = (at > first * 24 * 3600) & (at <= (first + 1) * 24 * 3600)
        now = {name: column[some] for name, column in columns.items()}
        assert defects(before, now, times=(at[~day], at[some])) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_fault_among_shared_values_is_still_found(seed: int) -> None:
    level, at = weather(seed, 50 * 24)
    day = at > 40 * 24 * 3600
    values = np.round(level, 1)
    before, now, times = values[~day], values[day], (at[~day], at[day])
    lost = rng(seed).random(len(now)) < 0.1
    assert found(before, np.where(lost, np.nan, now), times=times) == [Code.NULL]
    filled = np.where(lost | (rng(9).random(len(now)) < 0.1), 99.0, now)
    assert found(before, filled, times=times) == [Code.RANGE, Code.MASS_POINT]
    assert found(before, now * 60, times=times) == [Code.SCALE]
    assert found(before, np.zeros(len(now)), times=times) == [Code.CONSTANT]
    late = np.arange(len(now)) > 0.8 * len(now)
    assert found(before, np.where(late, np.nan, now), times=times) == [Code.NULL], "since lately"


def test_a_count_that_is_stuck_at_its_usual_value_is_found() -> None:
    at, later = np.linspace(0, 10.0, 2 * N), np.linspace(10, 11.0, N // 5)
    counts = rng(1).poisson(1, 2 * N) * 1.0
    assert found(counts, np.ones(N // 5), times=(at, later)) == [Code.CONSTANT]
    assert found(counts, rng(2).poisson(1, N // 5) * 1.0, times=(at, later)) == []


def test_rain_after_a_drought_is_none_and_a_column_that_is_filled_at_last_is_one() -> None:
    at, later = np.linspace(0, 10.0, N), np.linspace(10, 11.0, N)
    dry, shower = np.zeros(N), np.where((later > 10.3) & (later < 10.5), amounts(1), 0.0)
    assert found(dry, shower) == [Code.LEAVES_CONSTANT]
    assert found(dry, shower, times=(at, later)) == []
    filled = np.where(later > 10.7, amounts(1), 0.0)
    assert found(dry, filled, times=(at, later)) == [Code.LEAVES_CONSTANT]
    known = {"x": trained(minimum=0.0, maximum=500.0, std=40.0, distinct=N)}
    assert found(dry, filled, times=(at, later), training=known) == [], "the model knows such rain"
    foreign = {"x": trained(minimum=0.0, maximum=1.0, std=0.2, distinct=N)}
    assert found(dry, filled, times=(at, later), training=foreign) == [Code.LEAVES_CONSTANT]


def test_a_storm_that_the_training_set_had_the_like_of_is_no_unit() -> None:
    at, later = np.linspace(0, 10.0, N), np.linspace(10, 11.0, N)
    drizzle, storm = rng(1).random(N) / 100, rng(2).random(N)
    assert found(drizzle, storm, times=(at, later)) == [Code.SCALE]
    known = {"x": trained(minimum=0.0, maximum=1.2, std=0.1, distinct=N)}
    assert found(drizzle, storm, times=(at, later), training=known) == []
    assert found(drizzle, storm * 25, times=(at, later), training=known) == [Code.SCALE]


def test_a_column_that_moves_in_a_few_steps_is_a_calendar_at_any_value() -> None:
    at, later = np.linspace(0, 180.0, N), np.linspace(300, 900.0, N)
    months = np.floor(at / 30)
    for value in (3.0, 12.0):
        assert found(months, np.full(N, value)) == [Code.CONSTANT]
        assert found(months, np.full(N, value), times=(at, later)) == []
        assert stepped(months, np.full(N, value), (at, later))
    assert found(np.full(N, 3.0), np.floor(at / 90), times=(at, later)) == []
    assert found(np.full(N, 3.0), amounts(3).round(), times=(at, later)) == [Code.LEAVES_CONSTANT]
    assert not stepped(months, amounts(1), (at, later))
    assert not stepped(amounts(2), np.full(N, 3.0), (at, later))


def test_a_window_over_the_end_of_a_month_is_no_fault() -> None:
    """Also where production changed long ago, so that its reference is of other months."""
    at, later = np.linspace(0, 60.0, N), np.linspace(200, 201.0, N)
    months, turn = np.floor(at / 30), np.where(later < 200.4, 6.0, 7.0)
    assert found(months, turn) == [Code.RANGE]
    assert found(months, turn, times=(at, later)) == []
    assert stepped(months, turn, (at, later))
    mixed = np.where(rng(1).random(N) < 0.4, 6.0, 7.0)
    assert found(months, mixed, times=(at, later)) == [Code.RANGE]


def test_a_flag_that_was_seldom_set_is_no_calendar() -> None:
    """It changes as seldom, and does not stay: always set is a fault."""
    at, later = np.linspace(0, 60.0, N), np.linspace(60, 61.0, N)
    seldom = np.where(np.arange(N) % (N // 3) == N // 5, 1.0, 0.0)
    assert found(seldom, np.ones(N), times=(at, later)) == [Code.CONSTANT]
    assert not stepped(seldom, np.ones(N), (at, later))


def test_values_that_many_requests_share_are_no_default_that_fills_in() -> None:
    """An hour's weather: forty hours, each with its own; one of them with more requests."""
    hours = rng(1).choice(np.round(rng(2).normal(50, 9, 400), 2), N)
    few = np.round(rng(3).normal(50, 9, 12), 2)
    weather = rng(4).choice(few, N, p=np.r_[0.15, 0.1, np.full(10, 0.075)])
    assert found(hours, weather) == []
    filled = np.where(rng(5).random(N) < 0.2, 0.0, amounts(5))
    assert found(amounts(6), filled) == [Code.MASS_POINT]


def test_values_of_the_training_set_are_in_range_in_any_season() -> None:
    summer, winter = rng(1).normal(80, 5, N), rng(2).normal(25, 5, N)
    year = ColumnStatistics(count=9_000, nulls=0, minimum=5.0, maximum=101.0, std=20.0, distinct=90)
    assert found(summer, winter) == [Code.RANGE]
    assert found(summer, winter, training={"x": year}) == []


def test_an_outage_in_the_reference_is_no_licence_for_a_column_that_is_gone() -> None:
    """One day of seven lacked 60 %, so days lie far apart; none lacked all of it."""
    n = 7 * 3_000
    at, later = np.linspace(0, 7 * 86_400, n), np.linspace(8 * 86_400, 9 * 86_400, 2_000)
    lost = (at // 86_400 == 2) & (rng(3).random(n) < 0.6)
    before = np.where(lost, np.nan, amounts(1, n))
    assert found(before, np.full(2_000, np.nan), times=(at, later)) == [Code.NULL]
    calm = np.where(at // 86_400 == 2, np.nan, amounts(1, n))
    assert found(calm, np.full(2_000, np.nan), times=(at, later)) == [], "as on that day"


@pytest.mark.parametrize("value", [-1.0, 99.0])
@pytest.mark.parametrize("share", [0.2, 0.5])
@pytest.mark.parametrize(
    "column",
    ["flag", "count", "code", "zero inflated"],
)
def test_a_sentinel_is_found_beside_values_that_come_in_heaps(
    column: str, share: float, value: float
) -> None:
    """The reference never had it; the other heaps of such a column are no reason to overlook it."""
    rng = np.random.default_rng(17)
    kinds: dict[str, Callable[[int], Any]] = {
        "flag": lambda n: (rng.random(n) < 0.3).astype(float),
        "count": lambda n: rng.poisson(1, n).astype(float),
        "code": lambda n: rng.integers(0, 7, n).astype(float),
        "zero inflated": lambda n: np.where(rng.random(n) < 0.5, 0.0, np.exp(rng.normal(3, 1, n))),
    }
    made = kinds[column]
    before, today = made(4_000), made(4_000)
    assert not defects({"c": before}, {"c": made(4_000)})
    today[rng.random(4_000) < share] = value
    assert defects({"c": before}, {"c": today})

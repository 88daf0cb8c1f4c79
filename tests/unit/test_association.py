"""Associations of columns with each other and with the outcome, and how much of them is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kedge.core.diagnosis.association import Coding, OutcomeAssociation, Relations, Structure

N = 4_000


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def columns(seed: int) -> dict[str, Any]:
    z = rng(seed).normal(size=(N, 5))
    a, b = z[:, 0] + z[:, 1], z[:, 0] + z[:, 2]
    words = np.where(a + z[:, 3] > 0, "high", "low").astype(object)
    return {"a": a, "b": b, "word": words, "alone": z[:, 4]}


def outcome(c: dict[str, Any], seed: int, a: float = 1.0, b: float = 1.0) -> Any:
    return (a * c["a"] + b * c["b"] + rng(seed).normal(size=N))[:, None]


def outcomes(now: dict[str, Any], truth: Any, units: Any = (None, None)) -> OutcomeAssociation:
    before = columns(1)
    return OutcomeAssociation(
        Relations(before, now, list(before)), (outcome(before, 2), truth), units
    )


def shuffled(column: Any, share: float = 1.0) -> Any:
    return np.where(rng(7).random(N) < share, rng(8).permutation(column), column)


def test_a_coding_has_codes_or_a_curve() -> None:
    few = Coding(np.array([0.0, 1.0, 2.0, np.nan] * 100))
    assert few.few
    assert few.place(np.array([2.0, np.nan, 9.0])).tolist()[1:] == [3, 3]
    words = Coding(np.array(["x", "y", None, "x"] * 100, dtype=object))
    assert words.codes == ["x", "y"]
    assert words.place(np.array(["y", "z", None], dtype=object)).tolist() == [1, 2, 2]
    curve = Coding(rng(1).normal(size=N))
    assert not curve.few
    assert np.abs(curve.inputs(rng(1).normal(size=N)).mean(axis=0)).max() < 1e-9
    assert Coding(np.full(100, np.nan)).inputs(np.full(3, 1.0)).shape == (3, 0)


def test_what_the_others_say_of_a_column_is_the_regression_without_it() -> None:
    """Blocks of one inverse give what a regression of its own would."""
    before = columns(1)
    known = outcomes(columns(3), outcome(columns(3), 4))
    rest, weights = known.without(["a", "word"])
    x = Relations(before, before, list(before)).x[:, rest]
    y = outcome(before, 2)
    plain = np.linalg.solve(x.T @ x + 3.0 * np.eye(x.shape[1]), x.T @ (y - y.mean(axis=0)))
    np.testing.assert_allclose(weights, plain, atol=1e-8)


@pytest.mark.parametrize(("share", "left"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
def test_the_slope_is_the_part_of_the_rows_that_are_true(share: float, left: float) -> None:
    now = columns(3)
    now["a"] = shuffled(now["a"], share)
    held = Structure(Relations(columns(1), now, list(now)), None).whole
    assert held["a"].slope == pytest.approx(left, abs=0.08)
    assert held["alone"].strength < 0.005
    assert Structure(Relations(columns(1), now, list(now)), None).held(["a"])["b"].slope == (
        pytest.approx(1.0, abs=0.12)
    )


def test_stretches_of_the_reference_say_what_is_usual() -> None:
    """A relation that comes and goes by the day: today is a day without, as others were."""
    before, now = columns(1), columns(3)
    days = np.repeat(np.arange(10), N // 10)
    before["a"] = np.where(days % 2 == 0, before["a"], shuffled(before["a"]))
    times = (
        days.astype(np.float64) * 86_400.0,
        86_400.0 * 10 + np.arange(N, dtype=np.float64) * 20.0,
    )
    now["a"] = shuffled(now["a"])
    held = Structure(Relations(before, now, list(now)), times).whole["a"]
    assert held.least < 0.2
    assert held.se > 0.3


def test_the_outcomes_go_with_the_other_columns_as_they_did() -> None:
    true = columns(3)
    truth = outcome(true, 4)
    assert outcomes(true, truth).changed() < 3
    known = outcomes({**true, "a": shuffled(true["a"])}, truth)
    assert known.changed() > 10
    assert known.changed(["a"]) < 3
    assert known.changed(["b"]) > 10
    effect = known.effect("a")
    assert abs(effect.slope) < 3 * effect.se
    other = outcomes(true, outcome(true, 4, a=0.0, b=0.3))
    assert other.changed(["a"]) > 5, "the other column says something else as well"


def test_rows_of_one_unit_count_as_one() -> None:
    """Each caller has a level of its own today, and forty requests: chance, and no change."""
    true = columns(3)
    who = np.arange(N) // 40
    truth = outcome(true, 4) + rng(5).normal(size=100)[who][:, None] * 2
    plain = outcomes(true, truth)
    by_unit = outcomes(true, truth, (None, who.astype(object)))
    assert by_unit.changed() < plain.changed() / 2

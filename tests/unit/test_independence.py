"""Whether a row's answer depends on the rows beside it: asked alone, in pairs and all together."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest

from kedge.core.values import Field, Proof, Signature
from kedge.inspection.independence import answerable, grouped, merges

SIGNATURE = Signature((Field("x", "float64"), Field("k", "int64")), (Field("y", "float64"),))
ROWS: dict[str, list[Any]] = {"x": [1.0, -2.0, 30.0, 0.5], "k": [0, 1, 2, 3]}


class Function:
    """A model made of a function of x and k."""

    signature = SIGNATURE

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self._function = function

    def predict(self, columns: Any) -> Any:
        return {"y": np.asarray(self._function(columns["x"], columns["k"]), np.float64)}


def tried(function: Callable[[Any, Any], Any], rows: Any = ROWS, **more: Any) -> Any:
    ticks = count()
    given: dict[str, Any] = {
        "rtol": 1e-4,
        "atol": 1e-6,
        "clock": lambda: next(ticks),
        "budget_s": 1e9,
    }
    return grouped(Function(function), rows, {}, **{**given, **more})


def ranks(x: Any, _: Any) -> Any:
    return np.argsort(np.argsort(x))


def position(x: Any, _: Any) -> Any:
    return x + np.arange(len(x))


def by_key(x: Any, k: Any) -> Any:
    """Only rows with one key have company: all others are as they are."""
    return x - np.where(k == 2, x[k == 2].mean() if (k == 2).any() else 0, 0) * (len(x) > 3)


def needs_company(x: Any, _: Any) -> Any:
    if len(x) < 2 and x[0] > 20:
        raise ValueError("alone")
    return x


def fails_in_company(x: Any, _: Any) -> Any:
    if len(x) > 1:
        raise ValueError("one row at most")
    return x


@pytest.mark.parametrize(
    "function",
    [
        lambda x, _: x - x.mean(),
        lambda x, _: x / np.abs(x).max(),
        ranks,
        position,
        by_key,
        lambda x, _: np.round(x * 127 / np.abs(x).max()) * np.abs(x).max() / 127,
        needs_company,
        fails_in_company,
    ],
)
def test_a_function_of_the_batch_is_found(function: Any) -> None:
    found = tried(function)
    assert found.rows == "dependent"
    assert found.why


@pytest.mark.parametrize(
    "function",
    [
        lambda x, _: np.exp(-x),
        lambda x, _: x * (1 + 1e-7 * len(x)),
        lambda x, k: np.sqrt(x),
        lambda x, _: np.full(len(x), np.nan),
    ],
)
def test_a_function_of_the_row_is_independent_up_to_the_tolerance(function: Any) -> None:
    with np.errstate(invalid="ignore"):
        assert tried(function).rows == "independent"


def test_an_output_that_is_random_gets_no_mark() -> None:
    dice = np.random.default_rng(1)
    found = tried(lambda x, _: x + dice.normal(size=len(x)))
    assert (found.rows, found.random) == ("unknown", True)


def test_rows_that_are_all_equal_show_nothing() -> None:
    found = tried(lambda x, _: x - x.mean(), {"x": [0.0] * 3, "k": [0] * 3})
    assert (found.rows, found.tested) == ("unknown", 3)
    assert tried(lambda x, _: x, {"x": [], "k": []}).rows == "unknown"


def test_a_row_that_fails_in_every_grouping_is_left_out() -> None:
    def fails(x: Any, _: Any) -> Any:
        if (x > 20).any():
            raise ValueError("too much")
        return x

    found = tried(fails)
    assert (found.rows, found.tested) == ("independent", 3)


def test_made_rows_show_what_golden_rows_do_not() -> None:
    golden: dict[str, list[Any]] = {"x": [1.0, 2.0], "k": [7, 7]}
    function = lambda x, k: x - k + k.mean()  # noqa: E731
    assert tried(function, golden).rows == "independent"
    made: dict[str, list[Any]] = {"x": [1.0, 2.0], "k": [0, 5]}
    found = grouped(Function(function), golden, made, rtol=0, atol=1e-9, clock=lambda: 0.0)
    assert found.rows == "dependent"


def test_a_budget_ends_the_test_with_what_was_asked() -> None:
    rows = {"x": [float(n) for n in range(100)], "k": list(range(100))}
    found = tried(lambda x, _: x, rows, budget_s=10)
    assert found.rows == "independent"
    assert 2 <= found.tested <= 10
    assert tried(lambda x, _: x, rows, budget_s=0).rows == "unknown"


def test_those_rows_are_kept_that_the_model_answers() -> None:
    def picky(x: Any, _: Any) -> Any:
        if (x < 0).any():
            raise ValueError("negative")
        return np.where(x > 20, np.inf, x)

    kept, failure = answerable(Function(picky), ROWS)
    assert kept == {"x": [1.0, 0.5], "k": [0, 3]}
    assert "negative" in str(failure)


@pytest.mark.parametrize(
    "function, mark, expected",
    [
        (lambda x, _: x, "unknown", True),
        (lambda x, _: x - x.mean(), "unknown", False),
        (lambda x, _: x, "dependent", False),
        (lambda x, _: x - x.mean(), "independent", True),
    ],
)
def test_a_proof_without_a_mark_is_tested_on_its_own_rows(
    function: Any, mark: Any, expected: bool
) -> None:
    proof = Proof(inputs=ROWS, outputs={}, rows=mark)
    assert merges(Function(function), proof, lambda: 0.0) is expected


def test_an_old_proof_of_zeros_is_not_merged() -> None:
    proof = Proof(inputs={"x": [0.0] * 3, "k": [0] * 3}, outputs={})
    assert not merges(Function(lambda x, _: x), proof, lambda: 0.0)

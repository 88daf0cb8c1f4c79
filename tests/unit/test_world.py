"""The label mix only when nothing else moved; concept and inputs separate only when they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from kedge.core.diagnosis.contrast import Floats, difference, mean_of
from kedge.core.diagnosis.findings import Kind
from kedge.core.diagnosis.world import LabelledWindow, hardest, part, reason, spells

N = 3_000


def window(
    seed: int, *, concept: float = 0.0, centre: float = 0.0, yes: float | None = None, n: int = N
) -> LabelledWindow:
    """A calibrated model asked about x; `yes` keeps that share of true outcomes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(centre, 1, 8 * n)
    p = 1 / (1 + np.exp(-2 * x))
    y = (rng.random(len(x)) < 1 / (1 + np.exp(-2 * (1 - concept) * x))).astype(np.float64)
    rows = np.arange(n)
    if yes is not None:
        rows = np.r_[
            np.flatnonzero(y == 1)[: int(yes * n)], np.flatnonzero(y == 0)[: n - int(yes * n)]
        ]
    return LabelledWindow.of({"x": x[rows]}, ["x"], p[rows], y[rows], np.square(p[rows] - y[rows]))


def rise(before: LabelledWindow, after: LabelledWindow):
    return difference(mean_of(after.loss), mean_of(before.loss))


def mixed(before: LabelledWindow, after: LabelledWindow) -> str:
    return part(before, after, after.truth, after.units, 3.5).verdict


def kinds(before: LabelledWindow, after: LabelledWindow) -> list[Kind]:
    found = reason(before, after, rise(before, after), 0.007, 3.5, binary=True)
    assert found[0][3], "the first brings the evidence"
    return [each[0] for each in found]


def test_another_share_of_yes_and_nothing_else_is_the_mix() -> None:
    assert mixed(window(1), window(2, yes=0.75)) == "yes"
    assert mixed(window(1), window(2)) == "no"


def test_a_share_that_inputs_moved_is_no_mix() -> None:
    assert mixed(window(1), window(2, centre=0.6)) == "no"


def test_a_share_that_other_outcomes_moved_is_no_mix() -> None:
    flipped = window(2, yes=0.75)
    rng = np.random.default_rng(7)
    truth = np.where(rng.random(N) < 0.3, 1.0, window(3).truth)
    moved = flipped._replace(
        scores=window(3).scores, truth=truth, loss=np.square(window(3).scores - truth)
    )
    assert mixed(window(1), moved) == "no"


def test_scores_that_moved_within_a_class_are_no_mix_though_the_loss_is_accounted_for() -> None:
    after = window(2, yes=0.75)
    moved = after._replace(scores=np.where(after.truth == 1, after.scores * 0.9, after.scores))
    assert mixed(window(1), moved) == "no"


def test_a_loss_that_the_mix_does_not_account_for_is_no_mix() -> None:
    after = window(2, yes=0.75)
    assert mixed(window(1), after._replace(loss=after.loss + 0.05)) == "no"


def test_a_share_that_moves_no_threshold_is_no_mix() -> None:
    assert mixed(window(1, n=30_000, yes=0.50), window(2, n=30_000, yes=0.53)) == "no"


def test_few_of_a_class_leave_it_open() -> None:
    assert mixed(window(1), window(2, yes=0.99)) == "unclear"


def test_what_is_left_beside_broken_rows_is_a_choice_and_no_mix() -> None:
    after = window(2, yes=0.75)
    every: Floats = window(3).truth
    assert part(window(1), after, every, None, 3.5).verdict == "no"


def test_concept_and_inputs() -> None:
    assert kinds(window(1), window(2, concept=1.0)) == [Kind.CONCEPT]
    steep = window(1)
    near = np.abs(steep.columns["x"]) < 0.7
    hard = LabelledWindow.of(
        steep.columns, ["x"], steep.scores, steep.truth, np.where(near, steep.loss, np.nan)
    )
    assert kinds(window(3), hard) == [Kind.HARDER_INPUTS]


def test_few_labels_leave_it_open() -> None:
    before, after = window(1, n=120), window(2, n=120)
    assert kinds(before, after) == [Kind.UNDIVIDED]


def test_windows_without_overlap_are_not_explained() -> None:
    assert kinds(window(1), window(2, centre=9.0)) == [Kind.NO_OVERLAP]


def test_only_rows_with_a_loss_and_an_answer_are_in_a_window() -> None:
    odd = LabelledWindow.of(
        {"x": np.arange(3.0), "y": np.zeros(3)},
        ["x"],
        np.array([0.5, np.inf, 0.5]),
        np.ones(3),
        np.array([0.1, 1.0, np.nan]),
        np.array(["u", "v", "w"], dtype=object),
    )
    assert list(odd.columns) == ["x"]
    assert odd.loss.tolist() == [0.1]
    assert odd.spaced().units is not None


def test_the_hardest_are_those_whose_scores_go_with_the_most_loss() -> None:
    scores = np.linspace(0, 1, 1_000)
    loss = scores * (1 - scores)
    found = hardest(scores, loss, 0.4)
    assert found.mean() == 0.4
    assert loss[found].min() >= loss[~found].max() - 0.05
    loss[:500] = np.nan
    assert not hardest(scores, loss, 0.4)[:500].any()
    assert hardest(scores, loss, 1.0).sum() == 500


# ---------------------------------------------------------------- what comes and goes


def storms(bad: tuple[int, ...], *, days: int = 20, each: int = 200) -> tuple[Any, Any, Any]:
    """A loss of 0.2, and of 0.6 on bad days; the times of both windows."""
    loss = np.full(days * each, 0.2) + np.random.default_rng(1).normal(0, 0.05, days * each)
    for day in bad:
        loss[day * each : (day + 1) * each] += 0.4
    at = np.arange(days * each) / each
    return loss, at, days + np.arange(each) / each


def test_a_day_as_bad_as_some_before_that_ended_is_usual() -> None:
    loss, at, today = storms((3, 11))
    found = spells(loss, (at, today), 0.5)
    assert found == (2, 20)
    assert found.usual
    assert "2 of the 20 stretches" in found.text
    assert not spells(loss, (at, today), 0.8).usual, "none was as bad"
    order = np.random.default_rng(2).permutation(len(loss))
    assert spells(loss[order], (at[order], today), 0.5) == (2, 20), "told by time"


def test_a_bad_time_that_lasts_until_today_is_its_beginning() -> None:
    loss, at, today = storms((17, 18, 19))
    assert spells(loss, (at, today), 0.5) == (0, 17)
    loss, at, today = storms(tuple(range(20)))
    assert not spells(loss, (at, today), 0.5).usual


def test_one_storm_in_a_long_time_is_not_usual_and_few_labels_say_nothing() -> None:
    loss, at, today = storms((30,), days=60)
    assert spells(loss, (at, today), 0.5) == (1, 60)
    assert not spells(loss, (at, today), 0.5).usual
    loss[400:] = np.nan
    assert not spells(loss, (at, today), 0.1).usual, "two stretches"

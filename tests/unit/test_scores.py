"""Figures that are no average: bounded histograms against scikit-learn on the single scores."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    brier_score_loss,
    log_loss,
    mean_absolute_percentage_error,
    mean_squared_error,
    roc_auc_score,
)

from kedge.core.evidence.quality import LOSSES, figure, margin
from kedge.core.evidence.records import JoinRow, Labelled, Outcome
from kedge.core.evidence.scores import (
    FURTHEST,
    TABLE,
    Scored,
    auc,
    bin_of,
    calibration_error,
    counted,
    estimates,
    gathered,
)
from kedge.core.values import Output

TOLERANCE = 0.002
"""Of AUC: half of the pairs that share a bin of two per cent of the odds."""
BINARY = Output(kind="binary", score="p", threshold=0.5)
NUMBER = Output(kind="score", value="y", tolerance=5.0)


def drawn(seed: int, n: int = 4_000, *, rare: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Scores and outcomes of a model that is right on the whole, and too sure of itself."""
    random = np.random.default_rng(seed)
    log_odds = random.normal(-6.0 if rare else 0.0, 1.5, n)
    yes = random.random(n) < 1 / (1 + np.exp(-log_odds))
    return 1 / (1 + np.exp(-1.4 * log_odds - random.normal(0, 0.5, n))), yes


def filled(scores: np.ndarray, yes: np.ndarray) -> Scored:
    """In batches, as labels come."""
    found = Scored()
    for part in range(0, len(scores), 500):
        pairs = zip(
            scores[part : part + 500].tolist(), yes[part : part + 500].tolist(), strict=True
        )
        found = counted(found, pairs)
    return found


@pytest.mark.parametrize("rare", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_auc_is_scikit_learns_within_the_tolerance(seed: int, *, rare: bool) -> None:
    scores, yes = drawn(seed, rare=rare)
    found = auc(filled(scores, yes))
    assert found is not None
    assert found.value == pytest.approx(roc_auc_score(yes, scores), abs=TOLERANCE)
    assert (found.labels, found.low < found.value < found.high) == (4_000, True)


def test_auc_of_scores_that_are_no_probabilities_is_right_too() -> None:
    scores, yes = drawn(5)
    raw = np.log(scores / (1 - scores)) * 3 - 2
    found = auc(filled(raw, yes))
    assert found is not None
    assert found.value == pytest.approx(roc_auc_score(yes, raw), abs=0.01)
    assert calibration_error(filled(raw, yes)) is None


def test_the_interval_of_auc_holds_the_truth_in_about_nineteen_of_twenty() -> None:
    whole, outcomes = drawn(99, 100_000)
    truth = roc_auc_score(outcomes, whole)
    inside = 0
    for seed in range(100):
        found = auc(filled(*drawn(seed, 400)))
        assert found is not None
        inside += found.low <= truth <= found.high
    assert 90 <= inside <= 100


@pytest.mark.parametrize("seed", range(3))
def test_the_calibration_error_is_that_of_scikit_learns_curve(seed: int) -> None:
    scores, yes = drawn(seed)
    true, predicted = calibration_curve(yes, scores, n_bins=TABLE, strategy="uniform")
    edges = np.linspace(0, 1, TABLE + 1)
    counts = np.histogram(scores, edges)[0]
    wanted = np.sum(np.abs(true - predicted) * counts[counts > 0] / len(scores))
    found = calibration_error(filled(scores, yes))
    assert found is not None
    assert found.value == pytest.approx(wanted, abs=1e-9)
    assert found.low <= found.value <= found.high


def test_a_larger_score_is_never_in_a_smaller_bin_and_bins_are_bounded() -> None:
    scores = sorted([-inf, *np.linspace(-50, 50, 4_001).tolist(), 1e300, -1e300, 1e-300, 1 - 1e-16])
    places = [bin_of(score) for score in scores[1:]]
    assert places == sorted(places)
    assert max(map(abs, places)) <= 3 * FURTHEST + 1
    many = counted(Scored(), ((score, True) for score in np.linspace(-1e6, 1e6, 50_000).tolist()))
    assert len(many.bins) <= 6 * FURTHEST + 3
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(many), type=Scored)
    assert auc(kept) == auc(many)


def test_nothing_is_said_of_no_labels_or_of_one_kind_of_them() -> None:
    assert auc(Scored()) is None
    assert calibration_error(Scored()) is None
    only = counted(Scored(), [(0.5, True), (0.7, True), (nan, False), (inf, False)])
    assert auc(only) is None
    assert only.bins.keys() == {bin_of(0.5), bin_of(0.7)}
    few = auc(counted(only, [(0.1, False)]))
    assert few is not None
    assert few.high - few.low > 0.5


def test_labels_are_counted_for_the_release_that_gave_the_answer() -> None:
    def one(arm: str, score: float, value: Any, **more: Any) -> Labelled:
        row = JoinRow(
            id="q/0",
            at=0.0,
            unit="",
            endpoint="flights",
            production=1,
            candidate=2,
            salt="s",
            weight=500,
            arm=arm,
            failed=more.pop("failed", False),
            segments=(),
            score=score,
            decision=None,
            **more,
        )
        return Labelled(row, Outcome("q/0", value), 1.0)

    rows = [
        one("production", 0.9, 1),
        one("candidate", 0.2, 0),
        one("candidate", 0.8, "yes", failed=True),
        one("production", 0.4, 0, shadow_score=0.6, paired=True),
        one("production", 0.5, "odd"),
    ]
    ours, theirs = gathered((Scored(), Scored()), rows, BINARY, reverse=False)
    assert (sum(map(sum, ours.bins.values())), sum(map(sum, theirs.bins.values()))) == (3, 2)
    assert gathered((Scored(), Scored()), rows, BINARY, reverse=True) == (theirs, ours)
    assert gathered((Scored(), Scored()), rows, NUMBER, reverse=False) == (Scored(), Scored())
    shown = estimates((ours, theirs))
    assert set(shown) == {"auc", "calibration_error"}
    assert shown["auc"][1] is None


# ---------------------------------------------------------------- verdicts


def mean_loss(metric: str, output: Output, scores: np.ndarray, truth: np.ndarray) -> float:
    loss = LOSSES[metric][0]
    lost = [loss(output, s, None, y) for s, y in zip(scores.tolist(), truth.tolist(), strict=True)]
    return figure(metric, output, float(np.mean(lost)))


def test_the_declared_figures_are_scikit_learns() -> None:
    random = np.random.default_rng(8)
    truth = random.uniform(5, 50, 3_000)
    guess = truth + random.normal(0, 2, 3_000)
    assert mean_loss("rmse", NUMBER, guess, truth) == pytest.approx(
        mean_squared_error(truth, guess) ** 0.5, rel=1e-9
    )
    assert mean_loss("mape", NUMBER, guess, truth) == pytest.approx(
        mean_absolute_percentage_error(truth, np.clip(guess, 0, 2 * truth)), rel=1e-9
    )
    scores, yes = drawn(3)
    clipped = np.clip(scores, 0.001, 0.999)
    assert mean_loss("log_loss", BINARY, scores, yes) == pytest.approx(log_loss(yes, clipped))
    assert mean_loss("brier", BINARY, scores, yes) == pytest.approx(brier_score_loss(yes, scores))


def test_an_error_beyond_the_cap_counts_as_the_cap() -> None:
    far = mean_loss("rmse", NUMBER, np.array([1e9, 0.0]), np.array([0.0, 0.0]))
    assert far == pytest.approx(50 / 2**0.5)
    assert mean_loss("mape", NUMBER, np.array([1e9]), np.array([1.0])) == 1.0


def test_a_margin_on_a_root_is_one_on_its_square() -> None:
    assert margin("rmse", 0.05) == pytest.approx(1.05**2 - 1)
    assert margin("mape", 0.05) == 0.05
    truth, ours = np.zeros(2), np.array([2.0, 4.0])
    theirs = 1.05 * ours
    old, new = (mean_loss("rmse", NUMBER, each, truth) for each in (ours, theirs))
    assert new == pytest.approx(1.05 * old)

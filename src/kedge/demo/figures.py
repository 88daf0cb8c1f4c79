"""Figures of the demo: what is measured of its models and of its traffic."""

from __future__ import annotations

import msgspec

from kedge.core.values import Value

METRICS = "metrics.json"
"""Where a `TrainingReport` is kept beside the models."""


# ---------------------------------------------------------------- models


class OfflineQuality(Value, frozen=True):
    """What an offline report would say about a model."""

    auc: float
    log_loss: float
    right: float
    """Share of the flights."""
    called_late: float
    """Share of the flights."""
    mean_p_late: float


class ModelFigures(Value, frozen=True):
    """One model as it was trained."""

    features: int
    fit_s: float
    row_us: float
    """Median microseconds to answer one row."""
    offline: OfflineQuality
    before_departure: OfflineQuality
    """With what is known only after departure left out."""


class TrainingReport(Value, frozen=True, kw_only=True):
    """All models as they were trained. Agreements are shares of the held out flights."""

    training_rows: int
    holdout_rows: int
    holdout_late: float
    v1: ModelFigures
    v2: ModelFigures
    v3: ModelFigures
    agreement_v1_v2: float
    agreement_two_honest: float
    """Of two models that were trained on half of the flights each."""
    agreement_two_honest_by_month: dict[str, float]


# ---------------------------------------------------------------- traffic


class AnswerScore(Value, frozen=True):
    """How the answers of a release compare with what was true. Shares of its flights."""

    flights: int
    late: float
    said_late: float
    """The mean of the probabilities that it gave."""
    called_late: float
    right: float
    log_loss: float


class AnswerScores(Value, frozen=True):
    """Scores by release."""

    all: dict[str, AnswerScore]
    """Over everything that each answered."""
    side_by_side: dict[str, AnswerScore]
    """Over the epochs in which both answered."""
    without_label: int


class EpochAnswers(Value, frozen=True):
    """The answers of one release at one epoch; times are of the host's monotonic clock."""

    answers: int
    first: float
    last: float


class TrafficTotals(Value, frozen=True, kw_only=True):
    """Everything that was sent so far."""

    sent: int = 0
    ok: int = 0
    failed: int = 0
    failures: dict[str, int] = {}
    by_release: dict[str, int] = {}
    by_arm: dict[str, int] = {}
    rate: float
    """Requests a second; falls while the machine cannot keep up."""
    slowed: int = 0
    """How often the rate fell."""
    p50_ms: float | None = None
    """From the moment each request was due; null: no request was answered."""
    p99_ms: float | None = None


class TrafficSecond(TrafficTotals, frozen=True, kw_only=True):
    """Totals after a second; latencies are of that second."""

    t: int


class TrafficSummary(TrafficTotals, frozen=True, kw_only=True):
    """The whole run, with what the labels say about the answers."""

    keyless: int
    """Requests without an entity."""
    epochs: dict[str, dict[str, EpochAnswers]]
    """By epoch, then by release."""
    quality: AnswerScores


class LastLine(msgspec.Struct, frozen=True):
    """The last line of the traffic; a second has none of it."""

    summary: TrafficSummary | None = None

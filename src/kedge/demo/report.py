"""Report of the demo: what each act came to, as report.json has it."""

from __future__ import annotations

from kedge.core.evidence.label_summary import LabelSummary
from kedge.core.speed import Speed
from kedge.core.values import Value
from kedge.demo.figures import AnswerScores
from kedge.operations.evidence.view import MetricVerdict, SegmentDisagreement


class ShadowFigures(Value, frozen=True):
    """What the shadow showed."""

    pairs: int
    agreement: float | None
    """Share of the pairs; null: there were none."""
    dropped: int
    """Copies that the candidate did not answer."""


class CanaryFigures(Value, frozen=True):
    """What callers had of the canary."""

    requests: int
    failovers: int


class JudgedRelease(Value, frozen=True, kw_only=True):
    """A verdict on a candidate."""

    stage: str
    candidate: str
    verdict: str
    code: str
    reason: str
    worst_segments: tuple[SegmentDisagreement | MetricVerdict, ...]
    """The worst first."""


class Detection(Value, frozen=True, kw_only=True):
    """How the patrol found the bad canary."""

    seconds: float
    """From its start to its end."""
    canary_requests: int
    callers_harmed: int = 0
    """Callers who were told wrong, beyond those whom production would have."""


class PromotionFigures(Value, frozen=True, kw_only=True):
    """How the better release reached production."""

    release: str
    by: str
    pairs: int
    labelled: int
    seconds: float


class RollbackParts(Value, frozen=True):
    """The parts of a rollback, in milliseconds since it was submitted."""

    decide: float
    write: float
    last_ack: float | None
    first_old_answer: float | None
    total: float


class ClientView(Value, frozen=True):
    """What the client saw of a rollback, in milliseconds since the command's process was started."""

    command_ms: float | None = None
    """Null: the patrol gave the command."""
    first_answer_after_start_ms: float | None = None
    last_bad_answer_after_start_ms: float | None = None


class FeaturesQuality(Value, frozen=True):
    """What outcomes say of two transformations on the same flights."""

    flights: int
    log_loss_local: float | None
    log_loss_utc: float | None


class FeaturesFigures(Value, frozen=True, kw_only=True):
    """What the rollback of a transformation came to."""

    rollback_ms: float | None
    first_old_answer_ms: float | None
    model_reloads: int
    same_processes: bool
    right: str
    wrong: str
    outcome: str | None
    columns: tuple[str, ...]
    """Columns that differ."""
    quality: FeaturesQuality


class AnsweredQuestion(Value, frozen=True, kw_only=True):
    """What a diagnosis found of what was injected."""

    injected: str
    found: tuple[str, ...]
    effect: float | None
    interval: tuple[float | None, float | None]
    labelled: int
    action: str


class DrillFigures(Value, frozen=True, kw_only=True):
    """What the drill under load came to."""

    ok: bool
    total_s: float
    lasted_s: float
    answered: int | None
    failed: int | None


class HandedLabels(LabelSummary, frozen=True, kw_only=True):
    """The labels of the last comparison, and how many outcomes were handed in."""

    handed_in: dict[str, int]
    """By what became of them."""


class LatencyFigures(Value, frozen=True):
    """How long requests took, in milliseconds from the moment each was due."""

    p50: float | None
    p99: float | None


class Conditions(Value, frozen=True, kw_only=True):
    """Under which the figures were measured."""

    kedge: str
    python: str
    scikit_learn: str
    machine: str
    system: str
    cpus: int
    workers: int
    rate_per_s: float
    took_s: float


class DemoReport(Value, frozen=True, kw_only=True):
    """Everything that the demo measured."""

    rollback_ms: RollbackParts
    """By the patrol."""
    production_rollback_ms: RollbackParts
    """By hand."""
    failed_requests: int
    requests: int
    shadow: ShadowFigures
    canary: CanaryFigures
    seen_by_client: dict[str, ClientView]
    """By the rollback: canary, production."""
    quality: AnswerScores
    detection: Detection
    verdicts: tuple[JudgedRelease, ...]
    promotion: PromotionFigures | None
    features: FeaturesFigures | None
    diagnosis: tuple[AnsweredQuestion, ...]
    readiness: dict[str, str]
    """The outcome of each check, by its name."""
    drill: DrillFigures | None
    speed_to_rollback: Speed | None
    """As `kedge speed` printed it."""
    labels: HandedLabels
    latency_ms: LatencyFigures
    conditions: Conditions

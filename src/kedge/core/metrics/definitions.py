"""Definitions of the exported metrics: one table for samples, dashboard, alert rules and docs.

Names follow Prometheus: base units, `_total` for counters, ratios from 0 to 1. The label `segment`
has the values of a caller's fields. So only three metrics have it, and a setting removes it.
"""

from __future__ import annotations

from enum import StrEnum

from kedge.core.values import Value


class MetricKind(StrEnum):
    """The kinds of metrics that kedge exports."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(Value, frozen=True):
    """One exported metric."""

    name: str
    """The name in Prometheus; that of a counter ends with `_total`."""
    kind: MetricKind
    labels: tuple[str, ...]
    meaning: str
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets in seconds, without infinity."""


def _counter(name: str, labels: str, meaning: str) -> Metric:
    return Metric(name, MetricKind.COUNTER, tuple(labels.split()), meaning)


def _gauge(name: str, labels: str, meaning: str) -> Metric:
    return Metric(name, MetricKind.GAUGE, tuple(labels.split()), meaning)


def _histogram(name: str, labels: str, meaning: str, bounds: tuple[float, ...]) -> Metric:
    return Metric(name, MetricKind.HISTOGRAM, tuple(labels.split()), meaning, bounds)


MODEL_BOUNDS = tuple(
    round(part * 2**octave / 1e6, 9)
    for octave in range(6, 27)
    for part in ((1.0, 1.5) if octave < 22 else (1.0,))
)
"""From 64 us to 67 s, two in each octave up to 3.1 s: exactly bounds of the bins that a worker
counts, so that every bucket is exact. The last one is above the default limit of an answer."""
ROLLBACK_BOUNDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0, 86400.0),
)
"""A flip takes milliseconds; to detect harm can take a day."""
ENDPOINT = "endpoint"
ARMS = "endpoint release arm"
RELEASE = "endpoint release"

# ---------------------------------------------------------------- the row

STAGE = _gauge(
    "kedge_stage",
    "endpoint stage",
    "1 for the present stage of the endpoint (settled, shadow, canary, drill, empty), 0 for others",
)
EPOCH = _gauge("kedge_epoch", ENDPOINT, "The endpoint's epoch: how often its row has changed")
PAUSED = _gauge("kedge_paused", ENDPOINT, "1 if the rollout is held, 0 otherwise")
FROZEN = _gauge("kedge_frozen", ENDPOINT, "1 if an operator stopped automation, 0 otherwise")
WEIGHT = _gauge(
    "kedge_weight_ratio", ARMS, "Share of callers that the release answers, as the row sets it"
)
RELEASE_INFO = _gauge(
    "kedge_release_info", "endpoint release arm version", "1 for each live release and its version"
)
STEP = _gauge("kedge_canary_step", ENDPOINT, "The canary's present step, from 1; 0: no canary")
STEPS = _gauge("kedge_canary_steps", ENDPOINT, "Steps of the canary in the policy")
REPLICAS = _gauge(
    "kedge_replicas",
    "endpoint state",
    "Gateway workers: `acknowledged` (serves the present epoch), `behind`, `silent` or `pinned`",
)
BACK = _gauge(
    "kedge_rollback_target_replicas",
    "endpoint release state",
    "Gateway workers on which the release that a rollback lands on is `ready` or `cold`",
)
READY = _gauge(
    "kedge_ready",
    ENDPOINT,
    "1 if the newest readiness check passed, 0 if it failed; none: no check",
)
UNREADY = _gauge(
    "kedge_readiness_failed", "endpoint check", "1 for each readiness check that fails"
)

# ---------------------------------------------------------------- traffic

REQUESTS = _counter("kedge_requests_total", ARMS, "Answered requests, by the release that answered")
ROWS = _counter("kedge_predictions_total", ARMS, "Rows of the answered requests")
ERRORS = _counter(
    "kedge_request_errors_total", ARMS, "Requests that failed because no other release could answer"
)
REFUSED = _counter(
    "kedge_requests_refused_total", "endpoint code", "Requests that kedge refused, by error code"
)
FAILOVERS = _counter(
    "kedge_failovers_total",
    "endpoint release cause",
    "Requests of a canary that production answered instead",
)
LATE = _counter(
    "kedge_late_answers_total", RELEASE, "Answers of a canary that came after their deadline"
)
DURATION = _histogram(
    "kedge_model_duration_seconds",
    ARMS,
    "Time inside the model for one request, copies for a shadow included (arm `shadow`)",
    MODEL_BOUNDS,
)
VIOLATIONS = _counter(
    "kedge_feature_violations_total",
    "endpoint release arm feature kind",
    "Values of a feature out of range, unknown, missing or too old",
)
UNRECORDED = _counter(
    "kedge_unrecorded_predictions_total",
    "endpoint cause",
    "Answered predictions without a record, so that no label can be joined to them",
)
SHADOW_REQUESTS = _counter(
    "kedge_shadow_requests_total", RELEASE, "Requests of which the shadow was to get a copy"
)
SHADOW_ANSWERED = _counter(
    "kedge_shadow_answered_total", RELEASE, "Copies that the shadow answered"
)
SHADOW_DROPPED = _counter(
    "kedge_shadow_dropped_total", "endpoint release cause", "Copies that were not asked or not sent"
)
SHADOW_FAILED = _counter(
    "kedge_shadow_failed_total", "endpoint release cause", "Copies that the shadow failed"
)
PAIRS = _counter("kedge_shadow_pairs_total", RELEASE, "Rows that both releases answered")
AGREEING = _counter("kedge_shadow_agreeing_pairs_total", RELEASE, "Pairs whose answers agree")
COVERAGE = _gauge(
    "kedge_shadow_coverage_ratio", RELEASE, "Share of copies that the shadow answered, so far"
)
AGREEMENT = _gauge(
    "kedge_shadow_agreement_ratio", RELEASE, "Share of pairs whose answers agree, so far"
)

# ---------------------------------------------------------------- evidence

UNITS = _gauge(
    "kedge_units",
    "endpoint release arm metric segment",
    "Units (callers, or requests without an entity) of the present step, by guardrail",
)
BAD_UNITS = _gauge(
    "kedge_bad_units",
    "endpoint release arm metric segment",
    "Units of them that went bad; in a shadow, where only this release was bad",
)
VERDICTS = _gauge(
    "kedge_verdicts",
    "endpoint release metric segment verdict",
    "Segments with this verdict: 1 for a named segment, a number for `other`",
)
DECISION = _gauge(
    "kedge_decision",
    "endpoint release verdict",
    "1 for the policy's verdict on the rollout, 0 for the other ones",
)
E_VALUE = _gauge(
    "kedge_e_value",
    "endpoint release metric",
    "Evidence that the release is worse, of all requests; it fails at the threshold",
)
E_THRESHOLD = _gauge(
    "kedge_e_value_threshold", ENDPOINT, "E-value at which a guardrail fails: 1 divided by alpha"
)
RATE_RATIO = _gauge(
    "kedge_rate_ratio",
    "endpoint release metric bound",
    "Rate of bad units, divided by production's: `estimate`, and its 95 % interval: `lower`,"
    " `upper`",
)
DIFFERENCE = _gauge(
    "kedge_loss_difference",
    "endpoint release metric bound",
    "Mean loss, which is 0 to 1, less production's, of guardrails on a mean: `estimate`, and its"
    " 95 % interval: `lower`, `upper`",
)
LOSS_RATIO = _gauge(
    "kedge_loss_ratio",
    "endpoint release metric bound",
    "Declared loss, divided by production's, as the margin compares it: `estimate`, and its 95 %"
    " interval: `lower`, `upper`",
)
MARGIN = _gauge(
    "kedge_guardrail_margin_ratio",
    "endpoint metric",
    "How much worse than production the policy tolerates: 0.5 is half as much again",
)
HEALTHY = _gauge(
    "kedge_healthy_window_seconds", ENDPOINT, "Seconds of the shadow's window that were healthy"
)
HEALTHY_NEEDED = _gauge(
    "kedge_healthy_window_required_seconds", ENDPOINT, "Seconds of the window that the policy asks"
)
EVIDENCE_AGE = _gauge(
    "kedge_evidence_age_seconds", ENDPOINT, "Seconds since the newest counted request"
)
LABELS = _gauge("kedge_labels", ARMS, "Labels that were judged in this comparison")
LABEL_COVERAGE = _gauge(
    "kedge_label_coverage_ratio", ARMS, "Share of the comparison's predictions that have a label"
)
LABEL_DELAY = _gauge(
    "kedge_label_delay_seconds",
    "endpoint percentile",
    "Delay from a prediction to its label, of this per cent of the labels at most",
)
QUALITY = _gauge(
    "kedge_quality",
    "endpoint release arm metric",
    "The quality metric of the labelled predictions, in its own unit, as in `kedge evidence`",
)

# ---------------------------------------------------------------- operations

ROLLOUTS = _counter(
    "kedge_rollouts_total",
    "endpoint status",
    "Ends of rollouts: `Promoted`, `Aborted` or `RolledBack`",
)
ROLLBACKS = _counter(
    "kedge_rollbacks_total",
    "endpoint arm cause",
    "Rollbacks by the release that was left and the first sign of harm: `alert`, `verdict`,"
    " `patrol` (a failure of the release itself) or `command`",
)
ROLLBACK_DURATION = _histogram(
    "kedge_rollback_duration_seconds",
    "endpoint phase",
    "Rollbacks: time to `detect`, to `respond`, then of the parts `decide`, `prepare`, `write`,"
    " then from the command to `last_ack` and `first_answer`; `total` is from the first caller to"
    " the first old answer",
    ROLLBACK_BOUNDS,
)
DRILLS = _counter("kedge_drills_total", "endpoint result", "Drills: `ok` or `failed`")
DRILL_AT = _gauge(
    "kedge_drill_last_timestamp_seconds", ENDPOINT, "Unix time of the newest drill that succeeded"
)
DRILL_DURATION = _histogram(
    "kedge_drill_rollback_seconds",
    ENDPOINT,
    "Drills: from the command to the first old answer",
    ROLLBACK_BOUNDS,
)
ALERTS = _gauge(
    "kedge_alerts", "endpoint level acknowledged", "Open alerts, by level and acknowledgement"
)
ALERTS_OPENED = _counter("kedge_alerts_opened_total", "endpoint level", "Alerts that were opened")

# ---------------------------------------------------------------- kedge itself

PROCESSES = _gauge("kedge_processes", "kind", "Processes of kedge that report to the roster")
FAULTS = _counter(
    "kedge_process_faults_total", "kind place", "Faults that a process of kedge survived"
)
LIMITED = _counter(
    "kedge_limited_total", "kind limit", "How often a limit refused or dropped something"
)
BUILD = _gauge("kedge_build_info", "version", "1, with the version of kedge")
LEDGER = _gauge(
    "kedge_ledger_readable", "", "1 if control could read the ledger, 0 if the samples are older"
)
EVIDENCE = _gauge("kedge_evidence_readable", "", "1 if control could read the counts")
READ_AT = _gauge(
    "kedge_metrics_timestamp_seconds", "", "Unix time at which control read these figures"
)

METRICS: tuple[Metric, ...] = tuple(one for one in vars().copy().values() if type(one) is Metric)
"""Every exported metric, in the order of the page of the docs."""
SEGMENTED = tuple(one for one in METRICS if "segment" in one.labels)
OTHER = "other"
"""Value of `segment` for the segments beyond the limit."""
MOST_SEGMENTS = 50
"""Segments of an endpoint with series of their own: those with the most units."""

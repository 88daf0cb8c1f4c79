"""Policies: what kedge.toml says of one endpoint."""

from __future__ import annotations

from typing import Literal

from kedge.core.values.signature import Field, Output
from kedge.core.values.structs import Value


class Contact(Value, frozen=True):
    """A named human and how to reach them."""

    name: str
    contact: str


UNNAMED_OWNER = Contact("Nobody Yet", "nobody@localhost")
"""Stands where an owner should, when `kedge init` found none in git's configuration."""


class Escalation(Value, frozen=True):
    """Whom to tell when an alert has been open for `after`."""

    after: str
    to: tuple[str, ...]
    """Channels, and the words "owner" and "rota"."""


class Rota(Value, frozen=True):
    """Who is on duty: each of the people in turn, from `start` on, for `each`."""

    start: str
    people: tuple[Contact, ...]
    each: str = "7d"


class ShadowPolicy(Value, frozen=True):
    """How a candidate is shadowed. `sample` is per cent of the units."""

    sample: float = 100.0
    window: str = "7d"
    min_pairs: int = 1000
    min_pairs_per_segment: int = 200
    on_pass: Literal["ask", "promote"] = "ask"
    noise: float = 0.0
    """Per cent of the mirrored requests that production is asked twice: what a stochastic model
    disagrees with itself. 0, since most models give one answer, and it costs production's time."""


class Prices(Value, frozen=True):
    """What inferences cost, in the policy's currency."""

    per_call: float = 0.0
    """Of each inference (row)."""
    per_second: float = 0.0
    """Of the time inside the model."""
    per_token: float = 0.0
    """Of each token that the model says it used."""


class CostPolicy(Prices, frozen=True):
    """How the cost of an inference is known. All parts are added up."""

    tokens: str | None = None
    """The output that holds the tokens of a row."""
    reported: str | None = None
    """The output that holds what a row cost, as the model itself knows it."""
    currency: str = "USD"
    max: float | None = None
    """The largest cost of an inference that counts; larger ones are clipped. None: learned."""
    versions: dict[str, Prices] = {}
    """Prices of one model version (v3), instead of the endpoint's."""


class AfterPolicy(Value, frozen=True):
    """What is watched after a promotion: the release that was left silently gets a copy."""

    sample: float = 10.0
    """Per cent of the units; 0: nothing. A tenth finds a late regression within hours and costs
    a tenth of a model process."""
    on_fail: Literal["tell", "rollback"] = "tell"
    """Going back after days is a person's decision, unless the policy says otherwise."""


class DrillPolicy(Value, frozen=True):
    """Whether drills are started by themselves."""

    every: str | None = None
    """So long after the last one. None: only a person drills."""


class CanaryPolicy(Value, frozen=True):
    """How a candidate's share grows. `steps` are per cent."""

    steps: tuple[float, ...] = (1.0, 5.0, 25.0, 50.0)
    dwell: str = "10m"
    """Least time at a step: one restart of the judge's bets, so that none is left unplaced."""
    on_fail: Literal["rollback", "pause"] = "rollback"
    on_pass: Literal["ask", "promote"] = "ask"
    holdback: float = 0.0
    """Per cent of the callers that stay on the previous release after the promotion. None: half
    the world's teams would not expect that a promotion is not one."""


class Guardrail(Value, frozen=True):
    """A threshold whose failure acts. `worse_by` is relative: 0.5 is half as much again."""

    worse_by: float
    metric: str | None = None


class FeaturePolicy(Value, frozen=True):
    """Which feature schema the endpoint is on, and whether it follows the schema's head."""

    schema: str | None = None
    follow: bool = False


class LogPolicy(Value, frozen=True):
    """What the prediction log keeps. `sample` is per cent of the units."""

    sample: float = 10.0
    retention: str = "30d"
    redact: tuple[str, ...] = ()


class Limits(Value, frozen=True):
    """Bounds of one gateway worker for one endpoint; what they refuse is counted."""

    rows: int = 1024
    """Rows in one request. Above it a batch job is using an online endpoint."""
    timeout_ms: int = 30_000
    """Longest time for one production answer (MLServer's and Triton's clients wait as long)."""
    shadow_in_flight: int = 64
    """Mirrored requests under way per worker; the bounded mirror that cost production nothing."""
    candidate_deadline_ms: int | None = None
    """Deadline for a candidate's answer. None: twice production's p99, between 50 ms and 2 s:
    a candidate's answer crosses a socket and two event loops. So a shorter one would measure
    the machine and not the model."""


class Policy(Value, frozen=True):
    """Everything declared about one endpoint. In force only once `apply` wrote it."""

    audience: Literal["customer", "internal"] = "customer"
    owner: Contact | None = None
    escalation: tuple[Escalation, ...] = ()
    rota: Rota | None = None
    entity: str | None = None
    segments: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    answers: tuple[Field, ...] | None = None
    """What callers are promised to get. None: what the first production release gives."""
    output: Output = Output()
    guardrails: dict[str, Guardrail] = {}
    shadow: ShadowPolicy = ShadowPolicy()
    canary: CanaryPolicy = CanaryPolicy()
    cost: CostPolicy | None = None
    after: AfterPolicy = AfterPolicy()
    drill: DrillPolicy = DrillPolicy()
    features: FeaturePolicy = FeaturePolicy()
    log: LogPolicy = LogPolicy()
    runtime: Literal["auto", "inline", "process"] = "auto"
    memory_mb: int = 4096
    back_window: str = "14d"
    readiness: Literal["warn", "refuse"] | None = None
    limits: Limits = Limits()

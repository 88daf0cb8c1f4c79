"""Policies: the declarations of one endpoint in kedge.toml."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from kedge.core.values.signature import Field, Output
from kedge.core.values.structs import Value


class Contact(Value, frozen=True):
    """A named person and their address."""

    name: str
    contact: str


UNNAMED_OWNER = Contact("Nobody Yet", "nobody@localhost")
"""The owner where `kedge init` finds none in git's configuration."""


class Escalation(Value, frozen=True):
    """The recipients of an alert that has been open for `after`."""

    after: str
    to: tuple[str, ...]
    """Channels, and the words "owner" and "rota"."""


class AnnouncePolicy(Value, frozen=True):
    """The successes that are announced, and where."""

    events: tuple[Literal["promoted", "rolled_back"], ...]
    to: tuple[str, ...] = ()
    """Channels, and the words "owner" and "rota". Empty: the first level of `escalation`."""


class Rota(Value, frozen=True):
    """The people on duty: each in turn, from `start` on, for `each`."""

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
    """Per cent of the mirrored requests that production answers twice, to measure the noise of a
    stochastic model. 0: most models are deterministic, and it costs production's time."""


class Prices(Value, frozen=True):
    """Prices of inferences, in the policy's currency."""

    per_call: float = 0.0
    """Price of each inference (row)."""
    per_second: float = 0.0
    """Price of each second inside the model."""
    per_token: float = 0.0
    """Price of each token that the model reports."""


class CostPolicy(Prices, frozen=True):
    """How the cost of an inference is computed. All parts are added up."""

    tokens: str | None = None
    """The output with the tokens of a row."""
    reported: str | None = None
    """The output with the cost of a row, as the model reports it."""
    currency: str = "USD"
    max: float | None = None
    """The largest cost of an inference that counts; larger ones are clipped. None: learned."""
    versions: dict[str, Prices] = {}
    """Prices of one model version (v3), which replace those of the endpoint."""


class AfterPolicy(Value, frozen=True):
    """The watch after a promotion: the release that was left silently gets a copy of the inputs."""

    sample: float = 10.0
    """Per cent of the units; 0: none. A tenth finds a late regression within hours and costs a
    tenth of a model process."""
    on_fail: Literal["tell", "rollback"] = "tell"
    """A rollback after days is a person's decision, unless the policy says otherwise."""


class DrillPolicy(Value, frozen=True):
    """Whether kedge starts drills by itself."""

    every: str | None = None
    """Time since the last drill. None: only a person starts drills."""


class CanaryPolicy(Value, frozen=True):
    """How a candidate's share grows. `steps` are per cent."""

    steps: tuple[float, ...] = (1.0, 5.0, 25.0, 50.0)
    dwell: str = "10m"
    """Least time at a step: one restart of the judge's bets, so that no bet is left unplaced."""
    on_fail: Literal["rollback", "pause"] = "rollback"
    on_pass: Literal["ask", "promote"] = "ask"
    holdback: float = 0.0
    """Per cent of the callers that stay on the previous release after the promotion. 0, since most
    teams expect a promotion to reach all callers."""


class Guardrail(Value, frozen=True):
    """A limit whose failure acts. `worse_by` is relative: 0.5 is half as much again."""

    worse_by: float
    metric: str | None = None


class FeaturePolicy(Value, frozen=True):
    """The endpoint's feature schema, and whether the endpoint follows the schema's head."""

    schema: str | None = None
    follow: bool = False


class LogPolicy(Value, frozen=True):
    """What the prediction log stores. `sample` is per cent of the units."""

    sample: float = 10.0
    retention: str = "30d"
    redact: tuple[str, ...] = ()


class Limits(Value, frozen=True):
    """Limits of one gateway worker for one endpoint. The worker counts what they refuse."""

    rows: int = 1024
    """Rows in one request. A larger request is a batch job on an online endpoint."""
    timeout_ms: int = 30_000
    """Longest time for one production answer (MLServer's and Triton's clients wait as long)."""
    shadow_in_flight: int = 64
    """Mirrored requests under way per worker; a mirror with this limit cost production nothing."""
    candidate_deadline_ms: int | None = None
    """Deadline for a candidate's answer. None: twice production's p99, between 50 ms and 2 s. A
    candidate's answer crosses a socket and two event loops, so a shorter one would measure the
    machine and not the model."""


class Policy(Value, frozen=True):
    """The declarations of one endpoint. They are in force only once `apply` wrote them."""

    audience: Literal["customer", "internal"] = "customer"
    owner: Contact | None = None
    escalation: tuple[Escalation, ...] = ()
    rota: Rota | None = None
    announce: AnnouncePolicy | UnsetType = UNSET
    """Unset: nothing is announced. It is left out of a stored policy then, so that its digest is that
    of a kedge without announcements, which can still read it."""
    entity: str | None = None
    segments: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    answers: tuple[Field, ...] | None = None
    """The outputs that callers are promised. None: those of the first production release."""
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
    code: Literal["never", "ask"] | UnsetType = UNSET
    """Whether versions may run code when they are loaded, each allowed by an operator. Unset: "ask",
    and it is left out of a stored policy, as `announce`."""
    memory_mb: int = 4096
    back_window: str = "14d"
    readiness: Literal["warn", "refuse"] | None = None
    limits: Limits = Limits()

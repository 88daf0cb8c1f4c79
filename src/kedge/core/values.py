"""The nouns of the house, as frozen values. `docs/glossary.md` owns the words."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

BUCKETS = 10_000
"""A weight inside the house is a number of buckets; at every edge it is per cent."""


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parent of every value that is stored or sent: immutable and closed."""


class Stage(StrEnum):
    """Where an endpoint stands in a rollout."""

    EMPTY = "empty"
    SETTLED = "settled"
    SHADOW = "shadow"
    CANARY = "canary"
    DRILL = "drill"


class Arm(StrEnum):
    """Which role a release had when it answered or watched a request."""

    PRODUCTION = "production"
    CANDIDATE = "candidate"
    PREVIOUS = "previous"


class ActorKind(StrEnum):
    """What wrote a ledger entry, stated by the component that wrote it.

    The name beside it is free text: KEDGE_ACTOR may be anything.
    """

    PERSON = "person"
    """A command of the operator, or of a script: whatever kedge did not start by itself."""
    PATROL = "patrol"
    CONTROL = "control"
    """Another loop of the control process, or a command that it started."""
    SUPERVISOR = "supervisor"

    @property
    def is_automatic(self) -> bool:
        """Whether kedge acted by itself."""
        return self is not ActorKind.PERSON


class Placement(StrEnum):
    """Where a release runs on a replica's host."""

    INLINE = "inline"
    PROCESS = "process"


Dtype = Literal[
    "bool",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
    "string",
]


class Field(Value, frozen=True):
    """One named input or output. `shape` is that of one row: () is a scalar, -1 any length.

    `range`, `max_length` and `categories` bound an input: a gateway refuses other values before it
    asks a model. They are left out of what is stored when they are not given, so that digests stay.
    """

    name: str
    dtype: Dtype
    shape: tuple[int, ...] = ()
    nullable: bool = False
    range: tuple[float, float] | msgspec.UnsetType = msgspec.UNSET
    """Least and largest value, both allowed; for numbers."""
    max_length: int | msgspec.UnsetType = msgspec.UNSET
    """Most values along a length of -1; of a text without one, most characters."""
    categories: tuple[str | int, ...] | msgspec.UnsetType = msgspec.UNSET
    """The values that are allowed; for texts and whole numbers."""

    @property
    def is_bounded(self) -> bool:
        """Whether values are refused that fit its type."""
        return (self.range, self.max_length, self.categories) != (msgspec.UNSET,) * 3


class Signature(Value, frozen=True):
    """What a model takes and gives, in order."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]


class Output(Value, frozen=True):
    """How an endpoint's answer is read when two releases are compared, and what a label is about.

    `binary` decides at `threshold` of the output `score`. `score` compares one number, the output
    `value` or `score`. `class` compares the class in the output `label`. `ranking`
    compares the order of the items in the output `label`, a vector with the best first. `exact` compares every
    output for equality. `custom` asks `function`, "module:name". In `exact` and `custom`, `label`
    or `value` says which output a label is compared with.
    """

    kind: Literal["binary", "score", "class", "ranking", "exact", "custom"] = "exact"
    score: str | None = None
    threshold: float = 0.5
    tolerance: float = 0.0
    function: str | None = None
    label: str | None = None
    """The output that holds the class: words, whole numbers, or a vector whose largest place it is."""
    value: str | None = None
    """The output that holds the number."""
    classes: tuple[str | int, ...] = ()
    """The classes in the order of a vector of probabilities. In `binary`: no, then yes."""


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


class FileEntry(Value, frozen=True):
    """One file of an artifact: its path inside it, its size in bytes and its sha256."""

    path: str
    size: int
    sha256: str


class TrainingSet(Value, kw_only=True, frozen=True):
    """What a training set says of itself: which code made its features, of which values."""

    schema: str
    transformation: int
    code: str
    """The digest of the transformation's bundle."""
    generations: tuple[str, ...] = ()
    """The runs that were looked up, such as carrier_delays/1#2@1."""
    data: str
    """The digest of its content, whatever the layout of the file."""
    rows: int
    spine: str = ""
    """The file whose rows they are."""
    time: str = ""
    """The column that says when each row was asked."""
    made_at: str = ""

    @property
    def label(self) -> str:
        """Its code and generations: flight/1#4, carrier_delays/1#2@1."""
        return ", ".join((f"{self.schema}#{self.transformation}", *self.generations))


class Plainness(Value, kw_only=True, frozen=True):
    """What the walk over a loaded model found: whether it holds only what is known to be harmless inline."""

    proven: bool
    rule: int
    """The number of the tables that it was walked by."""
    why: str = ""
    """The first thing that is not known, in words, for people."""
    found: tuple[str, ...] = ()
    """The estimators or operators that it is made of."""
    apart: bool = False
    """Whether it runs in a process, also where an operator lets it run inline: it needs what no worker imports."""


class ModelVersion(Value, kw_only=True, frozen=True):
    """An immutable artifact and what is known of it."""

    model: str
    number: int
    digest: str
    flavour: str
    signature: Signature
    schema: str | None = None
    size: int
    files: tuple[FileEntry, ...]
    source: str
    trusted: tuple[str, ...] = ()
    load_s: float = 0.0
    stalls: bool = False
    """Loading it holds the interpreter lock, so loading it inline would stall a worker."""
    golden: Literal["given", "training", "made"] = "made"
    registered_at: str = ""
    registered_by: str = ""
    trained_on: TrainingSet | None = None
    """Its training set, where kedge made it."""

    @property
    def label(self) -> str:
        """The name people use: v3."""
        return f"v{self.number}"


class Release(Value, kw_only=True, frozen=True):
    """The immutable bundle that serves. Content-addressed; `number` is its name in an endpoint."""

    endpoint: str
    number: int
    digest: str
    model: str
    version: int
    model_digest: str
    flavour: str
    signature: Signature
    placement: Placement
    schema: str | None = None
    transformation: int | None = None
    generation: str | None = None
    trusted: tuple[str, ...] = ()
    load_s: float = 0.0
    code: str | None = None
    """The digest of the transformation's bundle. With one, `signature` takes its raw columns."""

    @property
    def label(self) -> str:
        """The name people use: r3."""
        return f"r{self.number}"


class Drilling(Value, frozen=True):
    """A drill under way: production is the way back, and what was production is restored after it."""

    left: int
    until: float
    """Unix time. The command that started it returns before; after it the patrol does."""


class Failure(Value, frozen=True):
    """A verdict `fail` on a candidate. It binds until the pair passes a shadow window."""

    candidate: int
    production: int
    reason: str
    salt: str
    """Of the rollout in which it failed; with stage and policy, of the comparison."""
    stage: Stage
    policy: str
    """The digest of the policy that it was judged by."""


class Automation(Value, frozen=True, omit_defaults=True):
    """What the patrol may do on an endpoint, what it has proven, and what it has to end."""

    frozen: bool = False
    """An operator stopped automation; humans' commands work as ever."""
    auto: bool = False
    """The canary under way is walked by the patrol."""
    proven: tuple[int, int] | None = None
    """(candidate, production): the pair whose shadow window passed last."""
    drill: Drilling | None = None
    """The drill under way, which ends however the process that started it does."""
    failures: tuple[Failure, ...] = ()
    """Verdicts `fail` that bind: at most one for each pair of releases, oldest first."""
    restored: str = ""
    """When the ledger was restored from a backup, while no person has confirmed it: kedge then acts not
    by itself. Empty: it was not, or it is confirmed."""


class State(Value, frozen=True):
    """One endpoint's row: what is live, and what is needed to change it."""

    endpoint: str
    epoch: int = 0
    stage: Stage = Stage.EMPTY
    production: int | None = None
    previous: int | None = None
    candidate: int | None = None
    paused: bool = False
    weight: int = 0
    sample: int = 0
    salt: str = ""
    holdback: int = 0
    follow: bool = False
    policy: Policy = Policy()
    policy_digest: str = ""
    fields: tuple[Field, ...] = ()
    """The request contract: what callers promise to send."""
    answers: tuple[Field, ...] | None = None
    """The contract of answers: the outputs that callers are promised. None: not taken yet."""
    served: tuple[int, ...] = ()
    """Every release that was production, in the order in which it last became so."""
    condemned: tuple[int, ...] = ()
    back: int | None = None
    back_model: int | None = None
    back_features: int | None = None
    automation: Automation = Automation()
    flipped_at: str = ""
    """When production last changed; the window in which `back*` stays loaded starts here."""
    releases: dict[int, Release] = {}

    @property
    def drill(self) -> Drilling | None:
        """The drill under way."""
        return self.automation.drill

    @property
    def unconfirmed(self) -> bool:
        """Whether it was restored from a backup, and no person has confirmed that yet."""
        return bool(self.automation.restored)

    @property
    def mirrored(self) -> tuple[int, int] | None:
        """Which release silently gets a copy of the inputs, and of how many buckets.

        The candidate in a shadow; after a promotion the release that was left, unless a share
        of the callers is held back on it. A drill pauses it.
        """
        if self.stage is Stage.SHADOW and self.candidate is not None:
            return self.candidate, self.sample
        if self.held is not None:
            return None
        sample = round(self.policy.after.sample * BUCKETS / 100)
        if self.stage is Stage.SETTLED and sample and self.back not in (None, self.production):
            assert self.back is not None
            return self.back, sample
        return None

    @property
    def held(self) -> int | None:
        """The release that a share of the callers is held back on after a promotion."""
        if self.stage is Stage.SETTLED and self.holdback and self.back != self.production:
            return self.back
        return None

    @property
    def divided(self) -> bool:
        """Whether every request counts: a rollout is under way, or some callers are held back."""
        return self.candidate is not None or self.held is not None

    @property
    def stratum(self) -> int:
        """The share, in buckets, of the release that production is compared with by arms."""
        return self.weight if self.held is None else self.holdback

    @property
    def compared(self) -> int | None:
        """What production is compared with: a candidate, or the release that was left."""
        if self.candidate is not None:
            return self.candidate
        return self.mirrored[0] if self.mirrored is not None else self.held


class Beginning(Value, frozen=True):
    """When a telemetry database was made, and why there is no earlier one."""

    at: float
    """Unix time."""
    why: str = ""
    """What was wrong with the one before it; empty when there was none."""
    kept: str = ""
    """The name under which that one is kept; empty when there is nothing to keep."""


class Refusal(Value, frozen=True):
    """A "no": why, and what to do instead."""

    code: str
    message: str
    hint: str = ""

"""Commands and events of an endpoint, as the ledger stores them.

A command is an imperative. An event is a past participle, and is what the ledger stores. Both may
carry `evidence`: the figures behind an automatic decision, which explain it afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from kedge.core.values import BUCKETS, Field, Policy, Value

# ---------------------------------------------------------------- commands


class Command(Value, tag_field="command", tag=str.lower, frozen=True, kw_only=True):
    """An imperative. Its effect depends on the stage: see `core.release.machine.TABLE`."""

    evidence: Mapping[str, object] | None = None
    """The figures that the sender saw, as plain values. They go into every event of the command."""


class Configure(Command, frozen=True):
    """Bring a policy into force. `diff` is for display: one line per change."""

    policy: Policy
    digest: str
    diff: tuple[str, ...] = ()


class Promote(Command, frozen=True):
    """Advance: to the next canary step, or into production (`full`, or after the last step)."""

    release: int | None = None
    full: bool = False
    override: str | None = None
    equivalence: str | None = None
    """Why it needs no rollout: the evidence that it answers like production. Not an override."""


class Shadow(Command, frozen=True):
    """Give a candidate a silent copy of the inputs. `sample` is a number of buckets."""

    release: int
    sample: int = BUCKETS
    override: str | None = None


class Canary(Command, frozen=True):
    """Let a candidate answer a share of the callers. `weight` is a number of buckets."""

    release: int
    weight: int
    override: str | None = None
    auto: bool = False
    """Whether the patrol takes the steps."""


class SetWeight(Command, frozen=True):
    """Change the candidate's share."""

    weight: int
    override: str | None = None


class Pause(Command, frozen=True):
    """Hold the rollout at its present stage and weight."""

    failure: str | None = None
    """Why the candidate failed, if the patrol holds the rollout for it."""


class Resume(Command, frozen=True):
    """Continue a held rollout."""

    override: str | None = None


class Abort(Command, frozen=True):
    """End a candidate without condemning it."""


class Certify(Command, frozen=True):
    """Record that the candidate passed its shadow window. Sent by the patrol, with its evidence."""

    release: int


class Fail(Command, frozen=True):
    """Record the verdict `fail` on the candidate, so that it binds. Sent by the patrol."""

    release: int
    reason: str


class Freeze(Command, frozen=True):
    """Stop automation on this endpoint. Operators' commands still work."""


class Thaw(Command, frozen=True):
    """Allow automation again."""


class Follow(Command, frozen=True):
    """Follow the head of the feature schema from now on."""


class Hold(Command, frozen=True):
    """Stay on these features when the head of the schema moves."""


class Rollback(Command, frozen=True):
    """Undo the newest change that callers see."""

    production: bool = False
    to: int | None = None
    axis: Literal["model", "features"] | None = None


class Drill(Command, frozen=True):
    """Practise a rollback: production goes to its way back, and is restored. Condemns nothing."""

    until: float
    """Unix time at which it must be over."""


class Return(Command, frozen=True):
    """End the drill: the production release from before it is restored."""

    until: float | None = None
    """End only the drill with this deadline. None: end whichever drill runs."""


AnyCommand = (
    Configure
    | Promote
    | Shadow
    | Canary
    | SetWeight
    | Pause
    | Resume
    | Abort
    | Certify
    | Fail
    | Freeze
    | Thaw
    | Follow
    | Hold
    | Rollback
    | Drill
    | Return
)

# ---------------------------------------------------------------- events


class Event(Value, tag_field="event", frozen=True, kw_only=True, omit_defaults=True):
    """A past participle: a change of the row."""

    evidence: Mapping[str, object] | None = None
    """The figures that the decision saw."""


class Configured(Event, tag="configured", frozen=True):
    """A policy came into force."""

    policy: Policy
    digest: str
    diff: tuple[str, ...] = ()


class ContractAdopted(Event, tag="contract_adopted", frozen=True):
    """The endpoint, which declared no fields, took those of its first production release."""

    fields: tuple[Field, ...]


class Promoted(Event, tag="promoted", frozen=True):
    """A release became production."""

    release: int
    replaced: int | None
    at: str
    override: str | None = None
    equivalence: str | None = None
    """The evidence that it answers like the production before it, if it needed no rollout."""
    answers: tuple[Field, ...] | None = None
    """The contract of answers, if the endpoint took it with this promotion."""


class ShadowStarted(Event, tag="shadow_started", frozen=True):
    """A candidate began to get a silent copy of the inputs."""

    release: int
    sample: int
    salt: str
    override: str | None = None


class SampleSet(Event, tag="sample_set", frozen=True):
    """The shadow's sample changed."""

    sample: int
    previously: int


class CanaryStarted(Event, tag="canary_started", frozen=True):
    """A candidate began to answer a share of the callers."""

    release: int
    weight: int
    salt: str
    override: str | None = None
    auto: bool = False


class WeightSet(Event, tag="weight_set", frozen=True):
    """The candidate's share changed."""

    weight: int
    previously: int
    override: str | None = None
    release: int | None = None
    """The candidate, where rules were overridden for it."""


class Paused(Event, tag="paused", frozen=True):
    """The rollout was held at its stage and weight."""


class Resumed(Event, tag="resumed", frozen=True):
    """The held rollout continued."""

    override: str | None = None
    release: int | None = None
    """The candidate, where rules were overridden for it."""


class Aborted(Event, tag="aborted", frozen=True):
    """A rollout ended without condemning its candidate."""

    release: int


class ShadowPassed(Event, tag="shadow_passed", frozen=True):
    """The candidate passed its shadow window against this production release."""

    release: int
    production: int


class ComparisonFailed(Event, tag="comparison_failed", frozen=True):
    """The verdict on the candidate against this production release is `fail`. Nothing moved."""

    release: int
    production: int
    reason: str


class Frozen(Event, tag="frozen", frozen=True):
    """Automation was stopped."""


class Thawed(Event, tag="thawed", frozen=True):
    """Automation was allowed again."""


class Followed(Event, tag="followed", frozen=True):
    """The endpoint began to follow the head of its feature schema."""


class Held(Event, tag="held", frozen=True):
    """The endpoint began to stay on its features."""


class CandidateRolledBack(Event, tag="candidate_rolled_back", frozen=True):
    """The candidate's share became zero and the candidate condemned. Production stayed."""

    release: int
    weight: int


class RolledBack(Event, tag="rolled_back", frozen=True):
    """Production was rolled back, and the release that it left is condemned."""

    release: int
    left: int
    at: str
    axis: str | None = None


class DrillStarted(Event, tag="drill_started", frozen=True):
    """The way back answers for practice; `left` is restored by `until` (Unix time)."""

    release: int
    left: int
    until: float


class DrillEnded(Event, tag="drill_ended", frozen=True):
    """The release that the drill left is production again."""

    release: int


class Restored(Event, tag="restored", frozen=True):
    """The ledger was restored from a backup. Entries and epochs restart above all lost ones."""

    seq: int
    """The number of the newest entry in the backup."""
    hash: str
    """The hash of that entry."""
    epoch: int
    """The endpoint's new epoch, above every epoch that a replica may have seen."""
    backup: str
    """The time at which the backup was made."""
    at: str


AnyEvent = (
    Configured
    | ContractAdopted
    | Promoted
    | ShadowStarted
    | SampleSet
    | CanaryStarted
    | WeightSet
    | Paused
    | Resumed
    | Aborted
    | ShadowPassed
    | ComparisonFailed
    | Frozen
    | Thawed
    | Followed
    | Held
    | CandidateRolledBack
    | RolledBack
    | DrillStarted
    | DrillEnded
    | Restored
)

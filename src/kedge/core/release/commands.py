"""What may be asked of an endpoint, and what may happen to it: the words of the ledger.

A command is an imperative; an event is a past participle and is what is stored. Both may carry
`evidence`: the figures that an automatic decision saw, so that it can be explained afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from kedge.core.values import BUCKETS, Field, Policy, Value

# ---------------------------------------------------------------- commands


class Command(Value, tag_field="command", tag=str.lower, frozen=True, kw_only=True):
    """An imperative. What it may do depends on the stage: see `core.release.machine.TABLE`."""

    evidence: Mapping[str, object] | None = None
    """What the asker saw, as plain values. It goes into every event that the command causes."""


class Configure(Command, frozen=True):
    """Bring a policy into force. `diff` is for people: one line a change."""

    policy: Policy
    digest: str
    diff: tuple[str, ...] = ()


class Promote(Command, frozen=True):
    """Advance: to the next canary step, or into production (`full`, or after the last step)."""

    release: int | None = None
    full: bool = False
    override: str | None = None
    equivalence: str | None = None
    """Why it needs no rollout: the evidence that it answers as production does. Not an override."""


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
    """Whether the patrol walks the steps."""


class SetWeight(Command, frozen=True):
    """Change the candidate's share."""

    weight: int
    override: str | None = None


class Pause(Command, frozen=True):
    """Hold the rollout where it is."""

    failure: str | None = None
    """Why the candidate failed, where the patrol holds the rollout for that."""


class Resume(Command, frozen=True):
    """Let a held rollout go on."""

    override: str | None = None


class Abort(Command, frozen=True):
    """End a candidate without condemning it."""


class Certify(Command, frozen=True):
    """Say that the candidate passed its shadow window. The patrol's word, with its evidence."""

    release: int


class Fail(Command, frozen=True):
    """Record the verdict `fail` on the candidate, so that it binds. The patrol's word."""

    release: int
    reason: str


class Freeze(Command, frozen=True):
    """Stop automation on this endpoint. No human's command is touched by it."""


class Thaw(Command, frozen=True):
    """Let automation act again."""


class Follow(Command, frozen=True):
    """Move with the head of the feature schema from now on."""


class Hold(Command, frozen=True):
    """Stay on these features, wherever the head of the schema goes."""


class Rollback(Command, frozen=True):
    """Undo the newest change that callers were served."""

    production: bool = False
    to: int | None = None
    axis: Literal["model", "features"] | None = None


class Drill(Command, frozen=True):
    """Practise a rollback: production goes to its way back, and is restored. Condemns nothing."""

    until: float
    """Unix time at which it has to be over."""


class Return(Command, frozen=True):
    """End the drill: what was production before is production again."""

    until: float | None = None
    """Of the drill that has to be over then, and of no other. None: of whichever runs."""


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
    """A past participle: something that changed the row."""

    evidence: Mapping[str, object] | None = None
    """The figures that the decision saw."""


class Configured(Event, tag="configured", frozen=True):
    """A policy came into force."""

    policy: Policy
    digest: str
    diff: tuple[str, ...] = ()


class ContractAdopted(Event, tag="contract_adopted", frozen=True):
    """The endpoint had declared no fields; it took those of its first production release."""

    fields: tuple[Field, ...]


class Promoted(Event, tag="promoted", frozen=True):
    """A release became production."""

    release: int
    replaced: int | None
    at: str
    override: str | None = None
    equivalence: str | None = None
    """The evidence that it answers as production did, where it came without a rollout."""
    answers: tuple[Field, ...] | None = None
    """The contract of answers, where the endpoint had none yet and took it with this promotion."""


class ShadowStarted(Event, tag="shadow_started", frozen=True):
    """A candidate gets a silent copy of the inputs."""

    release: int
    sample: int
    salt: str
    override: str | None = None


class SampleSet(Event, tag="sample_set", frozen=True):
    """The shadow's sample changed."""

    sample: int
    previously: int


class CanaryStarted(Event, tag="canary_started", frozen=True):
    """A candidate answers a share of the callers."""

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
    """The rollout is held where it is."""


class Resumed(Event, tag="resumed", frozen=True):
    """The rollout goes on."""

    override: str | None = None
    release: int | None = None
    """The candidate, where rules were overridden for it."""


class Aborted(Event, tag="aborted", frozen=True):
    """A candidate ended, not condemned."""

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
    """Automation stopped."""


class Thawed(Event, tag="thawed", frozen=True):
    """Automation acts again."""


class Followed(Event, tag="followed", frozen=True):
    """The endpoint moves with the head of its feature schema."""


class Held(Event, tag="held", frozen=True):
    """The endpoint stays on its features."""


class CandidateRolledBack(Event, tag="candidate_rolled_back", frozen=True):
    """The candidate's share went to zero; it is condemned. Production stayed."""

    release: int
    weight: int


class RolledBack(Event, tag="rolled_back", frozen=True):
    """Production went back; what it left behind is condemned."""

    release: int
    left: int
    at: str
    axis: str | None = None


class DrillStarted(Event, tag="drill_started", frozen=True):
    """The way back answers, for practice; `left` is restored by `until` (Unix time)."""

    release: int
    left: int
    until: float


class DrillEnded(Event, tag="drill_ended", frozen=True):
    """What the drill had left is production again."""

    release: int


class Restored(Event, tag="restored", frozen=True):
    """The ledger was restored from a backup. Entries and epochs begin anew above all that were lost."""

    seq: int
    """The number of the newest entry that the backup has."""
    hash: str
    """Its hash."""
    epoch: int
    """The endpoint's epoch from here on: above every one that a replica may have seen."""
    backup: str
    """When the backup was made."""
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

"""State: one endpoint's row."""

from __future__ import annotations

from kedge.core.values.policy import Policy
from kedge.core.values.signature import Field
from kedge.core.values.structs import BUCKETS, Stage, Value
from kedge.core.values.version import Release


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

"""State: the row of one endpoint."""

from __future__ import annotations

from kedge.core.values.policy import Policy
from kedge.core.values.signature import Field
from kedge.core.values.structs import BUCKETS, Stage, Value
from kedge.core.values.version import Release


class Drilling(Value, frozen=True):
    """A drill under way: the way back is production, and the production before it is restored."""

    left: int
    until: float
    """Unix time. The command that started the drill ends it before then; later the patrol does."""


class Failure(Value, frozen=True):
    """A verdict `fail` on a candidate. It binds until the pair passes a shadow window."""

    candidate: int
    production: int
    reason: str
    salt: str
    """The salt of the rollout in which it failed; with stage and policy it identifies the
    comparison."""
    stage: Stage
    policy: str
    """The digest of the policy that it was judged by."""


class Automation(Value, frozen=True, omit_defaults=True):
    """The patrol's permissions on an endpoint, its proofs, and the drill that it has to end."""

    frozen: bool = False
    """Whether an operator stopped automation; operators' commands still work."""
    auto: bool = False
    """Whether the patrol takes the steps of the canary under way."""
    proven: tuple[int, int] | None = None
    """(candidate, production): the pair whose shadow window passed last."""
    drill: Drilling | None = None
    """The drill under way. It ends even if the process that started it died."""
    failures: tuple[Failure, ...] = ()
    """Verdicts `fail` that bind: at most one for each pair of releases, oldest first."""
    restored: str = ""
    """When the ledger was restored from a backup that no operator has confirmed yet. Until then
    kedge does not act by itself. Empty: not restored, or confirmed."""


class State(Value, frozen=True):
    """The row of one endpoint: the live releases, and the values needed to change them."""

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
    """The request contract: the fields that callers promise to send."""
    answers: tuple[Field, ...] | None = None
    """The contract of answers: the outputs that callers are promised. None: not taken yet."""
    served: tuple[int, ...] = ()
    """Every release that was production, ordered by when it last became production."""
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
        """Whether the ledger was restored from a backup that no operator has confirmed yet."""
        return bool(self.automation.restored)

    @property
    def mirrored(self) -> tuple[int, int] | None:
        """The release that silently gets a copy of the inputs, and its number of buckets.

        In a shadow it is the candidate. After a promotion it is the release that was left, unless
        some callers are held back on it. A drill pauses it.
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
        """The release on which some callers are held back after a promotion."""
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
        """The release compared with production: a candidate, or the release that was left."""
        if self.candidate is not None:
            return self.candidate
        return self.mirrored[0] if self.mirrored is not None else self.held

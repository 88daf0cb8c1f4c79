"""Notes: entries of the ledger that change no row, with one struct for each kind.

A note is stored as `{"event": "noted", "kind": ..., "body": {...}}`. The struct of the body defines
the kind, so no caller spells one. `upcast.read_body` reads notes of other versions with today's
fields. A kind that this version does not know stays a plain object.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from kedge.core.access import Role, Scope
from kedge.core.alerts.alerts import Level, Topic
from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.stored.ledger import Note


class NoteBody(msgspec.Struct, frozen=True, kw_only=True):
    """The parent of bodies. Reading ignores fields of a later version."""


class ReceiptParts(NoteBody, frozen=True, kw_only=True):
    """Duration of each part of a command, in milliseconds since it was submitted."""

    decide_ms: float
    prepare_ms: float
    write_ms: float
    last_ack_ms: float | None
    """None: a replica did not acknowledge."""
    first_old_answer_ms: float | None
    """When a caller first got an answer of the release that is production now; None: not
    observed."""
    total_ms: float
    acks: dict[str, float] = {}
    """By replica: when it acknowledged."""
    silent: tuple[str, ...] = ()
    """Replicas that did not acknowledge."""
    ended: tuple[str, ...] = ()
    """Replicas whose processes ended before they acknowledged, so that they answer no caller."""
    cold: dict[str, str] = {}
    """By replica: why it was not ready for the release before the row changed."""


class ReceiptNote(NoteBody, frozen=True, kw_only=True):
    """The receipt of a completed command; its parts are those of `ReceiptParts`."""

    of: int
    """The number of the command's first entry."""
    command: str
    decide_ms: float = 0.0
    prepare_ms: float = 0.0
    write_ms: float = 0.0
    last_ack_ms: float | None = None
    first_old_answer_ms: float | None = None
    total_ms: float
    acks: dict[str, float] = {}
    silent: tuple[str, ...] = ()
    ended: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    """Missing in notes of older versions."""
    cold: dict[str, str] = {}

    @property
    def parts(self) -> ReceiptParts:
        """Return the duration of each part of the command."""
        found = {name: getattr(self, name) for name in ReceiptParts.__struct_fields__}
        return ReceiptParts(**found | {"ended": self.ended or ()})


class DrillResult(NoteBody, frozen=True, kw_only=True):
    """The result of a drill."""

    ok: bool
    """Whether every replica acknowledged both flips, and the rollback took at most ten minutes."""
    total_s: float = 0.0
    """Duration of the rollback, from the command to its end. Without a receipt: until its
    reversal."""
    release: int
    """The way back."""
    left: int | None = None
    """The production release before and after. None: an older version did not store it."""
    why: str = ""
    """Why the drill failed, or what it could not show."""
    dry: bool = False
    """Whether nothing was flipped, which proves less than a drill."""
    for_s: float = 0.0
    """How long the way back was to answer, in seconds."""
    lasted_s: float = 0.0
    """Seconds from the first flip to the second, in which the way back answered callers."""
    back: ReceiptParts | None = None
    """The receipt of the rollback."""
    forward: ReceiptParts | None = None
    """The receipt of the return."""
    answered: int | None = None
    """Requests that the way back answered in the drill."""
    failed: int | None = None
    """Requests that failed on the way back in the drill."""


class VerdictNote(NoteBody, frozen=True, kw_only=True):
    """A verdict on which the patrol did not act, with its figures. kedge never reads them back."""

    verdict: str
    code: str = ""
    candidate: str = ""
    """The release that was judged, as r2."""
    subject: int | None = None
    """The number of that release."""
    production: str = ""
    stage: str = ""
    weight: float | None = None
    """The candidate's share in per cent; None: it has no share."""
    overall: object = None
    verdicts: tuple[object, ...] = ()
    units: tuple[int, ...] = ()
    requests: tuple[int, ...] = ()
    callers: tuple[int, ...] = ()
    pairs: int = 0
    mirrored: int = 0
    copied: int = 0
    healthy_s: float = 0.0
    step_s: float = 0.0
    streak: int = 0
    broken: int = 0
    crashes: int = 0
    silent_s: float = 0.0
    routed: int = 0
    unasked: dict[str, int] = {}
    spread: dict[str, object] = {}


class EvidenceLost(NoteBody, frozen=True, kw_only=True):
    """The evidence of a rollout was lost, and collection restarted."""

    subject: int | None
    """The release that was judged."""
    detail: str
    """Where the unreadable evidence is stored; empty if there is none."""


class RunbookNote(NoteBody, frozen=True, kw_only=True):
    """The runbook was generated again."""

    digest: str
    """The digest of the state that it was generated from."""
    markdown: str = ""


class VersionRegistered(NoteBody, frozen=True, kw_only=True, omit_defaults=True):
    """A version was registered."""

    version: str
    digest: str
    flavour: str
    runs_code: bool = False
    """Whether an operator allowed it to run code when it is loaded."""


class InlineTrusted(NoteBody, frozen=True, kw_only=True):
    """An operator allowed a version to run inline although it is not proven plain."""

    version: str
    digest: str


class FeaturesApplied(NoteBody, frozen=True, kw_only=True):
    """A transformation of this endpoint's schema got a new version. No endpoint moved."""

    version: str
    outcome: str | None
    """Its comparison with the version before; None: there was none."""
    digest: str


class LedgerAccepted(NoteBody, frozen=True, kw_only=True):
    """An operator accepted a ledger whose history is missing heads that processes knew."""

    heads: tuple[tuple[int, str], ...]
    """Number and hash of each missing head."""


class ReferenceAccepted(NoteBody, frozen=True, kw_only=True):
    """A window became the reference of diagnoses."""

    since: float
    """Unix time."""
    until: float
    release: int | None
    """The production release in that window."""
    requests: int
    labelled: int


class PinDrifts(NoteBody, frozen=True, kw_only=True):
    """A pinned host could not submit its command."""

    host: str
    why: str


class Proven(NoteBody, frozen=True, kw_only=True):
    """The result of deploying a release from nothing, in a process of its own. Times in seconds."""

    release: int
    ok: bool
    why: str = ""
    """The step that failed, and its error."""
    golden: Literal["given", "training", "made"] = "made"
    rows: int = 0
    """Golden rows that the release answered, including those of the transformation."""
    sampled: int = 0
    """Further rows, from the prediction log, that the release answered."""
    fetch_s: float | None = None
    verify_s: float | None = None
    load_s: float | None = None
    answer_s: float | None = None

    @property
    def took_s(self) -> float:
        """The total of all steps."""
        return sum(t or 0.0 for t in (self.fetch_s, self.verify_s, self.load_s, self.answer_s))


class ReadinessNote(NoteBody, frozen=True, kw_only=True, omit_defaults=True):
    """The failing checks of readiness."""

    ready: bool
    failed: tuple[str, ...]
    why: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    """By failing check: why it fails."""
    promoting: str = ""
    """The release that still became production, as r2; empty if none did."""


class OverrideNote(ReadinessNote, frozen=True, kw_only=True, omit_defaults=True):
    """An operator promoted although checks failed."""


class ChannelTest(NoteBody, frozen=True, kw_only=True):
    """The result of a test message through one channel."""

    channel: str
    """The channel as kedge shows it, without secrets."""
    who: str
    """The person on duty if the channel is "rota"; else empty."""
    delivered: bool
    fault: str = ""
    """Why it was not delivered; empty if it was."""


class LevelTest(NoteBody, frozen=True, kw_only=True):
    """The result of a test of one level of an escalation."""

    level: int
    """The level, from 0."""
    works: bool
    """Whether at least one channel delivered."""
    channels: tuple[ChannelTest, ...] = ()


class AlertTested(NoteBody, frozen=True, kw_only=True):
    """kedge sent a test through every channel."""

    delivered: bool
    """Whether every level has a channel that delivered."""
    levels: tuple[LevelTest, ...] = ()


class AlertOpened(NoteBody, frozen=True, kw_only=True):
    """An alert was opened."""

    alert: int
    """The number of the alert."""
    level: Level = "warn"
    key: str = ""
    summary: str = ""
    topic: Topic = Topic.OTHER
    subject: int | None = None
    """The release of the alert."""


class AlertAcknowledged(NoteBody, frozen=True, kw_only=True):
    """A recipient acknowledged an alert."""

    alert: int
    key: str


class AlertResolved(NoteBody, frozen=True, kw_only=True):
    """The condition of an alert ended."""

    alert: int
    key: str


class AlertContinued(NoteBody, frozen=True, kw_only=True):
    """An operator continued despite an alert."""

    alert: int
    key: str


class TokenCreated(NoteBody, frozen=True, kw_only=True):
    """A token of control was created."""

    token: int
    """Its number."""
    name: str
    role: Role | None = None
    scopes: tuple[Scope, ...] = ()
    endpoints: tuple[str, ...] | None = None
    """None: all endpoints."""
    expires_at: float | None = None
    """Unix time; None: never."""


class TokenRevoked(NoteBody, frozen=True, kw_only=True):
    """A token of control was revoked."""

    token: int
    """Its number."""
    name: str


AnyNoteBody = NoteBody | DiagnosisSummary

KINDS: dict[str, type[AnyNoteBody]] = {
    "accepted": ReferenceAccepted,
    "alert_acknowledged": AlertAcknowledged,
    "alert_continued": AlertContinued,
    "alert_opened": AlertOpened,
    "alert_resolved": AlertResolved,
    "alert_tested": AlertTested,
    "drill": DrillResult,
    "evidence_lost": EvidenceLost,
    "features_applied": FeaturesApplied,
    "finding": DiagnosisSummary,
    "inline_trusted": InlineTrusted,
    "ledger_accepted": LedgerAccepted,
    "override": OverrideNote,
    "pin_drifts": PinDrifts,
    "proven": Proven,
    "readiness": ReadinessNote,
    "receipt": ReceiptNote,
    "registered": VersionRegistered,
    "runbook": RunbookNote,
    "token_created": TokenCreated,
    "token_revoked": TokenRevoked,
    "verdict": VerdictNote,
}
"""The struct of each kind's body. The spelling of a kind is stored, and must never change."""
_SPELLED: dict[type, str] = {body: kind for kind, body in KINDS.items()}


def spell_kind(body: type) -> str:
    """Return the kind of the notes that have this struct."""
    return _SPELLED[body]


def build_note(body: AnyNoteBody) -> Note:
    """Return the note with this body."""
    return Note(_SPELLED[type(body)], body)

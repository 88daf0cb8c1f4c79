"""Notes: what an entry of the ledger that moves no row says, a struct for each kind.

A note is stored as `{"event": "noted", "kind": ..., "body": {...}}`. The kind is that of the body's
struct, so no caller spells one. What another version stored is read with the fields of today
(`upcast.read_body`); a kind that this version does not know stays a plain object.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from kedge.core.alerts.alerts import Level, Topic
from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.stored.ledger import Note


class NoteBody(msgspec.Struct, frozen=True, kw_only=True):
    """The parent of bodies. Fields of a later version are left out when one is read."""


class ReceiptParts(NoteBody, frozen=True, kw_only=True):
    """How long each part of a command took, in milliseconds since it was submitted."""

    decide_ms: float
    prepare_ms: float
    write_ms: float
    last_ack_ms: float | None
    """None: a replica did not acknowledge."""
    first_old_answer_ms: float | None
    """When a caller first got an answer of the release that is production now; None: none was seen."""
    total_ms: float
    acks: dict[str, float] = {}
    """By replica: when it acknowledged."""
    silent: tuple[str, ...] = ()
    """Replicas that did not acknowledge."""
    ended: tuple[str, ...] = ()
    """Replicas whose processes ended before they acknowledged: they answer no caller."""
    cold: dict[str, str] = {}
    """By replica: why it was not ready for the release before the write."""


class ReceiptNote(NoteBody, frozen=True, kw_only=True):
    """The receipt of a command that came to its end; the parts are those of `ReceiptParts`."""

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
    """Absent in what an older version stored."""
    cold: dict[str, str] = {}

    @property
    def parts(self) -> ReceiptParts:
        """How long each part of the command took."""
        found = {name: getattr(self, name) for name in ReceiptParts.__struct_fields__}
        return ReceiptParts(**found | {"ended": self.ended or ()})


class DrillResult(NoteBody, frozen=True, kw_only=True):
    """What a drill came to."""

    ok: bool
    """Both flips were acknowledged by every replica, and going back took ten minutes at most."""
    total_s: float = 0.0
    """Going back, from the command to its end. Where no receipt tells: until it was undone."""
    release: int
    """The way back."""
    left: int | None = None
    """The release that was production before and after. None: an older version did not store it."""
    why: str = ""
    """Why it failed, or what it could not show."""
    dry: bool = False
    """Nothing was flipped: it proves less than a drill."""
    for_s: float = 0.0
    """For how long the way back was to answer."""
    lasted_s: float = 0.0
    """From the first flip to the second, callers got the way back."""
    back: ReceiptParts | None = None
    """The receipt of going back."""
    forward: ReceiptParts | None = None
    """The receipt of the return."""
    answered: int | None = None
    """Requests that the way back answered meanwhile."""
    failed: int | None = None
    """Requests that failed on the way back meanwhile."""


class VerdictNote(NoteBody, frozen=True, kw_only=True):
    """What the patrol saw when it judged and did not act. Nothing reads the figures back."""

    verdict: str
    code: str = ""
    candidate: str = ""
    """The release that was judged, as r2."""
    subject: int | None = None
    """Its number."""
    production: str = ""
    stage: str = ""
    weight: float | None = None
    """The candidate's share in per cent; None: it has none."""
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
    """What was known of a rollout was lost, and began anew."""

    subject: int | None
    """The release that was judged."""
    detail: str
    """Where what could not be read is kept; empty when there is nothing to keep."""


class RunbookNote(NoteBody, frozen=True, kw_only=True):
    """The runbook, written again."""

    digest: str
    """Of what it was made from."""
    markdown: str = ""


class VersionRegistered(NoteBody, frozen=True, kw_only=True):
    """A version was registered."""

    version: str
    digest: str
    flavour: str


class InlineTrusted(NoteBody, frozen=True, kw_only=True):
    """An operator lets a version run inline although it is not proven plain."""

    version: str
    digest: str


class FeaturesApplied(NoteBody, frozen=True, kw_only=True):
    """A transformation of this endpoint's schema got a new version; nothing moved."""

    version: str
    outcome: str | None
    """How it compares with the version before; None: there was none."""
    digest: str


class LedgerAccepted(NoteBody, frozen=True, kw_only=True):
    """An operator had a ledger followed whose history lacks heads."""

    heads: tuple[tuple[int, str], ...]
    """Number and hash of each."""


class ReferenceAccepted(NoteBody, frozen=True, kw_only=True):
    """A window is the reference of diagnoses from now on."""

    since: float
    """Unix time."""
    until: float
    release: int | None
    """What was production in it."""
    requests: int
    labelled: int


class PinDrifts(NoteBody, frozen=True, kw_only=True):
    """A pinned host could not hand its command in."""

    host: str
    why: str


class Proven(NoteBody, frozen=True, kw_only=True):
    """What came of deploying a release from nothing, in a process of its own. Times in seconds."""

    release: int
    ok: bool
    why: str = ""
    """The step that failed, and its fault."""
    golden: Literal["given", "training", "made"] = "made"
    rows: int = 0
    """Golden rows that were answered, the transformation's among them."""
    sampled: int = 0
    """Rows out of the prediction log that were answered beyond those."""
    fetch_s: float | None = None
    verify_s: float | None = None
    load_s: float | None = None
    answer_s: float | None = None

    @property
    def took_s(self) -> float:
        """All of its steps."""
        return sum(t or 0.0 for t in (self.fetch_s, self.verify_s, self.load_s, self.answer_s))


class ReadinessNote(NoteBody, frozen=True, kw_only=True, omit_defaults=True):
    """Which checks of readiness fail."""

    ready: bool
    failed: tuple[str, ...]
    why: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    """By check that fails: why."""
    promoting: str = ""
    """The release that became production anyway, as r2; empty when none did."""


class OverrideNote(ReadinessNote, frozen=True, kw_only=True, omit_defaults=True):
    """An operator promoted although checks failed."""


class ChannelTest(NoteBody, frozen=True, kw_only=True):
    """What came of a test message through one channel."""

    channel: str
    """The channel as it is shown: without secrets."""
    who: str
    """The person on duty, where the channel is "rota"; else empty."""
    delivered: bool
    fault: str = ""
    """Why it was not delivered; empty where it was."""


class LevelTest(NoteBody, frozen=True, kw_only=True):
    """What came of a test of one level of an escalation."""

    level: int
    """From 0."""
    works: bool
    """Whether at least one channel delivered."""
    channels: tuple[ChannelTest, ...] = ()


class AlertTested(NoteBody, frozen=True, kw_only=True):
    """A test was sent through every channel."""

    delivered: bool
    """Whether every level has a channel that delivered."""
    levels: tuple[LevelTest, ...] = ()


class AlertOpened(NoteBody, frozen=True, kw_only=True):
    """An alert recipient should know."""

    alert: int
    """The number of the alert."""
    level: Level = "warn"
    key: str = ""
    summary: str = ""
    topic: Topic = Topic.OTHER
    subject: int | None = None
    """The release that it is about."""


class AlertAcknowledged(NoteBody, frozen=True, kw_only=True):
    """A recipient acknowledged an alert."""

    alert: int
    key: str


class AlertResolved(NoteBody, frozen=True, kw_only=True):
    """What an alert was about is over."""

    alert: int
    key: str


class AlertContinued(NoteBody, frozen=True, kw_only=True):
    """An operator went on in spite of an alert."""

    alert: int
    key: str


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
    "verdict": VerdictNote,
}
"""The struct of each kind's body. The spelling of a kind is stored, and never changes."""
_SPELLED: dict[type, str] = {body: kind for kind, body in KINDS.items()}


def spell_kind(body: type) -> str:
    """Return the kind of a note that has this struct."""
    return _SPELLED[body]


def build_note(body: AnyNoteBody) -> Note:
    """Return the note that says this."""
    return Note(_SPELLED[type(body)], body)

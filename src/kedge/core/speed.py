"""Speed-to-rollback: how long it took to see, to decide and to go back, as the ledger has it.

Entries in, figures out. Everything is measured: a part whose entry is missing, because a process
died or what was read begins later, is None and is counted, never guessed. Detection is an upper
bound: it runs from the moment at which a release first reached callers, for it is unknown when it
began to do harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from typing import Literal, NamedTuple

from msgspec.structs import replace

from kedge.core.alerts.alerts import Topic
from kedge.core.release.commands import (
    Aborted,
    AnyEvent,
    CanaryStarted,
    CandidateRolledBack,
    DrillEnded,
    DrillStarted,
    Promoted,
    RolledBack,
    WeightSet,
)
from kedge.core.stored.notes import AlertOpened, DrillResult, ReceiptNote, VerdictNote
from kedge.core.values import ActorKind, Value

SLO_S = 600.0
"""From the first caller to the first old answer: the aim of most teams that have one."""
TREND_S = 90 * 86_400.0
"""A quarter against the one before it: incidents are too rare for less."""

Sign = Literal["alert", "verdict", "patrol", "command"]


class LedgerLine(NamedTuple):
    """One entry of an endpoint's ledger: an event, or the body of a note."""

    seq: int
    at: float
    """Unix time."""
    by: str
    event: AnyEvent | None = None
    note: object = None
    actor: ActorKind = ActorKind.PERSON


class FlipTimes(Value, frozen=True):
    """What a receipt says of one flip, in seconds. The last three count from the command."""

    decide_s: float
    prepare_s: float
    write_s: float
    last_ack_s: float | None
    """None: a replica was silent."""
    first_answer_s: float | None
    """None: no caller was seen to get an answer."""
    total_s: float


class Incident(Value, frozen=True, kw_only=True):
    """A release that was taken back."""

    at: float
    """Unix time of the command."""
    release: int
    """The one that was left."""
    event: Literal["rolled_back", "candidate_rolled_back"]
    by: str
    automatic: bool
    sign: Sign
    """The first sign of harm: an alert, a failed verdict, the patrol's or a person's own command."""
    detect_s: float | None
    """At most: from its first caller to the sign. None: it reached callers before what was read."""
    decide_s: float | None
    """From the sign to the command. None: the command was the sign."""
    machine: FlipTimes | None
    """None: the receipt is missing."""
    total_s: float | None = None
    """From the first caller to the first old answer; None when a part is not known."""


class Practice(Value, frozen=True, kw_only=True):
    """A drill."""

    at: float
    release: int
    """The way back."""
    by: str
    dry: bool = False
    ok: bool | None = None
    """None: its outcome was not recorded."""
    why: str = ""
    back: FlipTimes | None = None
    forward: FlipTimes | None = None
    lasted_s: float | None = None


class Quantiles(Value, frozen=True):
    """How some seconds are spread: nearest rank, so each is one that was measured."""

    n: int = 0
    p50: float | None = None
    p95: float | None = None


class Trend(Value, frozen=True):
    """The last ninety days, and the ninety before."""

    last: Quantiles
    before: Quantiles


class Speed(Value, frozen=True, kw_only=True):
    """Speed-to-rollback of one endpoint, in seconds."""

    endpoint: str
    incidents: tuple[Incident, ...]
    drills: tuple[Practice, ...]
    whole_s: Quantiles
    """Of incidents, from the first caller to the first old answer."""
    flip_s: Quantiles
    """Of incidents, from the command to the first old answer."""
    drill_s: Quantiles
    """Of drills that flipped, the same."""
    slo_s: float
    within: float | None
    """The share of the incidents whose whole is known, that were within the SLO."""
    unknown: int
    """Incidents whose whole is not known."""
    unreceipted: int
    """Flips, of incidents and drills, whose receipt is missing."""
    incident_trend: Trend
    drill_trend: Trend
    cut: int | None = None
    """How many entries were read where older ones exist; None: all were read."""


def speed(endpoint: str, lines: Iterable[LedgerLine], now: float, cut: int | None = None) -> Speed:
    """Read the speed-to-rollback out of an endpoint's entries.

    Args:
        endpoint: its name.
        lines: oldest first; what is older may be missing.
        now: Unix time, for the trend.
        cut: how many entries there are, where older ones exist.
    """
    reader = _Reader()
    for line in lines:
        reader.take(line)
    incidents, drills = tuple(reader.incidents()), tuple(reader.drills())
    flipped = [drill for drill in drills if not drill.dry]
    whole = [(one.at, one.total_s) for one in incidents]
    drilled = [(one.at, one.back.first_answer_s if one.back else None) for one in flipped]
    known = [total for _, total in whole if total is not None]
    flips = [one.machine for one in incidents] + [
        flip
        for one in flipped
        for flip in ((one.back, one.forward) if one.lasted_s is not None else (one.back,))
    ]
    return Speed(
        endpoint=endpoint,
        incidents=incidents,
        drills=drills,
        whole_s=spread(known),
        flip_s=spread(
            [
                m.first_answer_s
                for one in incidents
                if (m := one.machine) is not None and m.first_answer_s is not None
            ]
        ),
        drill_s=spread([s for _, s in drilled if s is not None]),
        slo_s=SLO_S,
        within=sum(total <= SLO_S for total in known) / len(known) if known else None,
        unknown=len(incidents) - len(known),
        unreceipted=sum(flip is None for flip in flips),
        incident_trend=_trend(whole, now),
        drill_trend=_trend(drilled, now),
        cut=cut,
    )


def spread(seconds: Sequence[float]) -> Quantiles:
    """Median and 95th percentile, by nearest rank."""
    if not seconds:
        return Quantiles()
    ranked = sorted(seconds)
    p50, p95 = (ranked[max(ceil(q * len(ranked)), 1) - 1] for q in (0.5, 0.95))
    return Quantiles(len(ranked), p50, p95)


def _trend(timed: Sequence[tuple[float, float | None]], now: float) -> Trend:
    def between(least: float, most: float) -> Quantiles:
        return spread([s for at, s in timed if s is not None and least <= now - at < most])

    return Trend(last=between(-TREND_S, TREND_S), before=between(TREND_S, 2 * TREND_S))


def machine_of(receipt: ReceiptNote) -> FlipTimes:
    """Return what a receipt says of one flip, in seconds."""
    ack, answer = receipt.last_ack_ms, receipt.first_old_answer_ms
    return FlipTimes(
        decide_s=receipt.decide_ms / 1e3,
        prepare_s=receipt.prepare_ms / 1e3,
        write_s=receipt.write_ms / 1e3,
        last_ack_s=None if ack is None else ack / 1e3,
        first_answer_s=None if answer is None else answer / 1e3,
        total_s=receipt.total_ms / 1e3,
    )


def _total_s(incident: Incident, machine: FlipTimes | None) -> float | None:
    """Return how long an incident took in all; None when a part is not known."""
    if incident.detect_s is None or machine is None or machine.first_answer_s is None:
        return None
    return incident.detect_s + (incident.decide_s or 0.0) + machine.first_answer_s


class _Reader:
    """Folds entries, oldest first."""

    def __init__(self) -> None:
        self._reached: dict[int, float] = {}
        """When each release that callers get now began to reach them."""
        self._signs: dict[int, tuple[float, Sign]] = {}
        self._candidate: int | None = None
        self._command: tuple[int, LedgerLine] | None = None
        """The entry that the present command began with, and the last one of it."""
        self._receipts: dict[int, FlipTimes] = {}
        self._incidents: list[tuple[int, Incident]] = []
        self._drills: list[tuple[int | None, int | None, Practice]] = []
        """The commands that began and ended each, and what is known of it."""
        self._running = False
        """Whether the newest drill has not ended."""

    def take(self, line: LedgerLine) -> None:
        """Take one entry in."""
        if line.event is not None:
            self._command = (self._began(line), line)
            self._event(line, line.event)
            return
        match line.note:
            case ReceiptNote() as receipt:
                self._receipts[receipt.of] = machine_of(receipt)
            case AlertOpened(topic=Topic.FAILING, subject=subject):
                self._sign(subject, line.at, "alert")
            case VerdictNote(verdict="fail", subject=subject):
                self._sign(subject, line.at, "verdict")
            case DrillResult() as result:
                self._filed(line, result)

    def _began(self, line: LedgerLine) -> int:
        """The first entry of the command that caused this one: its receipt names that."""
        if self._command is not None:
            first, last = self._command
            if (last.seq + 1, last.at, last.by) == (line.seq, line.at, line.by):
                return first
        return line.seq

    def _event(self, line: LedgerLine, event: AnyEvent) -> None:
        match event:
            case CanaryStarted(release=number, weight=weight):
                self._candidate = number
                if weight:
                    self._reached.setdefault(number, line.at)
            case WeightSet(weight=weight) if weight and self._candidate is not None:
                self._reached.setdefault(self._candidate, line.at)
            case Promoted(release=number, replaced=old):
                self._reached.setdefault(number, line.at)
                self._gone(old)
                self._candidate = None
            case Aborted(release=number):
                self._gone(number)
                self._candidate = None
            case CandidateRolledBack(release=number):
                self._incident(line, number, "candidate_rolled_back")
                self._candidate = None
            case RolledBack(release=number, left=left):
                self._incident(line, left, "rolled_back")
                self._reached[number] = line.at
                self._drill_over(line)
            case DrillStarted(release=number):
                assert self._command is not None
                drill = Practice(at=line.at, release=number, by=line.by)
                self._drills.append((self._command[0], None, drill))
                self._running = True
            case DrillEnded():
                self._drill_over(line, returned=True)

    def _sign(self, release: int | None, at: float, sign: Sign) -> None:
        if release is not None and release in self._reached:
            self._signs.setdefault(release, (at, sign))

    def _gone(self, release: int | None) -> None:
        if release is not None:
            self._reached.pop(release, None)
            self._signs.pop(release, None)

    def _incident(
        self, line: LedgerLine, release: int, event: Literal["rolled_back", "candidate_rolled_back"]
    ) -> None:
        automatic = line.actor.is_automatic
        own: Sign = "patrol" if automatic else "command"
        seen, sign = self._signs.get(release, (line.at, own))
        reached = self._reached.get(release)
        assert self._command is not None
        self._incidents.append(
            (
                self._command[0],
                Incident(
                    at=line.at,
                    release=release,
                    event=event,
                    by=line.by,
                    automatic=automatic,
                    sign=sign,
                    detect_s=None if reached is None else max(seen - reached, 0.0),
                    decide_s=None if sign == "command" else max(line.at - seen, 0.0),
                    machine=None,
                ),
            )
        )
        self._gone(release)

    def _newest(self) -> int | None:
        """Where the newest drill stands that flipped something."""
        return next(
            (at for at in range(len(self._drills) - 1, -1, -1) if not self._drills[at][2].dry), None
        )

    def _drill_over(self, line: LedgerLine, *, returned: bool = False) -> None:
        """The newest drill ended, if it ran: by its return, or by a rollback within it."""
        at = self._newest()
        if at is None or not self._running:
            return
        self._running = False
        began, _, drill = self._drills[at]
        assert self._command is not None
        if returned:
            over = replace(drill, lasted_s=max(line.at - drill.at, 0.0))
            self._drills[at] = (began, self._command[0], over)

    def _filed(self, line: LedgerLine, result: DrillResult) -> None:
        """Take in how the newest drill came out; or a dry one, which has no other entry."""
        if result.dry:
            practice = Practice(
                at=line.at,
                release=result.release,
                by=line.by,
                dry=True,
                ok=result.ok,
                why=result.why,
            )
            self._drills.append((None, None, practice))
            return
        at = self._newest()
        if at is not None and self._drills[at][2].ok is None:
            began, ended, drill = self._drills[at]
            self._drills[at] = (began, ended, replace(drill, ok=result.ok, why=result.why))

    def incidents(self) -> Iterable[Incident]:
        """Each with its receipt, oldest first."""
        for command, one in self._incidents:
            machine = self._receipts.get(command)
            yield replace(one, machine=machine, total_s=_total_s(one, machine))

    def drills(self) -> Iterable[Practice]:
        """Each with its receipts, oldest first."""
        for began, ended, one in self._drills:
            back = self._receipts.get(began) if began is not None else None
            forward = self._receipts.get(ended) if ended is not None else None
            yield replace(one, back=back, forward=forward)

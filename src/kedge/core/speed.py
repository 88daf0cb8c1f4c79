"""Speed-to-rollback: the time to detect, to decide and to roll back, as the ledger recorded it.

The input is entries, the output figures. Everything is measured. A part whose entry is missing,
because a process died or the entries read begin later, is None. It is counted, and never guessed.
Detection is an upper bound, from the moment at which a release first reached callers: the ledger
does not record when harm began.
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
"""Target from the first caller to the first old answer: the aim of most teams that have one."""
TREND_S = 90 * 86_400.0
"""Length of a trend's period, a quarter: incidents are too rare for less."""

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
    """The times of one flip in its receipt, in seconds. The last three count from the command."""

    decide_s: float
    prepare_s: float
    write_s: float
    last_ack_s: float | None
    """None: a replica was silent."""
    first_answer_s: float | None
    """None: no caller was observed to get an answer."""
    total_s: float


class Incident(Value, frozen=True, kw_only=True):
    """The rollback of a release."""

    at: float
    """Unix time of the command."""
    release: int
    """The release that was left."""
    event: Literal["rolled_back", "candidate_rolled_back"]
    by: str
    automatic: bool
    sign: Sign
    """The first sign of harm: an alert, a failed verdict, or a command of the patrol or an
    operator."""
    detect_s: float | None
    """At most: from its first caller to the sign. None: it reached callers before the first entry
    read."""
    decide_s: float | None
    """From the sign to the command. None: the command was the sign."""
    machine: FlipTimes | None
    """None: the receipt is missing."""
    total_s: float | None = None
    """From the first caller to the first old answer; None if a part is unknown."""


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
    """The distribution of some seconds by nearest rank, so that each quantile was measured."""

    n: int = 0
    p50: float | None = None
    p95: float | None = None


class Trend(Value, frozen=True):
    """The last ninety days, and the ninety days before."""

    last: Quantiles
    before: Quantiles


class Speed(Value, frozen=True, kw_only=True):
    """Speed-to-rollback of one endpoint, in seconds."""

    endpoint: str
    incidents: tuple[Incident, ...]
    drills: tuple[Practice, ...]
    whole_s: Quantiles
    """Incidents, from the first caller to the first old answer."""
    flip_s: Quantiles
    """Incidents, from the command to the first old answer."""
    drill_s: Quantiles
    """Drills that flipped, from the command to the first old answer."""
    slo_s: float
    within: float | None
    """The share of incidents within the target, of those whose total is known."""
    unknown: int
    """Incidents whose total is unknown."""
    unreceipted: int
    """Flips of incidents and drills whose receipt is missing."""
    incident_trend: Trend
    drill_trend: Trend
    cut: int | None = None
    """The number of entries read, if older ones exist; None: all were read."""


def speed(endpoint: str, lines: Iterable[LedgerLine], now: float, cut: int | None = None) -> Speed:
    """Compute the speed-to-rollback from an endpoint's entries.

    Args:
        endpoint: its name.
        lines: oldest first; older entries can be missing.
        now: Unix time, for the trend.
        cut: the number of entries read, if older ones exist.
    """
    reader = SpeedReader()
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
    """Return the median and the 95th percentile, by nearest rank."""
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
    """Return the times of one flip in its receipt, in seconds."""
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
    """Return the total duration of an incident; None if a part is unknown."""
    if incident.detect_s is None or machine is None or machine.first_answer_s is None:
        return None
    return incident.detect_s + (incident.decide_s or 0.0) + machine.first_answer_s


class SpeedReader:
    """Folds the entries of one endpoint, oldest first; its results can be read at any time."""

    def __init__(self) -> None:
        self._reached: dict[int, float] = {}
        """When each release that callers get now first reached them."""
        self._signs: dict[int, tuple[float, Sign]] = {}
        self._candidate: int | None = None
        self._command: tuple[int, LedgerLine] | None = None
        """The first and the last entry of the present command."""
        self._receipts: dict[int, FlipTimes] = {}
        self._incidents: list[tuple[int, Incident]] = []
        self._drills: list[tuple[int | None, int | None, Practice]] = []
        """The commands that began and ended each drill, and its known results."""
        self._running = False
        """Whether the newest drill has not ended."""

    def take(self, line: LedgerLine) -> None:
        """Process one entry."""
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
        """Return the first entry of the command that caused this one; its receipt names it."""
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
        """Return the index of the newest drill that flipped a release."""
        return next(
            (at for at in range(len(self._drills) - 1, -1, -1) if not self._drills[at][2].dry), None
        )

    def _drill_over(self, line: LedgerLine, *, returned: bool = False) -> None:
        """Close the newest drill, if it runs: by its return, or by a rollback within it."""
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
        """Process the result of the newest drill, or of a dry one, which has no other entry."""
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
        """Yield each incident with its receipt, oldest first."""
        for command, one in self._incidents:
            machine = self._receipts.get(command)
            yield replace(one, machine=machine, total_s=_total_s(one, machine))

    def drills(self) -> Iterable[Practice]:
        """Yield each drill with its receipts, oldest first."""
        for began, ended, one in self._drills:
            back = self._receipts.get(began) if began is not None else None
            forward = self._receipts.get(ended) if ended is not None else None
            yield replace(one, back=back, forward=forward)

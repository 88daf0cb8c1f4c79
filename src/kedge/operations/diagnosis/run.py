"""Run of `kedge diagnose` and `kedge accept`: read the log, ask the core, record the finding."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from msgspec.structs import asdict

from kedge.core.automation import guardrails
from kedge.core.diagnosis.contrast import LEAST
from kedge.core.diagnosis.diagnose import diagnose
from kedge.core.diagnosis.facts import Facts, Instruments, Sample, Source
from kedge.core.diagnosis.summary import DiagnosisSummary, filed
from kedge.core.errors import KedgeError, Refused
from kedge.core.evidence.answers import get_target
from kedge.core.evidence.labels import is_own
from kedge.core.evidence.records import JoinRow
from kedge.core.features.generations import runs_of
from kedge.core.names import check_segment
from kedge.core.stored.ledger import Note
from kedge.core.stored.notes import ReferenceAccepted, build_note
from kedge.core.time.instants import read_instant, read_when
from kedge.core.values import Arm, Release, State
from kedge.engine.submission import Say
from kedge.engine.watch import Watch, comparison_of
from kedge.operations.diagnosis.cells import Cells, Contrasting, changed
from kedge.operations.diagnosis.document import (
    AcceptedReference,
    DiagnosisReport,
    ReferenceWindow,
    TodayWindow,
)
from kedge.operations.diagnosis.stored import store_report
from kedge.operations.diagnosis.window import AnswerReading, Logged, asked, read_columns, window
from kedge.operations.evidence.read import state_of
from kedge.operations.features.staleness import lag_of
from kedge.workspace import Workplace, actor

REFERENCE = 50_000
"""Limit of requests of a reference, newest first: half as many as of today, which needs pairs."""
WEEK_S = 7 * 24 * 3600.0
BACK_S = WEEK_S
"""How far before a change of production, or before today's window, a reference is searched."""


class DiagnoseOptions(NamedTuple):
    """The options of the command."""

    since: str = "24h"
    until: str | None = None
    reference_since: str | None = None
    reference_until: str | None = None
    segment: str | None = None
    production: bool = False


class Reference(NamedTuple):
    """A window that today is compared with, its release, and the rule of its choice."""

    logged: Logged
    of: Literal["new", "old"]
    rule: str


def diagnosis_of(
    place: Workplace,
    endpoint: str,
    options: DiagnoseOptions,
    *,
    say: Say,
) -> DiagnosisReport:
    """Diagnose why an endpoint answers worse than before, and record the finding.

    Args:
        place: the state directory.
        endpoint: its name.
        options: the options, such as the windows.
        say: called with progress messages.

    Returns:
        The diagnosis, its windows, the counts, and the number of its note.

    Raises:
        Refused: the endpoint is not found, it has no production, `bad_time`, `metric_unfit`,
            `unknown_segment`.
        Unavailable: the ledger or the log cannot be read.
    """
    began = place.clock.monotonic()
    state = state_of(place, endpoint)
    if options.segment is not None:
        check_segment(options.segment, state.policy.segments, endpoint)
    new, old = _releases(state, production=options.production)
    now = place.clock.unix()
    until = read_when(options.until, now) if options.until else now
    accepted = _accepted(place, state)
    since = min(read_when(options.since, now), until)
    if accepted is not None and accepted[0] < until:
        since = max(since, accepted[1])
    say(f"reading {endpoint}'s log")
    today = _todays(place, state, since, until, options.segment)
    reference = _Referring(place, state, new, old, today, options, now).found(accepted)
    read_columns(state, today, *((reference.logged,) if reference is not None else ()))
    reading = AnswerReading(get_target(state), _metric(state))
    known = [*today.outcomes, *(reference.logged.outcomes if reference is not None else ())]
    reading.outcomes(known)  # decides between words and numbers for both windows
    cells = Contrasting(place, state, today, reading, say).gather(new, old)
    facts = _facts(place, state, (new, old), today, reference, reading, cells)
    found = diagnose(replace(facts, sources=_sources(place, new)))
    short = filed(
        found,
        new=new.number,
        old=old.number if old is not None else None,
        at=now,
        since=since,
        until=until,
        requests=len(today.rows),
        labelled=today.labelled,
        segment=options.segment or "",
        took_s=round(place.clock.monotonic() - began, 3),
    )
    seq, fault = _file(place, endpoint, short)
    report = DiagnosisReport(
        endpoint=endpoint,
        diagnosis=found,
        window=TodayWindow(**asdict(today.summary()), segment=options.segment),
        reference=_reference_window(reference, new, old),
        replayed=cells.replayed,
        faults=tuple(cells.faults),
        filed=seq,
        not_filed=fault,
    )
    return _stored(place, report, say)


def _stored(place: Workplace, report: DiagnosisReport, say: Say) -> DiagnosisReport:
    """Store a report for the dashboard, and return it; only a warning follows if that fails."""
    lost = store_report(place.state_dir, report)
    if lost:
        say(lost)
    return report


def _todays(
    place: Workplace, state: State, since: float, until: float, segment: str | None
) -> Logged:
    """Read the requests of the window that production answered."""

    def is_live(row: JoinRow) -> bool:
        return row.production == state.production

    return window(place, state, since, until, is_live, segment=segment)


def _reference_window(
    reference: Reference | None, new: Release, old: Release | None
) -> ReferenceWindow | None:
    """Return the reference's window and release; None if there was none."""
    if reference is None:
        return None
    of = new if reference.of == "new" or old is None else old
    summary = asdict(reference.logged.summary())
    return ReferenceWindow(**summary, of=_label(of), rule=reference.rule)


def _file(place: Workplace, endpoint: str, short: DiagnosisSummary) -> tuple[int | None, str]:
    """Record the summary in the ledger; return the entry's number, or the fault.

    If the ledger cannot be written, only the note is lost, not the diagnosis.
    """
    note = build_note(short)
    try:
        entry = place.ledger.note(endpoint, note, by=actor(), reason="", at=place.clock.now())
    except KedgeError as error:
        return None, f"{error.code}: {error}"
    return entry.seq, ""


def _releases(state: State, *, production: bool = False) -> tuple[Release, Release | None]:
    """Return the diagnosed release and the landing of a rollback.

    With `production` it is production, even during a rollout.
    """
    if state.production is None:
        raise Refused(
            f"{state.endpoint} has nothing in production to diagnose", code="nothing_in_production"
        )
    live = state.releases[state.production]
    if state.candidate is not None and not production:
        return state.releases[state.candidate], live
    back = state.back if state.back != state.production else None
    return live, state.releases[back] if back is not None else None


def _metric(state: State) -> str:
    """Return the loss that the policy judges quality by."""
    if state.policy.output.kind == "ranking":
        raise Refused(
            "labels of a ranking cannot be diagnosed: one answer holds many items",
            code="metric_unfit",
            hint=f"kedge evidence {state.endpoint} compares the releases by them",
        )
    metric = guardrails(state.policy)["quality"].metric or "error_rate"
    return (
        "error_rate" if is_own(metric) else metric
    )  # a function's losses are unknown for answers that are asked again


def _label(release: Release) -> str:
    return f"{release.label} (v{release.version})"


# ---------------------------------------------------------------- facts


def _facts(
    place: Workplace,
    state: State,
    releases: tuple[Release, Release | None],
    today: Logged,
    reference: Reference | None,
    reading: AnswerReading,
    cells: Cells,
) -> Facts:
    new, old = releases
    metric = _metric(state)
    parts = frozenset(changed(new, old)) if old is not None else frozenset()
    divided = len(cells.answers) == 4 or not parts
    both = frozenset({"model", "features"})
    return Facts(
        output=state.policy.output,
        metric=metric,
        new=_label(new),
        old=_label(old) if old is not None else None,
        current=Sample(
            columns=today.columns,
            truth=reading.outcomes(today.outcomes),
            units=today.units(),
            at=today.times(),
        ),
        answers=cells.answers,
        changed=both if divided else parts,  # type: ignore[arg-type]
        reference=_sample(reference, reading),
        reference_of=reference.of if reference is not None else "old",
        swaps=cells.swaps,
        training=cells.training,
        inputs=cells.inputs,
        instruments=_instruments(place, state, today),
    )


def _sources(place: Workplace, new: Release) -> tuple[Source, ...]:
    """Return the age of values that a release reads by key; unreadable ones are left out."""
    found = []
    for run in runs_of(new.generation):
        try:
            lag, limit = lag_of(place, run)
        except KedgeError:
            continue  # the replay of the cells meets and reports the same fault
        found.append(Source(run.label, lag, limit))
    return tuple(found)


def _sample(reference: Reference | None, reading: AnswerReading) -> Sample | None:
    """Return the reference with the answers to its requests."""
    if reference is None:
        return None
    logged = reference.logged
    return Sample(
        columns=logged.columns,
        truth=reading.outcomes(logged.outcomes),
        units=logged.units(),
        at=logged.times(),
        scores=np.array(
            [reading.answer(row.score, row.decision) for row in logged.rows], np.float64
        ),
    )


def _instruments(place: Workplace, state: State, today: Logged) -> Instruments:
    """Return the state of the log itself."""
    coverage: dict[str, tuple[int, int]] = {}
    for arm in (Arm.PRODUCTION, Arm.CANDIDATE):
        mine = [n for n, row in enumerate(today.rows) if row.arm == arm]
        if mine:
            known = sum(today.outcomes[n] is not None for n in mine)
            coverage[str(arm)] = known, len(mine)
    return Instruments(
        split_fault=_split_fault(place, state),
        lost=today.lost,
        coverage=coverage if len(coverage) == 2 else {},
    )


def _split_fault(place: Workplace, state: State) -> str:
    """Return why the split between the arms is not as declared, from the patrol's evidence."""
    if not state.divided:
        return ""
    try:
        kept = place.windows.kept(state.endpoint, comparison_of(state))
        return Watch(state, kept).facts(place.clock.unix()).mismatch
    except KedgeError:
        return ""  # without evidence no fault is known


# ---------------------------------------------------------------- the reference


class _Referring:
    """The search for the window that today is compared with."""

    def __init__(
        self,
        place: Workplace,
        state: State,
        new: Release,
        old: Release | None,
        today: Logged,
        options: DiagnoseOptions,
        now: float,
    ) -> None:
        self._place = place
        self._state = state
        self._releases: dict[Literal["old", "new"], int] = {"new": new.number}
        if old is not None:
            self._releases = {"old": old.number, "new": new.number}
        self._today = today
        self._options = options
        self._now = now

    def found(self, accepted: tuple[float, float] | None) -> Reference | None:
        """Return the first with enough labels: named, accepted, a week ago, before change, window."""
        asked_for = self._options.reference_since or self._options.reference_until
        if asked_for:
            until = self._options.reference_until
            end = read_when(until, self._now) if until else self._today.since
            begin = self._options.reference_since
            begun = read_when(begin, self._now) if begin else end - BACK_S
            return self._read(begun, end, "as asked for", least=1)
        if accepted is not None:
            return self._read(*accepted, "accepted", least=1) or self._guessed()
        return self._guessed()

    def _guessed(self) -> Reference | None:
        since, until = self._today.since, self._today.until
        found = self._read(since - WEEK_S, until - WEEK_S, "the same hours a week before")
        flipped = read_instant(self._state.flipped_at) if self._state.flipped_at else None
        if found is None and flipped is not None and "old" in self._releases:
            # The last labelled requests of the previous production.
            rule = "the last requests before the newest change of production"
            found = self._read(flipped - BACK_S, min(flipped, since), rule)
        return found or self._read(since - BACK_S, since, "the requests before the window")

    def _read(
        self, since: float, until: float, rule: str, *, least: int = LEAST
    ) -> Reference | None:
        """Return a window that one of the two releases answered, if it has enough labels."""
        until = min(until, self._today.since)
        if until <= since:
            return None
        if len(self._place.records.labelled(self._state.endpoint, since, until, least)) < least:
            return None  # too few labels: the window is not read
        mine = set(self._releases.values())

        def wanted(row: JoinRow) -> bool:
            return asked(row) in mine and not row.failed

        logged = window(
            self._place,
            self._state,
            since,
            until,
            wanted,
            segment=self._options.segment,
            requests=REFERENCE,
        )
        by = {which: self._of(logged, number) for which, number in self._releases.items()}
        which = max(by, key=lambda each: sum(logged.outcomes[n] is not None for n in by[each]))
        if sum(logged.outcomes[n] is not None for n in by[which]) < max(least, 1):
            return None
        logged.only(by[which])
        logged.since = min(row.at for row in logged.rows)
        logged.until = max(row.at for row in logged.rows)
        return Reference(logged, which, rule)

    @staticmethod
    def _of(logged: Logged, number: int) -> list[int]:
        return [n for n, row in enumerate(logged.rows) if asked(row) == number]


def _accepted(place: Workplace, state: State) -> tuple[float, float] | None:
    """Return the newest window that an operator accepted as the reference."""
    entries = place.ledger.entries(state.endpoint, "accepted")
    if not entries or not isinstance(entries[0].event, Note):
        return None
    body = entries[0].event.body
    return (body.since, body.until) if isinstance(body, ReferenceAccepted) else None


def accept(
    place: Workplace, endpoint: str, *, reason: str, since: str, until: str | None
) -> AcceptedReference:
    """Make a window the reference from now on: today is expected to be like it.

    Raises:
        Refused: the endpoint is not found or has no production; `bad_time`; `nothing_logged`:
            the window has no request.
    """
    if not reason.strip():
        raise Refused(
            "a reason is required",
            code="no_reason",
            hint="--reason TEXT is stored with the reference",
        )
    state = state_of(place, endpoint)
    _releases(state)
    now = place.clock.unix()
    end = read_when(until, now) if until else now
    begin = min(read_when(since, now), end)
    logged = window(
        place, state, begin, end, lambda row: row.production == state.production, requests=REFERENCE
    )
    if not logged.rows:
        raise Refused(
            f"no prediction of r{state.production} was logged in that window",
            code="nothing_logged",
            hint="--since and --until name another",
        )
    body = ReferenceAccepted(
        since=begin,
        until=end,
        release=state.production,
        requests=len(logged.rows),
        labelled=logged.labelled,
    )
    place.ledger.note(endpoint, build_note(body), by=actor(), reason=reason, at=place.clock.now())
    return AcceptedReference(
        endpoint=endpoint,
        since=begin,
        until=end,
        release=_label(state.releases[state.production or 0]),
        requests=len(logged.rows),
        labelled=logged.labelled,
    )

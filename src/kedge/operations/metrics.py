"""Metrics for monitoring systems: control reads the state directory on a clock.

A scrape reads nothing: it gets what was read last. The totals of counters are stored, so that the
next control continues them. Evidence is read from the state that the patrol
stored, and judged again only if that state changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from math import exp

from kedge.core.automation import EARLY, decide
from kedge.core.codec import decode, encode
from kedge.core.errors import Unavailable
from kedge.core.metrics.alert_rules import AlertRules, make_rules
from kedge.core.metrics.history import LedgerHistory
from kedge.core.metrics.readings import (
    CopyReading,
    EndpointReading,
    EvidenceReading,
    SiteReading,
)
from kedge.core.metrics.samples import MetricFamily, build
from kedge.core.metrics.totals import MOST_BYTES, StoredTotals, Totals
from kedge.core.release.guards import step_number
from kedge.core.stored.ledger import Note
from kedge.core.stored.notes import ReadinessNote
from kedge.core.stored.roster import Member, Tally
from kedge.core.time.durations import seconds
from kedge.core.values import Stage, State
from kedge.engine.control.patrol import covered
from kedge.engine.recording.counts import summary
from kedge.engine.recording.recorder import bin_upper_us
from kedge.engine.submission import SILENT_S
from kedge.engine.watch import Watch, comparison_of, judged
from kedge.operations.drills import line_of
from kedge.operations.status.read import OPEN_ALERTS
from kedge.system.durable import write_atomically
from kedge.system.files import read_bounded, set_aside
from kedge.system.reserve import is_short
from kedge.workspace import Workplace

ENTRIES = 2_000
"""Entries of the ledger that are read at once: a few milliseconds."""
EVIDENCE_S = 15.0
"""Interval between two judgements of an endpoint's stored evidence: the usual interval of scrapes."""
BUDGET_S = 0.5
"""Time for evidence in one reading: about six comparisons of 200 segments. The others wait for the
next reading, the longest waiting first."""


TOTALS = "metrics.json"
"""File of the state directory with the totals of counters."""


def alert_rules_of(place: Workplace) -> AlertRules:
    """Return the alert rules for Prometheus, by the policies in force."""
    states = place.ledger.read().states
    return make_rules({name: state.policy for name, state in states.items()})


class MetricsReader:
    """Reads the metrics of all endpoints. One thread uses it, with a workplace of its own."""

    def __init__(self, place: Workplace, *, segments: bool) -> None:
        """Read from this state directory; `segments`: whether segments are named."""
        self._place = place
        self._segments = segments
        self._version = version("kedge")
        self._states: Mapping[str, State] = {}
        self._members: tuple[Member, ...] = ()
        self._totals: Totals | None = None
        self._stored: StoredTotals | None = None
        self._restored = False
        self._file = place.state_dir / TOTALS
        self._written = b""
        self._seq = 0
        self._history: dict[str, LedgerHistory] = {}
        self._failed: dict[str, tuple[str, ...]] = {}
        self._evidence: dict[str, _Judged] = {}
        self._due: dict[str, float] = {}
        """By endpoint: when its evidence is judged again (monotonic)."""

    def read(self) -> tuple[MetricFamily, ...]:
        """Return the samples of everything."""
        ledger = self._read_ledger()
        self._read_roster()
        counted = self._judge_all()
        found = []
        for state in self._states.values():
            copies = self._count(state)
            counted = counted and copies is not None
            found.append(self._reading(state, copies, alerts=ledger))
        now = self._place.clock.unix()
        site = SiteReading(
            at=now,
            version=self._version,
            endpoints=tuple(found),
            members=self._members,
            silent=frozenset(m.name for m in self._members if now - m.beat_at > SILENT_S),
            ledger=ledger,
            evidence=counted,
        )
        if self._totals is None:
            return build(site, {}, bin_upper_us, segments=self._segments)
        if ledger:
            self._totals.forget(self._states, now)
        return build(site, self._totals.series, bin_upper_us, segments=self._segments)

    def restore(self) -> None:
        """Read the stored totals, unless they were read. Before, no counter is shown.

        Raises:
            OSError: they cannot be read. Damaged ones are set aside: then counters start at 0.
        """
        if self._restored:
            return
        try:
            self._stored = decode(read_bounded(self._file, MOST_BYTES), StoredTotals)
        except FileNotFoundError:
            pass
        except ValueError as damage:  # also of msgspec
            aside = set_aside(self._file)
            raise OSError(f"{aside} holds no totals of counters: they start at 0") from damage
        self._restored = True

    def save(self) -> None:
        """Store the totals, unless the disk is below its reserve.

        A scrape must not see them before: after a crash the next control continues these.

        Raises:
            OSError: they cannot be written.
        """
        raw = encode(self._totals.stored()) if self._totals is not None else b""
        if raw != self._written and not is_short(self._place.state_dir):
            write_atomically(self._file, raw, durable=False)
            self._written = raw

    def _reading(
        self, state: State, copies: CopyReading | None, *, alerts: bool
    ) -> EndpointReading:
        name = state.endpoint
        judged_ = self._evidence.get(name)
        canary = state.stage is Stage.CANARY
        listed = self._place.alerts.listed
        return EndpointReading(
            state=state,
            step=(step_number(state)[0] if canary else 0, step_number(state)[1]),
            history=self._history.setdefault(name, LedgerHistory()).totals(),
            copies=copies,
            evidence=judged_.reading
            if judged_ is not None and judged_.key == comparison_of(state)
            else None,
            alerts=listed(name, over=False, limit=OPEN_ALERTS) if alerts else (),
            failed=self._failed.get(name),
        )

    # ------------------------------------------------------------ ledger and roster

    def _read_ledger(self) -> bool:
        """Read the rows and the new entries; return whether that worked."""
        try:
            self._states = dict(self._place.ledger.read().states)
            self._read_entries()
        except Unavailable:
            return False
        if self._totals is None and self._restored:
            self._totals = Totals(self._states, self._stored)
        return True

    def _read_entries(self) -> None:
        while True:
            entries = self._place.ledger.later(self._seq, ENTRIES)
            for entry in entries:
                self._seq = entry.seq
                self._history.setdefault(entry.endpoint, LedgerHistory()).take(line_of(entry))
                if isinstance(entry.event, Note) and type(entry.event.body) is ReadinessNote:
                    self._failed[entry.endpoint] = entry.event.body.failed
            if len(entries) < ENTRIES:
                return

    def _read_roster(self) -> None:
        try:
            self._members = self._place.roster.members()
        except Unavailable:
            return
        if self._totals is not None:
            self._totals.fold_processes(self._members)

    def _count(self, state: State) -> CopyReading | None:
        """Add up the counts of an endpoint's workers; return None if they cannot be read."""
        try:
            tallies = self._place.evidence.tallies(state.endpoint)
        except Unavailable:
            return None
        if self._totals is not None:
            self._totals.fold(state, tallies)
        return _copies(state, tallies)

    # ------------------------------------------------------------ evidence

    def _judge_all(self) -> bool:
        """Judge the endpoints that are due, within the budget; return whether all could be read."""
        clock = self._place.clock
        began = clock.monotonic()
        readable = True
        due = [one for one in self._states if self._due.get(one, 0.0) <= began]
        for name in sorted(due, key=lambda one: self._due.get(one, 0.0)):
            readable = self._judge(self._states[name]) and readable
            now = clock.monotonic()
            known = self._evidence.get(name)
            if known is not None and known.kept is not None:
                self._due[name] = now + EVIDENCE_S
            if now - began > BUDGET_S:
                break
        return readable

    def _judge(self, state: State) -> bool:
        """Judge the stored evidence if it changed; return whether it could be read."""
        name = state.endpoint
        if state.compared is None:
            self._evidence.pop(name, None)
            return True
        known = self._evidence.get(name)
        try:
            kept = self._place.windows.kept(name, comparison_of(state))
            if known is not None and known.epoch == state.epoch and known.kept == kept:
                return True
            self._evidence[name] = _Judged(state, kept, self._place)
        except Unavailable:
            return False
        return True


class _Judged:
    """The evidence of one comparison, with what it was read from."""

    def __init__(self, state: State, kept: bytes | None, place: Workplace) -> None:
        self.kept = kept
        self.epoch = state.epoch
        self.key = comparison_of(state)
        watch = Watch(state, kept)
        watch.label_coverage = covered(place.records, watch, state)
        self.reading = _read_evidence(state, watch, place.clock.unix())


def _read_evidence(state: State, watch: Watch, now: float) -> EvidenceReading:
    facts = watch.facts(now)
    measure, subject = judged(state)
    reverse = state.candidate is None
    shadow = state.stage is Stage.SHADOW
    return EvidenceReading(
        judged=(measure or 0, subject or 0),
        arms=("previous", "production") if reverse else ("production", "candidate"),
        log_arms=("candidate", "production") if reverse else ("production", "candidate"),
        decision=decide(state, facts).verdict,
        verdicts=tuple(one for one in watch.verdicts() if one.metric != EARLY),
        threshold=exp(min(facts.overall.needed, 700.0)),
        margins={name: rail.shown for name, rail in watch.rules.rails.items() if name != EARLY},
        healthy_s=facts.healthy_s,
        window_s=seconds(state.policy.shadow.window) if shadow else None,
        newest=now - facts.stale_s if facts.units != (0, 0) else None,
        labels=watch.label_summary(),
    )


def _copies(state: State, tallies: tuple[Tally, ...]) -> CopyReading:
    """Return the copies for a shadow in the present comparison."""
    present = (state.production, state.candidate, state.salt)
    mine = [t for t in tallies if (t.production, t.candidate, t.salt) == present]
    found = summary(mine).shadow
    return CopyReading(found.requests, found.answered, found.pairs, found.agreeing)

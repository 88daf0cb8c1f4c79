"""Continuity of evidence: detects a loss of evidence, and stores what cannot be read.

After a loss the evidence restarts. But a rollout must not go forward as if nothing had happened.
The loss is written to the ledger (which raises an alert), and the rollout is paused until a person
resumes it. A proven failure still rolls a candidate back.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from kedge.core.stored.ledger import Entry
from kedge.core.stored.notes import EvidenceLost, build_note
from kedge.core.time.instants import read_instant
from kedge.core.values import Beginning, Stage, State
from kedge.engine.snapshot import UNREADABLE
from kedge.engine.watch import Watch, comparison_of, judged
from kedge.ports import Clock, Ledger, Roster, WindowStore

SETTLING_S = 10.0
"""How long nothing goes forward after a new roster: ten beats, in which each replica writes its
row."""
UNREAD_S = 60.0
"""The same after unreadable windows: a newer kedge wrote them, whose workers are being relieved. A
relieved worker is gone after this time."""
HISTORY = 500
"""Limit of entries read for the start of a rollout; an earlier start was before the loss."""

log = structlog.get_logger("kedge.patrol")


class Continuity:
    """What one patrol knows of losses. It belongs to the patrol's thread."""

    def __init__(
        self, *, store: WindowStore, ledger: Ledger, roster: Roster, clock: Clock, by: str
    ) -> None:
        """Look at this store and roster, and write losses into this ledger."""
        self._store = store
        self._ledger = ledger
        self._roster = roster
        self._clock = clock
        self._by = by
        self._seen: Beginning | None = None
        self._looked = False
        self._filed: set[tuple[str, str, str]] = set()
        """Losses that are in the ledger: once each, even if the next step fails and is tried
        again."""
        self._skipped: dict[str, int] = {}
        self._unread_until: dict[str, float] = {}

    def open(self, state: State) -> Watch:
        """Return the watch of a rollout: the stored one, or a new one if that is lost.

        Raises:
            KedgeError: the store or the ledger cannot be reached.
        """
        key = comparison_of(state)
        kept = self._store.kept(state.endpoint, key)
        watch = Watch(state, kept)
        if kept is not None and watch.held and watch.restarted == UNREADABLE and not watch.cursor:
            self._file(state, UNREADABLE, "what was kept is in evidence.db, under another name")
            self._store.set_aside(state.endpoint, key, watch.snapshot())
        elif kept is None:
            lost = self._store.beginning()
            if lost is not None and lost.why and lost.at > began_at(self._ledger, state):
                self._lose(state, watch, lost)
        return watch

    def check(self, state: State, watch: Watch) -> None:
        """Detect a new store, and a rollout that was paused meanwhile.

        Raises:
            KedgeError: the ledger cannot be reached.
        """
        if watch.held and (state.paused or state.stage is Stage.SETTLED):
            watch.held = ""
        skipped = self._store.skipped(state.endpoint)
        if skipped != self._skipped.get(state.endpoint, 0):
            now = self._clock.monotonic()
            if now >= self._unread_until.get(state.endpoint, 0.0):
                log.warning("patrol.windows_unreadable", endpoint=state.endpoint, skipped=skipped)
            self._skipped[state.endpoint] = skipped
            self._unread_until[state.endpoint] = now + UNREAD_S

    def look(self, states: Mapping[str, State], watches: Mapping[str, Watch]) -> None:
        """Detect a new store since the last look: each watch in memory has a gap.

        Raises:
            KedgeError: the ledger cannot be reached.
        """
        before, now, first = self._seen, self._store.beginning(), not self._looked
        if not first and now is not None and now != before and (now.why or before):
            for endpoint, watch in watches.items():
                if (state := states.get(endpoint)) is not None and watch.fits(state):
                    self._lose(state, watch, now)
        self._seen, self._looked = now, True

    def _lose(self, state: State, watch: Watch, lost: Beginning) -> None:
        why = f"the evidence was lost: {lost.why or 'it was gone'}"
        self._file(state, why, f"it is kept as {lost.kept}" if lost.kept else "")
        watch.begin_anew(why)

    def hold(self, endpoint: str) -> str:
        """Return why nothing may go forward for a while; empty if it may."""
        if self._clock.monotonic() < self._unread_until.get(endpoint, 0.0):
            return "windows of a newer kedge, or damaged ones, cannot be read"
        roster = self._roster.beginning()
        if roster is not None and roster.why and 0 <= self._clock.unix() - roster.at < SETTLING_S:
            return (
                f"the roster was restarted empty ({roster.why}): replicas write themselves into it"
            )
        return ""

    def _file(self, state: State, why: str, kept: str) -> None:
        loss = (state.endpoint, comparison_of(state), why)
        if loss in self._filed:
            return
        log.warning("patrol.evidence_restarted", endpoint=state.endpoint, fault=why, kept=kept)
        subject = judged(state)[1]
        self._ledger.note(
            state.endpoint,
            build_note(EvidenceLost(subject=subject, detail=kept)),
            by=self._by,
            reason=why,
            at=self._clock.now(),
        )
        self._filed.add(loss)


def began_at(ledger: Ledger, state: State) -> float:
    """Return when a comparison began, Unix time; 0 if that is long ago.

    Raises:
        KedgeError: the ledger cannot be reached.
    """
    if state.stage is Stage.SETTLED:
        return _unix(state.flipped_at)
    for entry in ledger.history(state.endpoint, HISTORY):
        if _begins(entry, state):
            return _unix(entry.at)
    return 0.0


def _begins(entry: Entry, state: State) -> bool:
    return bool(state.salt) and getattr(entry.event, "salt", None) == state.salt


def _unix(at: str) -> float:
    return read_instant(at) if at else 0.0

"""Drills in control: ends drills whose own process does not, and starts scheduled ones.

The row states until when a drill lasts. The command that started it returns earlier. If the time is
over and the row is still in the drill, its process died or hangs. Two clocks measure the time: the
wall clock, which a jump may set back, and this process's monotonic clock. The patrol checks twice a
second.

A drill that is due is `kedge drill` in a separate process, which the patrol ends like any other. It
does not start before every replica serves the row with all that it must hold. After a reboot
control is there long before the models are, and a drill that fails then shows nothing about a
rollback.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from kedge.core.errors import KedgeError, NotAcknowledged, Refused
from kedge.core.release.commands import DrillStarted, Return
from kedge.core.release.needs import needs
from kedge.core.stored.ledger import Entry, Note
from kedge.core.stored.notes import DrillResult, ReceiptNote, ReceiptParts, build_note
from kedge.core.time.durations import seconds
from kedge.core.time.instants import read_instant
from kedge.core.values import Drilling, Stage, State
from kedge.engine.loop import Duty, Loop
from kedge.engine.submission import SILENT_S, Control, lacking, replicas
from kedge.ports import Clock, Ledger, Roster

LONGEST_S = 60.0
"""Longest duration of a drill."""
READ = 50
"""Limit of entries read for the drill's own: between its start and its end there are few."""
DIED = "its process died, and the patrol returned"

TICK_S = 5.0
CHECK_S = 600.0
"""How often control checks whether a drill of an endpoint is due; a refused one is tried again
then."""
CALM_S = 600.0
"""Wait after a change of production: operators look at the change at that time."""
READY_S = 300.0
"""How long a drill that is due waits for replicas that are not ready. Then it begins in any case:
what is not ready after two loads and a restart is what a drill must find."""
ENTRIES = 20_000
"""Limit of entries read for the last drill, newest first. An older one was long ago."""

log = structlog.get_logger("kedge.drills")


class Returns:
    """Ends drills that are out of time."""

    def __init__(
        self, *, ledger: Ledger, control: Callable[[], Control], clock: Clock, by: str
    ) -> None:
        self._ledger = ledger
        self._control = control
        self._clock = clock
        self._by = by
        self._seen: dict[str, tuple[float, float]] = {}
        """By endpoint: until when its drill lasts, and since when (monotonic) it is known here."""

    def look(self, state: State) -> None:
        """End the drill of the row if its time is over, and record that it failed."""
        drill = state.drill
        if drill is None:
            self._seen.pop(state.endpoint, None)
            return
        now = self._clock.monotonic()
        until, since = self._seen.get(state.endpoint, (drill.until, now))
        if until != drill.until:
            since = now
        self._seen[state.endpoint] = (drill.until, since)
        if self._clock.unix() < drill.until and now - since < LONGEST_S:
            return
        if self._returned(state, drill):
            self._file(state, drill)

    def _returned(self, state: State, drill: Drilling) -> bool:
        """End the drill; return whether this call moved the row."""
        try:
            self._control().submit(
                state.endpoint, Return(until=drill.until), by=self._by, reason=DIED
            )
        except Refused as error:
            log.info("drills.overtaken", endpoint=state.endpoint, fault=f"{error.code}: {error}")
            return False
        except NotAcknowledged as error:
            log.warning("drills.unacknowledged", endpoint=state.endpoint, fault=str(error))
        else:
            log.info("drills.returned", endpoint=state.endpoint, release=drill.left)
        return True

    def _file(self, state: State, drill: Drilling) -> None:
        assert state.production is not None
        try:
            began, back = _of(self._ledger.history(state.endpoint, READ), drill)
            lasted_s = self._clock.unix() - began if began is not None else 0.0
            filed = DrillResult(
                ok=False,
                why=DIED,
                release=state.production,
                left=drill.left,
                lasted_s=lasted_s,
                total_s=lasted_s if back is None else back.total_ms / 1e3,
                back=back,
            )
            self._ledger.note(
                state.endpoint,
                build_note(filed),
                by=self._by,
                reason=DIED,
                at=self._clock.now(),
            )
        except KedgeError as error:
            log.warning("drills.unfiled", endpoint=state.endpoint, fault=str(error))


def _of(entries: tuple[Entry, ...], drill: Drilling) -> tuple[float | None, ReceiptParts | None]:
    """Return when a drill began (Unix time), and its receipt's parts; None without an entry."""
    began = next(
        (e for e in entries if isinstance(e.event, DrillStarted) and e.event.until == drill.until),
        None,
    )
    if began is None:
        return None, None
    notes = (e.event.body for e in entries if isinstance(e.event, Note))
    receipts = (body for body in notes if isinstance(body, ReceiptNote))
    parts = next((one.parts for one in receipts if one.of == began.seq), None)
    return read_instant(began.at), parts


Start = Callable[[str], Callable[[], bool]]
"""Starts a drill of an endpoint; the function that it returns tells whether the drill still
runs."""


class Schedule:
    """Starts drills that are due by policy (`drill.every`), while this control's patrol leads."""

    def __init__(
        self,
        duty: Duty,
        *,
        ledger: Ledger,
        roster: Roster,
        start: Start,
    ) -> None:
        self._ledger = ledger
        self._roster = roster
        self._clock = duty.clock
        self._start = start
        self._checked: dict[str, float] = {}
        self._due: dict[str, float] = {}
        """By endpoint: since when (monotonic) a drill waits for its replicas."""
        self._running: dict[str, Callable[[], bool]] = {}
        self.loop = Loop(duty, "drills.look", self.look, every_s=TICK_S, rests_first=True)
        self._net = self.loop.net

    def look(self) -> None:
        """Start each drill that is due, does not run yet, and has its replicas ready."""
        for state in self._ledger.read().states.values():
            if state.policy.drill.every is not None:
                self._net.run(f"drills.look.{state.endpoint}", partial(self._look_at, state))

    def _look_at(self, state: State) -> None:
        name, now = state.endpoint, self._clock.monotonic()
        if now - self._checked.get(name, -CHECK_S) >= CHECK_S:
            self._checked[name] = now
            self._due.pop(name, None)
            if self._is_due(state):  # too much to read at every look
                self._due[name] = now
        if name in self._due and (now - self._due[name] >= READY_S or self._ready(state)):
            waited = now - self._due[name]
            if not waited or self._is_due(state):
                log.info("drills.due", endpoint=name)
                self._running[name] = self._start(name)
            # Otherwise an operator drilled, or began another change, while it waited. A start that
            # fails stays due.
            del self._due[name]

    def _is_due(self, state: State) -> bool:
        running = self._running.get(state.endpoint)
        idle = running is None or not running()
        return idle and due(state, self._last(state.endpoint), self._clock.unix())

    def _ready(self, state: State) -> bool:
        """Return whether every replica reports, serves this row, and holds what it must hold."""
        members, now = replicas(self._roster.members()), self._clock.unix()
        serving = all(
            now - m.beat_at <= SILENT_S and m.epochs.get(state.endpoint) == state.epoch
            for m in members
        )
        held = not lacking(members, state.endpoint, list(needs(state, now=now)))
        return bool(members) and serving and held

    def _last(self, endpoint: str) -> float | None:
        """Return when the newest drill that flipped was recorded, well or not; Unix time."""
        return next(
            (
                read_instant(entry.at)
                for entry in self._ledger.history(endpoint, ENTRIES)
                if isinstance(entry.event, Note)
                and isinstance(entry.event.body, DrillResult)
                and not entry.event.body.dry
            ),
            None,
        )


def due(state: State, last: float | None, now: float) -> bool:
    """Return whether the policy requires a drill now. Freezing stops it, as all automation.

    Args:
        state: the row.
        last: when the last drill was recorded, Unix time; None: never.
        now: Unix time.
    """
    every = state.policy.drill.every
    stopped = state.automation.frozen or state.unconfirmed
    if every is None or state.stage is not Stage.SETTLED or stopped:
        return False
    if state.back is None or not state.flipped_at:
        return False
    calm = now - read_instant(state.flipped_at) >= CALM_S
    return calm and (last is None or now - last >= seconds(every))

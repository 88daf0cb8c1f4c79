"""Ends a drill whose own process does not, and starts those that a policy asks for.

The row says until when a drill lasts. The command that started it returns before that; when the time is
over and the row still stands in the drill, its process died or hangs. The time is told by two
clocks: the wall, which a jump may set back, and this process's own. The patrol asks, twice a second.

A drill that is due is `kedge drill` in a process of its own, which the patrol ends like any other.
It is not started before every replica serves the row with all that it is to hold. After a reboot
control is there long before the models are, and a drill that fails of that says nothing of a rollback.
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
"""No drill lasts longer."""
READ = 50
"""Entries looked through for the drill's own: between its start and its end there are few."""
DIED = "its process died, and the patrol returned"

TICK_S = 5.0
CHECK_S = 600.0
"""How often an endpoint is asked whether a drill is due; one that was refused is tried again then."""
CALM_S = 600.0
"""Not so soon after production changed: people look at that then."""
READY_S = 300.0
"""So long a drill that is due waits for replicas that are not ready. Then it begins anyway: what
does not become ready within two loads and a restart is what a drill is to find."""
ENTRIES = 20_000
"""Looked through for the last drill, newest first. One that is further back was long ago."""

log = structlog.get_logger("kedge.drills")


class Returns:
    """Returns from drills that are out of time."""

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
        """Return if the row stands in a drill whose time is over, and file that it failed."""
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
        """Whether it was this that moved the row."""
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
    """When a drill began (Unix time), and its receipt's parts; None where there is no entry."""
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
"""Starts a drill of an endpoint; what it gives says whether it still runs."""


class Schedule:
    """Starts the drills that policies ask for (`drill.every`), where this control's patrol leads."""

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
        """Start what is due, does not run yet, and has its replicas ready."""
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
            # Otherwise an operator drilled, or began something, while it waited. A start that
            # fails stays due.
            del self._due[name]

    def _is_due(self, state: State) -> bool:
        running = self._running.get(state.endpoint)
        idle = running is None or not running()
        return idle and due(state, self._last(state.endpoint), self._clock.unix())

    def _ready(self, state: State) -> bool:
        """Whether every replica speaks, serves this row, and holds what it is to hold."""
        members, now = replicas(self._roster.members()), self._clock.unix()
        serving = all(
            now - m.beat_at <= SILENT_S and m.epochs.get(state.endpoint) == state.epoch
            for m in members
        )
        held = not lacking(members, state.endpoint, list(needs(state, now=now)))
        return bool(members) and serving and held

    def _last(self, endpoint: str) -> float | None:
        """When the newest drill was filed that flipped something, well or not; Unix time."""
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
    """Whether the policy asks for a drill now. Freezing stops it, as all automation.

    Args:
        state: the row.
        last: when the last drill was filed, Unix time; None: never.
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

"""Ends a drill whose own process does not: beside the patrol, which looks twice a second.

The row says until when a drill lasts. Whoever started it returns before that; when the time is
over and the row still stands in the drill, its process died or hangs. The time is told by two
clocks: the wall, which a jump may set back, and this process's own.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
import structlog

from kedge.core.commands import DrillStarted, Return
from kedge.core.errors import KedgeError, NotAcknowledged, Refused
from kedge.core.speed import Filed
from kedge.core.values import Drilling, State
from kedge.engine.control import Control
from kedge.ports import Clock, Entry, Ledger, Note

LONGEST_S = 60.0
"""No drill lasts longer."""
READ = 50
"""Entries looked through for the drill's own: between its start and its end there are few."""
DIED = "its process died, and the patrol returned"

log = structlog.get_logger("kedge.drills")


class Returns:
    """Returns from drills that are out of time."""

    def __init__(
        self, *, ledger: Ledger, control: Callable[[], Control], clock: Clock, by: str
    ) -> None:  # fmt: skip
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
            filed = Filed(
                ok=False, why=DIED, release=state.production, left=drill.left, lasted_s=lasted_s,
                total_s=lasted_s if back is None else back["total_ms"] / 1e3, back=back,
            )  # fmt: skip
            self._ledger.note(
                state.endpoint, Note(kind="drill", body=msgspec.to_builtins(filed)),
                by=self._by, reason=DIED, at=self._clock.now(),
            )  # fmt: skip
        except KedgeError as error:
            log.warning("drills.unfiled", endpoint=state.endpoint, fault=str(error))


def _of(entries: tuple[Entry, ...], drill: Drilling) -> tuple[float | None, dict[str, Any] | None]:
    """When a drill began (Unix time), and its receipt's parts; None where there is no entry."""
    began = next(
        (e for e in entries if isinstance(e.event, DrillStarted) and e.event.until == drill.until),
        None,
    )
    if began is None:
        return None, None
    notes = (e.event for e in entries if isinstance(e.event, Note))
    receipt = next(
        (n.body for n in notes if n.kind == "receipt" and n.body.get("of") == began.seq), None
    )
    parts = None if receipt is None else {
        name: value for name, value in receipt.items() if name not in ("of", "command")
    }  # fmt: skip
    return datetime.fromisoformat(began.at).timestamp(), parts
